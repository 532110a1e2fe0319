"""Tucker-2: 1x1 to fewer channels, a small k x k core, 1x1 back.

Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", ICLR 2016.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_channel, pointwise, resized, without_kernel
from polyad.layers import LayerSpec
from polyad.linalg import eigh_descending
from polyad.records import Rank

HOOI_SWEEPS = 3


class Tucker2(Decomposition):
    """`op,pqk,qi->oik`: both channel modes are projected, the kernel is kept."""

    name = "tucker2"
    equation = "op,pqk,qi->oik"
    summary = "Tucker-2: 1x1, k x k core with fewer channels on both sides, 1x1"
    source = "Kim et al., ICLR 2016"
    good_for = (
        "Wide k x k convolutions whose channels are redundant on both sides, such as the last one of the demo, "
        "which keeps a tenth of its parameters; the core is a dense convolution. Narrow layers leave it little to "
        "save: at half of ResNet-20's 3x3 parameters it costs 4 points, cp none."
    )

    def refuses(self, layer: LayerSpec) -> str | None:
        return without_kernel(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return size["o"], size["i"]

    def layers(self, layer: LayerSpec, rank: Rank) -> tuple[LayerSpec, ...]:
        p, q = rank[0] * layer.groups, rank[1] * layer.groups
        return (
            pointwise(layer, layer.in_features, q),
            resized(layer, q, p),
            pointwise(layer, p, layer.out_features, bias=layer.bias),
        )

    def weights(self, factors: Sequence[Tensor]) -> list[Tensor]:
        out, core, inp = factors
        return [inp, core, out]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """Higher-order orthogonal iteration (De Lathauwer, De Moor, Vandewalle, SIAM J. Matrix Anal. 2000)."""
        p, q = rank
        inp = _basis(target, "Goik,Gojk->Gij", q)
        for _ in range(HOOI_SWEEPS):
            narrow = torch.einsum("Goik,Giq->Goqk", target, inp)
            out = _basis(narrow, "Goqk,Gaqk->Goa", p)
            inp = _basis(torch.einsum("Goik,Gop->Gpik", target, out), "Gpik,Gpjk->Gij", q)
        core = torch.einsum("Goik,Gop,Giq->Gpqk", target, out, inp)
        return [out, core, inp.mT]

    def ranks(self, layer: LayerSpec, target: Tensor, shares: Sequence[float]) -> list[Rank]:
        """For every share the pair of ranks whose discarded energy, summed over both modes, is least.

        The sum of the two tails bounds the error of the truncated HOSVD (De Lathauwer et al. 2000, property 10).
        """
        tails = []
        for subscripts in ("Goik,Gaik->Goa", "Goik,Gojk->Gij"):
            values, _ = eigh_descending(torch.einsum(subscripts, target, target))
            energy = values.sum(0)
            tails.append((energy.sum() - energy.cumsum(0)).clamp_min(0))
        top_p, top_q = self.max_rank(layer)
        damage = tails[0][:, None] + tails[1][None, :]
        p, q = torch.arange(1, top_p + 1)[:, None], torch.arange(1, top_q + 1)[None, :]
        size = self.sizes(layer)
        params = layer.groups * (size["o"] * p + size["k"] * p * q + size["i"] * q)
        found = set()
        for share in shares:
            allowed = damage.masked_fill(params > share * layer.weight_params, float("inf"))
            if torch.isfinite(allowed).any():
                found.add(divmod(int(allowed.argmin()), top_q))
        return sorted(((a + 1, b + 1) for a, b in found), key=lambda rank: self.params(layer, rank))


def _basis(tensor: Tensor, gram: str, rank: int) -> Tensor:
    """Leading eigenvectors of a mode's Gram matrix."""
    return eigh_descending(torch.einsum(gram, tensor, tensor))[1][..., :rank]


FORMS.register(Tucker2.name, Tucker2())
