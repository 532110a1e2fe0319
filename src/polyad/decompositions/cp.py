"""CP over (output channels, input channels, kernel): 1x1, depthwise k x k, 1x1.

Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation", NeurIPS 2014;
Astrid and Lee, "CP-decomposition with Tensor Power Method for Convolutional Neural Networks Compression", 2017.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_channel, pointwise, resized, without_kernel
from polyad.layers import LayerSpec
from polyad.records import Rank


class CP(Decomposition):
    """`or,ir,kr->oik`: a sum of r outer products."""

    name = "cp"
    equation = "or,ir,kr->oik"
    summary = "CP (o, i, hw): 1x1 to r channels, depthwise k x k, 1x1"
    source = "Astrid and Lee, 2017"
    good_for = (
        "Strong cuts of k x k convolutions: at a quarter of ResNet-20's 3x3 parameters it loses 2 points, the "
        "next best form 18. Time falls less than MACs: in small networks three thin layers, one of them "
        "depthwise, can be slower on a CPU than the dense one."
    )
    additive = True

    def refuses(self, layer: LayerSpec) -> str | None:
        return without_kernel(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        o, i, k = size["o"], size["i"], size["k"]
        return (min(o * i, o * k, i * k),)

    def layers(self, layer: LayerSpec, rank: Rank) -> tuple[LayerSpec, ...]:
        inner = rank[0] * layer.groups
        return (
            pointwise(layer, layer.in_features, inner),
            resized(layer, inner, inner, groups=inner),
            pointwise(layer, inner, layer.out_features, bias=layer.bias),
        )

    def weights(self, factors: Sequence[Tensor]) -> list[Tensor]:
        out, inp, kernel = factors
        return [inp.mT, kernel.mT, out]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """The r strongest terms of a two-level SVD: of the (o, ik) matrix, then of each right vector as (i, k).

        With min(o i, o k) terms the two levels are exact; where i k is smaller the unit terms e_i x e_k are.
        """
        g, o, i, k = target.shape
        r = rank[0]
        if r >= i * k:
            return _unit_terms(target, r)
        u, s, vh = torch.linalg.svd(target.reshape(g, o, i * k), full_matrices=False)
        inner_u, inner_s, inner_vh = torch.linalg.svd(vh.reshape(g, -1, i, k), full_matrices=False)
        strength = (s.unsqueeze(-1) * inner_s).flatten(1)
        found = strength.topk(min(r, strength.shape[1]), dim=1).indices
        outer, inner = found // inner_s.shape[-1], found % inner_s.shape[-1]
        group = torch.arange(g, device=target.device)[:, None]
        weight = torch.take_along_dim(strength, found, 1).unsqueeze(1)
        factors = [
            u.mT[group, outer].mT * weight,
            inner_u.mT[group, outer, inner].mT,
            inner_vh[group, outer, inner].mT,
        ]
        return [torch.nn.functional.pad(factor, (0, r - factor.shape[-1])) for factor in factors]


def _unit_terms(target: Tensor, rank: int) -> list[Tensor]:
    """Every (i, k) pair as a term of its own: exact, and zero beyond i * k."""
    g, o, i, k = target.shape
    eye_i = torch.eye(i, dtype=target.dtype, device=target.device).repeat_interleave(k, 1)
    eye_k = torch.eye(k, dtype=target.dtype, device=target.device).repeat(1, i)
    factors = [target.reshape(g, o, i * k), eye_i.expand(g, -1, -1), eye_k.expand(g, -1, -1)]
    return [torch.nn.functional.pad(factor, (0, rank - i * k)) for factor in factors]


FORMS.register(CP.name, CP())
