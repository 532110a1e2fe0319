"""Tucker of a stack of weights: the bases of outputs and inputs are shared, each weight has a core of its own.

Tucker-2 with the third mode "which weight": Ye, "Generalized Low Rank Approximations of Matrices", Machine Learning
2005; for attention heads Gu et al., "TensorLLM", 2025; for repeated blocks Ma et al., "A Tensorized Transformer", 2019.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_channel
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.hosvd import hooi
from polyad.records import Rank


class StackTucker(Decomposition):
    """`op,Gpqk,qi->Goik`: G is the group of a layer, or the layer of a stack."""

    name = "stack_tucker"
    equation = "op,Gpqk,qi->Goik"
    summary = "Tucker of a stack of weights (--stack, or groups): shared bases, a core each; stack_tucker/8 for 8 heads"
    good_for = (
        "Repeated blocks, experts and heads whose weights use the same few input and output directions: the bases are"
        " paid once. Weights that have little in common lose against one svd each."
    )
    source = "Ye, 2005; Gu et al., 2025"
    on_request = {"stack_tucker/8": "the 8 heads that stand side by side in the outputs of one matrix"}

    def variant(self, text: str) -> Decomposition:
        if not text.isdecimal() or int(text) < 2:
            raise UnknownNameError(f"{self.name}/{text} is not understood: write the number of heads, stack_tucker/8.")
        return HeadTucker(int(text))

    def refuses(self, layer: LayerSpec) -> str | None:
        if layer.weight_shape[0] == 1:
            return "it is a single weight: stack layers of one shape (--stack), or name its heads (stack_tucker/8)"
        return one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return size["o"], size["i"]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        core, bases = hooi(target.unsqueeze(0), {2: rank[0], 3: rank[1]})  # the stack is one more mode
        return [bases[2], core[0], bases[3].mT]


class HeadTucker(Decomposition):
    """`op,spq,qi->soi`: the heads s stand side by side in the outputs of one matrix."""

    equation = "op,spq,qi->soi"
    summary = "Tucker of the heads of one matrix"
    good_for = StackTucker.good_for
    source = StackTucker.source
    outputs = "so"
    own = {"s": "heads"}

    def __init__(self, heads: int) -> None:
        self.heads, self.name = heads, f"{StackTucker.name}/{heads}"

    def refuses(self, layer: LayerSpec) -> str | None:
        if not layer.matrix:
            return "heads stand side by side in the outputs of a matrix, and this layer has a kernel"
        if layer.out_features % self.heads:
            return f"its {layer.out_features} outputs do not part into {self.heads} heads"
        return one_channel(layer)

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        return {"s": self.heads, "o": layer.out_features // self.heads, "i": layer.in_features}

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return size["o"], size["i"]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        core, bases = hooi(target, {2: rank[0], 3: rank[1]})
        return [bases[2], core, bases[3].mT]


FORMS.register(StackTucker.name, StackTucker())
