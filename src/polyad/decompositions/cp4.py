"""CP over (output, input, height, width): 1x1, depthwise h x 1, depthwise 1 x w, 1x1.

Lebedev et al., "Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition", ICLR 2015.
"""

from collections.abc import Sequence
from math import prod

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_axis, one_channel
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.cp import als, largest_first
from polyad.records import Rank

SWEEPS = 10
"""Of alternating least squares behind the nested SVD, whose terms are far from the best here."""


class CP4(Decomposition):
    """`or,ir,hr,wr->oihw`: the kernel of each term is an outer product too."""

    name = "cp4"
    equation = "or,ir,hr,wr->oihw"
    summary = "CP (o, i, h, w): 1x1 to r channels, depthwise h x 1, depthwise 1 x w, 1x1; cp4/stable keeps terms small"
    good_for = (
        "Large kernels (5x5 and more), where splitting the two axes saves; on 3x3 layers the three-way CP needs fewer"
        " terms and one layer less."
    )
    source = "Lebedev et al., ICLR 2015; stable: Phan et al., ECCV 2020"
    additive = True
    many_optima = True

    def __init__(self, stable: bool = False) -> None:
        if stable:
            self.name, self.norm_bounded = "cp4/stable", True

    def variant(self, text: str) -> Decomposition:
        if text != "stable":
            raise UnknownNameError(f"There is no variant {text!r} of cp4; there is cp4/stable.")
        return STABLE

    def refuses(self, layer: LayerSpec) -> str | None:
        return one_axis(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        sizes = list(self.sizes(layer).values())
        return (prod(sizes) // max(sizes),)

    def start(self, target: Tensor, rank: Rank) -> Sequence[Tensor]:
        found = largest_first(target, rank[0])
        full = rank[0] * max(target.shape[1:]) >= target[0].numel()
        return found if full else als(target, found, SWEEPS)


STABLE = CP4(stable=True)
FORMS.register(CP4.name, CP4())
