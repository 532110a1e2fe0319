"""Tucker-2 whose core is a CP: 1x1, 1x1 to r channels, depthwise k x k, 1x1, 1x1.

Phan et al., "Stable Low-rank Tensor Decomposition for Compression of Convolutional Neural Network", ECCV 2020, where it
is called TKD-CPD.
"""

from collections.abc import Sequence

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.cp import nested_svd
from polyad.plain.hosvd import hooi
from polyad.records import Rank
from polyad.refusals import one_channel, without_kernel


class Tucker2CP(Decomposition):
    """`op,pr,kr,qr,qi->oik`: a CP between two projections."""

    name = "tucker2_cp"
    equation = "op,pr,kr,qr,qi->oik"
    summary = "Tucker-2 with a CP core: two 1x1, depthwise k x k, two 1x1"
    good_for = (
        "Wide layers whose CP rank exceeds their channels: the two projections keep the 1x1 layers of the CP small."
        " With fewer terms than channels it is a CP with detours."
    )
    source = "Phan et al., ECCV 2020"

    def refuses(self, layer: LayerSpec) -> str | None:
        return without_kernel(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        o, i, k = size["o"], size["i"], size["k"]
        return o, min(o * i, o * k, i * k), i

    def ranks(self, layer: LayerSpec, target: Tensor, shares: Sequence[float]) -> list[Rank]:
        """Both channel modes keep one proportion, and there are twice as many terms as channels kept.

        Unfoldings say nothing about the number of terms; fewer terms lose more than fewer channels do.
        """
        most = self.max_rank(layer)
        size, bias = self.sizes(layer), layer.params - layer.weight_params
        steps = max(size["o"], size["i"])
        found = set()
        for share in shares:
            for step in range(steps, 0, -1):
                p, q = max(1, size["o"] * step // steps), max(1, size["i"] * step // steps)
                rank = p, min(most[1], 2 * max(p, q)), q
                if self.params(layer, rank) - bias <= share * layer.weight_params:
                    found.add(rank)
                    break
        return sorted(found)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        p, r, q = rank
        core, bases = hooi(target, {1: p, 2: q})
        out, inp, kernel = nested_svd(core, r)
        return [bases[1], out, kernel, inp, bases[2].mT]


FORMS.register(Tucker2CP.name, Tucker2CP())
