"""CP over (output channels, input channels, kernel): 1x1, depthwise k x k, 1x1.

Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation", NeurIPS 2014;
Astrid and Lee, "CP-decomposition with Tensor Power Method for Convolutional Neural Networks Compression", 2017.
"""

from collections.abc import Sequence

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_channel, without_kernel
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.cp import nested_svd
from polyad.records import Rank


class CP(Decomposition):
    """`or,ir,kr->oik`: a sum of r outer products.

    The variant `stable` bounds the norms of the terms: Phan et al., "Stable Low-rank Tensor Decomposition for
    Compression of Convolutional Neural Network", ECCV 2020.
    """

    name = "cp"
    equation = "or,ir,kr->oik"
    summary = "CP (o, i, hw): 1x1 to r channels, depthwise k x k, 1x1; cp/stable keeps its terms small"
    good_for = (
        "Parameters: in the input norm the most compact form for k x k layers of 16 to 64 channels. Depthwise layers"
        " run below their MAC count on most hardware. Take cp/stable where the network is trained or quantised further."
    )
    source = "Astrid and Lee, 2017; stable: Phan et al., ECCV 2020"
    default = True
    additive = True
    many_optima = True

    def __init__(self, stable: bool = False) -> None:
        if stable:
            self.name, self.norm_bounded, self.default = "cp/stable", True, False

    def variant(self, text: str) -> Decomposition:
        if text != "stable":
            raise UnknownNameError(f"There is no variant {text!r} of cp; there is cp/stable.")
        return STABLE

    def refuses(self, layer: LayerSpec) -> str | None:
        return without_kernel(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        o, i, k = size["o"], size["i"], size["k"]
        return (min(o * i, o * k, i * k),)

    def start(self, target: Tensor, rank: Rank) -> Sequence[Tensor]:
        return nested_svd(target, rank[0])


STABLE = CP(stable=True)
FORMS.register(CP.name, CP())
