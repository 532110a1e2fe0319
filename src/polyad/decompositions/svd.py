"""Channel SVD: the layer with fewer output channels, then a 1x1 layer that restores them.

Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import low_rank
from polyad.records import Rank


class ChannelSVD(Decomposition):
    """`or,rn->on`, n = input channels and kernel. It is also Tucker-1 of the output mode."""

    name = "svd"
    equation = "or,rn->on"
    summary = (
        "channel SVD (Tucker-1 of the output): k x k layer to r channels, then 1x1; two linear layers for a matrix"
    )
    good_for = (
        "Matrices (linear layers, 1x1 convolutions, embeddings), where it is optimal; kernels keep their full input"
        " and spatial extent, so for k x k layers nearly every other form is smaller."
    )
    source = "Zhang et al., TPAMI 2016"
    default = True
    start_is_optimal = True

    def refuses(self, layer: LayerSpec) -> str | None:
        size = self.sizes(layer)
        if min(size["o"], size["n"]) == 1:
            return "its weight has one row or one column per group, which is rank one already"
        return None

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (min(size["o"], size["n"]),)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        return list(low_rank(target, rank[0]))


FORMS.register(ChannelSVD.name, ChannelSVD())
