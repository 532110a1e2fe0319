"""Filter-wise CP: one CP of (input, height, width) for every output filter.

Pham, Zniyed, Nguyen, "Enhanced Network Compression Through Tensor Decompositions and Pruning" (NORTON), TNNLS 2024.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.cp import als, largest_first
from polyad.records import Rank
from polyad.refusals import one_axis, one_channel

SWEEPS = 10


class FilterCP(Decomposition):
    """`oir,ohr,owr->oihw`: the filters share nothing, so each one's terms fit it alone."""

    name = "filter_cp"
    equation = "oir,ohr,owr->oihw"
    summary = "filter-wise CP: 1x1 to o r channels, depthwise h x 1, 1 x w that sums each filter's r terms"
    good_for = (
        "The NORTON method, before its filter pruning. Nothing is shared between filters, so at the same parameters it"
        " is far behind the joint forms; good for very small ranks of layers with few outputs."
    )
    source = "Pham, Zniyed, Nguyen, TNNLS 2024"

    def refuses(self, layer: LayerSpec) -> str | None:
        return one_axis(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        i, h, w = size["i"], size["h"], size["w"]
        return (min(i * h, i * w, h * w),)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        g, o, *modes = target.shape
        filters = target.reshape(g * o, *modes)
        found = largest_first(filters, rank[0])
        if rank[0] * max(modes) < filters[0].numel():
            found = als(filters, found, SWEEPS)
        return [factor.reshape(g, o, *factor.shape[1:]) for factor in found]


FORMS.register(FilterCP.name, FilterCP())
