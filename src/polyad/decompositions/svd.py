"""Channel SVD: the layer with fewer output channels, then a 1x1 layer that restores them.

Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, pointwise, resized
from polyad.layers import LayerSpec
from polyad.records import Rank


class ChannelSVD(Decomposition):
    """`or,rn->on`, n = input channels and kernel."""

    name = "svd"
    equation = "or,rn->on"
    summary = "channel SVD: k x k layer to r channels, then 1x1; two linear layers for a matrix"
    source = "Zhang et al., TPAMI 2016"
    good_for = (
        "Linear layers and 1x1 convolutions, where it is the best fit there is and runs as two plain layers. On "
        "narrow k x k convolutions it is the weakest choice: at half of ResNet-20's 3x3 parameters it costs 10 "
        "points, a mix of forms none."
    )
    start_is_optimal = True

    def refuses(self, layer: LayerSpec) -> str | None:
        size = self.sizes(layer)
        if min(size["o"], size["n"]) == 1:
            return "its weight has one row or one column per group, which is rank one already"
        return None

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (min(size["o"], size["n"]),)

    def layers(self, layer: LayerSpec, rank: Rank) -> tuple[LayerSpec, ...]:
        inner = rank[0] * layer.groups
        first = resized(layer, layer.in_features, inner)
        if layer.kind == "linear":
            return first, layer.model_copy(update={"in_features": inner})
        return first, pointwise(layer, inner, layer.out_features, bias=layer.bias)

    def weights(self, factors: Sequence[Tensor]) -> list[Tensor]:
        out, inner = factors
        return [inner, out]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        u, s, vh = torch.linalg.svd(target, full_matrices=False)
        r = rank[0]
        return [u[..., :r], s[..., :r, None] * vh[..., :r, :]]


FORMS.register(ChannelSVD.name, ChannelSVD())
