"""CP of a stack of weights: all share the two factors, each weight scales their terms in its own way.

Carroll and Chang, "Analysis of Individual Differences in Multidimensional Scaling", Psychometrika 1970 (the model);
Harshman, "Foundations of the PARAFAC Procedure", 1970.
"""

from collections.abc import Sequence

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.cp import als, largest_first
from polyad.records import Rank

SWEEPS = 20


class StackCP(Decomposition):
    """`or,Gr,rn->Gon`: G is the group of a layer, or the layer of a stack; n the inputs and kernel."""

    name = "stack_cp"
    equation = "or,Gr,rn->Gon"
    summary = "CP of a stack of weights (--stack, or groups): shared factors, a scale per term; stack_cp/8 for 8 heads"
    good_for = (
        "Stacks of nearly proportional weights (experts that began as copies). Each weight after the first costs one"
        " number per term, so where weights differ the rank has to grow with their number."
    )
    source = "Carroll and Chang, 1970; Harshman, 1970"
    on_request = {"stack_cp/8": "the 8 heads that stand side by side in the outputs of one matrix"}
    additive = True

    def variant(self, text: str) -> Decomposition:
        if not text.isdecimal() or int(text) < 2:
            raise UnknownNameError(f"{self.name}/{text} is not understood: write the number of heads, stack_cp/8.")
        return HeadCP(int(text))

    def refuses(self, layer: LayerSpec) -> str | None:
        size = self.sizes(layer)
        if layer.weight_shape[0] == 1:
            return "it is a single weight: stack layers of one shape (--stack), or name its heads (stack_cp/8)"
        if min(size["o"], size["n"]) == 1:
            return "its weight has one row or one column per group, which is rank one already"
        return None

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return (largest_useful(layer.weight_shape[0], size["o"], size["n"]),)

    def start(self, target: Tensor, rank: Rank) -> Sequence[Tensor]:
        which, out, inner = cp_start(target.unsqueeze(0), rank[0])
        return [out, which[0], inner.mT]


class HeadCP(Decomposition):
    """`or,sr,rn->son`: the heads s stand side by side in the outputs of one matrix."""

    equation = "or,sr,rn->son"
    summary = "CP of the heads of one matrix"
    good_for = StackCP.good_for
    source = StackCP.source
    outputs = "so"
    own = {"s": "heads"}
    additive = True

    def __init__(self, heads: int) -> None:
        self.heads, self.name = heads, f"{StackCP.name}/{heads}"

    def refuses(self, layer: LayerSpec) -> str | None:
        if not layer.matrix:
            return "heads stand side by side in the outputs of a matrix, and this layer has a kernel"
        if layer.out_features % self.heads or layer.out_features == self.heads:
            return f"its {layer.out_features} outputs do not part into {self.heads} heads of two or more"
        return None

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        return {"s": self.heads, "o": layer.out_features // self.heads, "n": layer.in_features}

    def max_rank(self, layer: LayerSpec) -> Rank:
        return (largest_useful(*self.sizes(layer).values()),)

    def start(self, target: Tensor, rank: Rank) -> Sequence[Tensor]:
        which, out, inner = cp_start(target, rank[0])
        return [out, which, inner.mT]


def largest_useful(*sizes: int) -> int:
    """The rank at which every tensor of three modes is exact: the product of the two short ones."""
    short, middle, _ = sorted(sizes)
    return short * middle


def cp_start(tensor: Tensor, rank: int) -> list[Tensor]:
    """Nested SVDs, then alternating least squares; exact at the largest rank. (groups, *modes) -> (groups, size, r)."""
    found = largest_first(tensor, rank)
    exact = rank >= tensor[0].numel() // max(tensor.shape[1:])
    return found if exact else als(tensor, found, SWEEPS)


FORMS.register(StackCP.name, StackCP())
