"""Sum of Kronecker products.

Van Loan and Pitsianis, "Approximation with Kronecker Products", 1993; for networks Hameed et al., "Convolutional Neural
Network Compression through Generalized Kronecker Product Decomposition", AAAI 2022.
"""

from math import prod

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import truncated_svd
from polyad.plain.tensorise import parse_sizes, two_factors
from polyad.records import Rank


class Kronecker(Decomposition):
    """`rab,rcdk->acbdk`: output channel o = (a, c), input channel i = (b, d).

    Args:
        shape: (a, b), the first factor; None for the one that makes a term cheapest.
    """

    name = "kronecker"
    equation = "rab,rcdk->acbdk"
    summary = (
        "sum of r Kronecker products of a small matrix and a small layer; kronecker/8x4 gives the first one's shape"
    )
    outputs = "ac"
    on_request = {"kronecker/8x4": "outputs and inputs of the first factor"}
    good_for = (
        "Extreme compression of large matrices and layers with regular structure: a term costs about the square root of"
        " the weight and has full rank. For moderate budgets low-rank forms are more accurate."
    )
    source = "Van Loan and Pitsianis, 1993; Hameed et al., AAAI 2022"
    start_is_optimal = True

    def __init__(self, shape: tuple[int, int] | None = None) -> None:
        self.shape = shape
        if shape is not None:
            self.name = f"kronecker/{shape[0]}x{shape[1]}"

    def variant(self, text: str) -> Decomposition:
        (shape,) = parse_sizes(text, self.name, 1, 2)
        return Kronecker((shape[0], shape[1]))

    def refuses(self, layer: LayerSpec) -> str | None:
        _, out, inp, *kernel = layer.weight_shape
        a, b = self._first(layer)
        if out % a or inp % b:
            return f"its {out} outputs and {inp} inputs per group are no multiples of {a} and {b}"
        if min(a * b, out * inp * prod(kernel) // (a * b)) == 1:
            return f"its {out} outputs and {inp} inputs per group do not part into two factors each"
        return None

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        _, out, inp, *kernel = layer.weight_shape
        a, b = self._first(layer)
        return {"a": a, "c": out // a, "b": b, "d": inp // b, "k": prod(kernel)}

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (min(size["a"] * size["b"], size["c"] * size["d"] * size["k"]),)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """The rearranged weight ((a, b), (c, d, k)) is a matrix, and each of its singular terms one product."""
        g, a, c, b, d, k = target.shape
        u, s, vh = truncated_svd(target.transpose(2, 3).reshape(g, a * b, c * d * k), rank[0])
        return [(u * s.unsqueeze(1)).mT.reshape(g, -1, a, b), vh.reshape(g, -1, c, d, k)]

    def _first(self, layer: LayerSpec) -> tuple[int, int]:
        if self.shape is not None:
            return self.shape
        _, out, inp, *kernel = layer.weight_shape
        return two_factors(out, inp, prod(kernel))


FORMS.register(Kronecker.name, Kronecker())
