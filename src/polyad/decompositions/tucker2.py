"""Tucker-2: 1x1 to fewer channels, a small k x k core, 1x1 back.

Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", ICLR 2016.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import hooi
from polyad.records import Rank
from polyad.refusals import one_channel, without_kernel


class Tucker2(Decomposition):
    """`op,pqk,qi->oik`: both channel modes are projected, the kernel is kept."""

    name = "tucker2"
    equation = "op,pqk,qi->oik"
    summary = "Tucker-2: 1x1, k x k core with fewer channels on both sides, 1x1"
    good_for = (
        "Wide k x k layers, and a MACs or latency budget: the core is an ordinary dense convolution. On narrow layers"
        " (16 to 64 channels) CP needs fewer parameters for the same error."
    )
    source = "Kim et al., ICLR 2016"
    default = True

    def refuses(self, layer: LayerSpec) -> str | None:
        return without_kernel(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return size["o"], size["i"]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        core, bases = hooi(target, {1: rank[0], 2: rank[1]})
        return [bases[1], core, bases[2].mT]


FORMS.register(Tucker2.name, Tucker2())
