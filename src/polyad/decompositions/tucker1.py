"""Tucker-1 of the input mode: 1x1 to fewer channels, then the k x k layer. (Of the output mode it is the channel SVD.)

Tucker, "Some mathematical notes on three-mode factor analysis", Psychometrika 1966; for convolutions Kim et al., ICLR
2016, section 3.1.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import low_rank
from polyad.records import Rank
from polyad.refusals import one_channel, without_kernel


class Tucker1(Decomposition):
    """`oqk,qi->oik`."""

    name = "tucker1"
    equation = "oqk,qi->oik"
    summary = "Tucker-1 of the input: 1x1 to q channels, then k x k (of the output: svd)"
    good_for = (
        "Layers whose input channels are redundant while every output channel is needed, such as the last convolution"
        " before a sum or a classifier; elsewhere Tucker-2 saves on both sides."
    )
    source = "Tucker, 1966; Kim et al., ICLR 2016"
    start_is_optimal = True

    def refuses(self, layer: LayerSpec) -> str | None:
        return without_kernel(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (min(size["i"], size["o"] * size["k"]),)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        g, o, i, k = target.shape
        left, right = low_rank(target.transpose(2, 3).reshape(g, o * k, i), rank[0])
        return [left.reshape(g, o, k, -1).transpose(2, 3), right]


FORMS.register(Tucker1.name, Tucker1())
