"""TT-matrix: a matrix whose two dimensions are parted into three factors each, as a train of small cores.

Oseledets, "Approximation of 2^d x 2^d Matrices Using Tensor Decomposition", SIAM J. Matrix Anal. 2010; Novikov et al.,
"Tensorizing Neural Networks", NeurIPS 2015; for embeddings Hrinchuk et al., "Tensorized Embedding Layers", 2020.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import tensor_train
from polyad.plain.tensorise import matrix_sizes, not_tensorised, parse_sizes
from polyad.records import Rank


class TTMatrix(Decomposition):
    """`xsa,aytb,bzu->xyzstu`: output o = (x, y, z), input i = (s, t, u); one core per pair.

    Args:
        shapes: sizes of the outputs' and of the inputs' letters; None for a balanced factorisation.
    """

    name = "tt_matrix"
    equation = "xsa,aytb,bzu->xyzstu"
    summary = "TT-matrix of a linear layer or embedding, dimensions in three factors; tt_matrix/4x8x8,8x8x4 gives them"
    outputs = "xyz"
    good_for = (
        "Very large embeddings and matrices at extreme ratios, where training goes on afterwards. As a fit of a trained"
        " matrix it is behind the SVD unless the matrix has structure along the parted dimensions."
    )
    source = "Oseledets, 2010; Novikov et al., NeurIPS 2015; Hrinchuk et al., 2020"
    on_request = {"tt_matrix/4x8x8,8x8x4": "factors of the outputs, then of the inputs"}

    def __init__(self, shapes: list[tuple[int, ...]] | None = None) -> None:
        self.shapes = shapes
        if shapes:
            self.name = "tt_matrix/" + ",".join("x".join(map(str, sizes)) for sizes in shapes)

    def variant(self, text: str) -> Decomposition:
        return TTMatrix(parse_sizes(text, self.name, 2, 3))

    def refuses(self, layer: LayerSpec) -> str | None:
        return not_tensorised(layer, self.shapes)

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        out, inp = matrix_sizes(layer, self.shapes)
        return dict(zip("xyzstu", (*out, *inp), strict=True))

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        first, second, third = (size[a] * size[b] for a, b in ("xs", "yt", "zu"))
        return min(first, second * third), min(first * second, third)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        g, x, y, z, s, t, u = target.shape
        pairs = target.permute(0, 1, 4, 2, 5, 3, 6).reshape(g, x * s, y * t, z * u)
        first, second, third = tensor_train(pairs, rank)
        a, b = rank
        return [first.reshape(g, x, s, a), second.reshape(g, a, y, t, b), third.reshape(g, b, z, u)]


FORMS.register(TTMatrix.name, TTMatrix())
