"""Coupled CP: clusters of similar filters, each a CP of its own, sharing the factor of the input channels.

Pham, Zniyed, Nguyen, "Coupled Tensor Decomposition for Compact Network Representation" (CoDeC), TNNLS. The paper
clusters filters by a distance between the subspaces that the shared mode spans. Here clusters have equal sizes, so that
the layer runs as grouped convolutions: filters are sorted along the leading direction of the likenesses of their
subspaces, and cut into runs.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_axis, one_channel
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.linalg import eigh_descending
from polyad.plain.hosvd import truncated_svd
from polyad.records import Rank

CLUSTERS = (2, 4, 8)

DIRECTIONS = 3
"""Of a filter's input subspace that count for its likeness to others."""


class CoupledCP(Decomposition):
    """`cir,cjhr,cjwr->cjihw`: filter o = (c, j) once the filters are sorted into clusters c.

    Args:
        clusters: size of `c`, which belongs to the form and is no rank.
    """

    name = "coupled_cp"
    equation = "cir,cjhr,cjwr->cjihw"
    summary = (
        "coupled CP: 2 clusters of filters, each with one factor of the inputs; coupled_cp/4 ... for more clusters"
    )
    outputs = "cj"
    own = {"c": "clusters of outputs"}
    good_for = (
        "The CoDeC method: between filter-wise CP (nothing shared) and CP (everything shared); pays where filters fall"
        " into groups that look at different input channels."
    )
    source = "Pham, Zniyed, Nguyen, TNNLS (CoDeC)"
    reorders = True

    def __init__(self, clusters: int = 2) -> None:
        self.clusters = clusters
        if clusters != 2:
            self.name = f"coupled_cp/{clusters}"

    def variants(self, layer: LayerSpec) -> Sequence[Decomposition]:
        own = FAMILY.values() if self.clusters == 2 else (self,)
        return tuple(form for form in own if not form.refuses(layer))

    def variant(self, text: str) -> Decomposition:
        if text not in FAMILY:
            raise UnknownNameError(f"There is no coupled_cp/{text}; the number of clusters is {', '.join(FAMILY)}.")
        return FAMILY[text]

    def refuses(self, layer: LayerSpec) -> str | None:
        out = layer.weight_shape[1]
        if reason := one_axis(layer) or one_channel(layer):
            return reason
        if out % self.clusters or out < 2 * self.clusters:
            return f"its {out} filters per group do not part into {self.clusters} clusters of two or more"
        return None

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        _, out, inp, *kernel = layer.weight_shape
        size = {"c": self.clusters, "j": out // self.clusters, "i": inp}
        return size | {"h": kernel[0], "w": prod(kernel[1:])} if kernel else size | {"h": 1, "w": 1}

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (size["i"] * min(size["h"], size["w"]),)

    def sorted_outputs(self, weight: Tensor, layer: LayerSpec) -> Tensor:
        """Filters whose leading input directions are alike stand side by side.

        The likeness of two filters is the squared Frobenius norm of the product of their bases, weighted by what each
        direction holds; the second eigenvector of the likenesses (the first one is their common part) orders them.
        """
        size = self.sizes(layer)
        filters = weight.reshape(*weight.shape[:2], size["i"], -1)
        u, s, _ = torch.linalg.svd(filters, full_matrices=False)
        bases = (u * s.unsqueeze(-2))[..., :DIRECTIONS]
        bases = bases / bases.flatten(2).norm(dim=-1)[..., None, None].clamp_min(torch.finfo(bases.dtype).tiny)
        likeness = torch.einsum("Goia,Gpib->Gopab", bases, bases).square().sum((-1, -2))
        vectors = eigh_descending(likeness)[1]
        second = vectors[..., min(1, vectors.shape[-1] - 1)]
        leading = second.gather(1, second.abs().argmax(1, keepdim=True))  # the sign of an eigenvector is arbitrary
        return (second * leading.sign()).argsort(dim=1, stable=True)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """Per cluster the leading input directions, and of each the strongest separable parts over all its filters."""
        g, c, j, i, h, w = target.shape
        matrix = target.transpose(2, 3).reshape(g * c, i, j * h * w)
        full = rank[0] >= i * min(h, w)
        if full:
            u, right = torch.eye(i, dtype=target.dtype).expand(g * c, i, i), matrix
        else:
            u, s, vh = truncated_svd(matrix, min(i, j * h * w))
            right = s.unsqueeze(-1) * vh
        spatial = right.reshape(g * c, u.shape[-1], j, h, w)
        left, values, vright = torch.linalg.svd(spatial, full_matrices=False)  # (gc, d, j, h, t), (.., t), (.., t, w)
        strength = values.square().sum(2).flatten(1)  # of (direction, term), over all filters of the cluster
        count = min(rank[0], strength.shape[1])
        found = strength.topk(count, dim=1).indices
        direction, term = found // values.shape[-1], found % values.shape[-1]
        at = torch.arange(g * c)[:, None]
        shared = u.mT[at, direction].mT
        column = (left * values.unsqueeze(-2))[at, direction, :, :, term].permute(0, 2, 3, 1)
        row = vright[at, direction, :, term].permute(0, 2, 3, 1)
        factors = [shared.reshape(g, c, i, -1), column.reshape(g, c, j, h, -1), row.reshape(g, c, j, w, -1)]
        return [torch.nn.functional.pad(factor, (0, rank[0] - count)) for factor in factors]


FAMILY = {str(clusters): CoupledCP(clusters) for clusters in CLUSTERS}
FORMS.register(CoupledCP.name, FAMILY["2"])
