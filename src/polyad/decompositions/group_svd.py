"""k-group SVD: the input channels in k subsets, a low-rank layer for each; a grouped layer, then 1x1.

Liebenwein et al., "Compressing Neural Networks: Towards Determining the Optimal Layer-wise Decomposition" (ALDS),
NeurIPS 2021, section 2.1.
"""

from collections.abc import Sequence
from math import prod

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.hosvd import low_rank
from polyad.records import Rank
from polyad.refusals import one_channel

SUBSETS = (2, 4, 8)


class GroupSVD(Decomposition):
    """`ogr,grjk->ogjk`, the input channel i = (g, j).

    Args:
        subsets: size of `g`, which belongs to the form and is no rank.
    """

    name = "group_svd"
    equation = "ogr,grjk->ogjk"
    summary = "k-group SVD: grouped layer over 2 subsets of the inputs, then 1x1; group_svd/4 ... for more"
    good_for = (
        "Matrices that narrow (more inputs than outputs): at a quarter of the parameters of MobileNetV2's projections"
        " it loses .27 of the output and the svd .48. Also the ALDS method, and layers whose inputs fall into unrelated"
        " blocks (concatenations)."
    )
    source = "Liebenwein et al., NeurIPS 2021"
    own = {"g": "subsets of the inputs"}
    default = True
    start_is_optimal = True

    def __init__(self, subsets: int = 2) -> None:
        self.subsets = subsets
        if subsets != 2:
            self.name = f"group_svd/{subsets}"

    def variants(self, layer: LayerSpec) -> Sequence[Decomposition]:
        own = FAMILY.values() if self.subsets == 2 else (self,)
        return tuple(form for form in own if not form.refuses(layer))

    def variant(self, text: str) -> Decomposition:
        if text not in FAMILY:
            raise UnknownNameError(f"There is no group_svd/{text}; the number of subsets is {', '.join(FAMILY)}.")
        return FAMILY[text]

    def refuses(self, layer: LayerSpec) -> str | None:
        inp = layer.weight_shape[2]
        if layer.kind == "embedding":
            return "the rows of an embedding are looked up one by one: there are no input channels to part"
        if inp % self.subsets or inp < 2 * self.subsets:
            return f"its {inp} input channels per group do not part into {self.subsets} subsets of two or more"
        return one_channel(layer)

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        _, out, inp, *kernel = layer.weight_shape
        return {"o": out, "g": self.subsets, "j": inp // self.subsets, "k": prod(kernel)}

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (min(size["o"], size["j"] * size["k"]),)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        batch, o, g, j, k = target.shape
        left, right = low_rank(target.transpose(1, 2).reshape(batch, g, o, j * k), rank[0])
        return [left.transpose(1, 2), right.reshape(batch, g, -1, j, k)]


FAMILY = {str(subsets): GroupSVD(subsets) for subsets in SUBSETS}
FORMS.register(GroupSVD.name, FAMILY["2"])
