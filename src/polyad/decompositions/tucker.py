"""Full Tucker: all four modes are projected, the kernel axes too.

Tucker, Psychometrika 1966; De Lathauwer, De Moor, Vandewalle, "A multilinear singular value decomposition", SIAM J.
Matrix Anal. 2000.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import hooi
from polyad.records import Rank
from polyad.refusals import one_axis, one_channel


class Tucker(Decomposition):
    """`op,pqst,qi,sh,tw->oihw`: one basis per mode and a core."""

    name = "tucker"
    equation = "op,pqst,qi,sh,tw->oihw"
    summary = "full Tucker: channels and both kernel axes projected; h x 1 and 1 x w filters shared by all channels"
    good_for = (
        "Large kernels (5x5, 7x7, volumes), where the kernel axes are redundant; on 3x3 layers Tucker-2 keeps the"
        " whole kernel for nearly the same parameters and runs faster."
    )
    source = "Tucker, 1966; De Lathauwer et al., 2000"

    def refuses(self, layer: LayerSpec) -> str | None:
        return one_axis(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return size["o"], size["i"], size["h"], size["w"]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        core, bases = hooi(target, dict(enumerate(rank, 1)))
        return [bases[1], core, bases[2].mT, bases[3].mT, bases[4].mT]


FORMS.register(Tucker.name, Tucker())
