"""A form of one's own, to copy and change: `polyad inspect zoo:resnet20 --forms all --plugin docs/own_form.py`.

A 1 x w layer to r channels, then an h x 1 layer: the spatial SVD with its two kernel axes in the other order.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_axis
from polyad.layers import LayerSpec
from polyad.plain.hosvd import truncated_svd
from polyad.records import Rank


class RowsFirst(Decomposition):
    """`ohr,riw->oihw`. The equation is the definition: costs, layers and the refining of a fit come from it."""

    name = "rows_first"
    equation = "ohr,riw->oihw"
    summary = "rows first: 1 x w layer to r channels, then h x 1"
    good_for = "An example of a form of one's own; the spatial SVD with the kernel axes in the other order."
    source = "docs/own_form.py"
    start_is_optimal = True  # the truncated SVD of this matrix is the best fit in the plain norm

    def refuses(self, layer: LayerSpec) -> str | None:
        """Why it cannot carry a layer, or None."""
        return one_axis(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        """At this rank every weight is represented exactly."""
        size = self.sizes(layer)
        return (min(size["o"] * size["h"], size["i"] * size["w"]),)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """Factors of a weight (groups, o, i, h, w), each with the groups in front: where the solver starts."""
        g, o, i, h, w = target.shape
        u, s, vh = truncated_svd(target.transpose(2, 3).reshape(g, o * h, i * w), rank[0])
        return [(u * s.unsqueeze(1)).reshape(g, o, h, -1), vh.reshape(g, -1, i, w)]


FORMS.register(RowsFirst.name, RowsFirst())
