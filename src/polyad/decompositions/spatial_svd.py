"""Spatial SVD: a column kernel (h x 1), then a row kernel (1 x w).

Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", BMVC 2014.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import low_rank
from polyad.records import Rank
from polyad.refusals import one_axis


class SpatialSVD(Decomposition):
    """`owr,rih->oihw`: the kernel axes are separated, channels are mixed in both layers."""

    name = "spatial_svd"
    equation = "owr,rih->oihw"
    summary = "spatial SVD: h x 1 layer to r channels, then 1 x w"
    good_for = (
        "Mild compression (half and more kept) of k x k layers with few channels, and speed: two dense convolutions"
        " run well everywhere. At a quarter of the parameters CP and Tucker-2 are more compact."
    )
    source = "Jaderberg et al., BMVC 2014"
    default = True
    start_is_optimal = True

    def refuses(self, layer: LayerSpec) -> str | None:
        return one_axis(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (min(size["o"] * size["w"], size["i"] * size["h"]),)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        g, o, i, h, w = target.shape
        matrix = target.permute(0, 1, 4, 2, 3).reshape(g, o * w, i * h)
        left, right = low_rank(matrix, rank[0])
        return [left.reshape(g, o, w, -1), right.reshape(g, -1, i, h)]


FORMS.register(SpatialSVD.name, SpatialSVD())
