"""TR-matrix: the cores of a TT-matrix, closed to a ring.

Zhao et al., "Tensor Ring Decomposition", 2016; Wang et al., "Wide Compression: Tensor Ring Nets", CVPR 2018.
"""

from math import ceil

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import tensor_train
from polyad.plain.tensorise import matrix_sizes, not_tensorised, parse_sizes
from polyad.records import Rank

BOND = 2


class TRMatrix(Decomposition):
    """`cxsa,aytb,bzuc->xyzstu`: output o = (x, y, z), input i = (s, t, u); the bond c of 2 closes the ring.

    Args:
        shapes: sizes of the outputs' and of the inputs' letters; None for a balanced factorisation.
    """

    name = "tr_matrix"
    equation = "cxsa,aytb,bzuc->xyzstu"
    summary = "TR-matrix of a linear layer or embedding, closed by a bond of 2; tr_matrix/4x8x8,8x8x4 gives the factors"
    outputs = "xyz"
    good_for = (
        "Comparison with the literature on rings, at extreme ratios; as for the TT-matrix, a trained matrix is usually"
        " better served by the SVD."
    )
    source = "Zhao et al., 2016; Wang et al., CVPR 2018"
    own = {"c": "channels of the bond"}
    on_request = {"tr_matrix/4x8x8,8x8x4": "factors of the outputs, then of the inputs"}

    def __init__(self, shapes: list[tuple[int, ...]] | None = None) -> None:
        self.shapes = shapes
        if shapes:
            self.name = "tr_matrix/" + ",".join("x".join(map(str, sizes)) for sizes in shapes)

    def variant(self, text: str) -> Decomposition:
        return TRMatrix(parse_sizes(text, self.name, 2, 3))

    def refuses(self, layer: LayerSpec) -> str | None:
        return not_tensorised(layer, self.shapes)

    def structure(self, layer: LayerSpec) -> dict[str, int]:
        return {"c": BOND}

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        out, inp = matrix_sizes(layer, self.shapes)
        return dict(zip("xyzstu", (*out, *inp), strict=True))

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        first, second, third = (size[a] * size[b] for a, b in ("xs", "yt", "zu"))
        a = ceil(min(first, second * third) / BOND)
        return a, min(a * second, third * BOND)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        g, x, y, z, s, t, u = target.shape
        pairs = target.permute(0, 1, 4, 2, 5, 3, 6).reshape(g, x * s, y * t, z * u)
        first, second, third = tensor_train(pairs, rank, BOND)
        a, b = rank
        return [first.reshape(g, BOND, x, s, a), second.reshape(g, a, y, t, b), third.reshape(g, b, z, u, BOND)]


FORMS.register(TRMatrix.name, TRMatrix())
