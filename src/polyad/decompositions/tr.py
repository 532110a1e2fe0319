"""Tensor ring over the modes of a kernel, with mode permutation.

Zhao et al., "Tensor Ring Decomposition", 2016; for networks Wang et al., "Wide Compression: Tensor Ring Nets", CVPR
2018.
"""

from collections.abc import Sequence
from math import ceil

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition, one_axis, one_channel
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.alternating import affordable, alternating
from polyad.plain.hosvd import tensor_train
from polyad.records import Rank

VIEW, ORDERS, BONDS = "oihw", ("ihwo", "iwho", "ihow"), (2, 3, 4)

SWEEPS = 10
"""Of alternating least squares behind the TR-SVD, which truncates as if the bond were not there."""

EXACT = 1e-20
"""Relative error that sweeps, which carry a little ridge, would only make larger."""


class TensorRing(Decomposition):
    """`zia,ahb,bwc,coz->oihw`, or the ring through the modes in another order.

    Up to rotation and reflection four modes stand in a ring in three orders.

    Args:
        order: the modes along the ring, from the bond `z`.
        bond: size of `z`, which belongs to the form and is no rank: at 1 the ring would be a train.
    """

    name = "tr"
    summary = "tensor ring over i, h, w, o, closed by a bond of 2; tr/iwho/3 ... for other orders and bonds"
    good_for = (
        "Comparison with the literature on rings: the bond adds a sum over trains, which seldom pays on 3x3 kernels,"
        " and its channels are convolved one by one."
    )
    source = "Zhao et al., 2016; Wang et al., CVPR 2018"
    many_optima = True

    def __init__(self, order: str = "ihwo", bond: int = 2) -> None:
        self.order, self.bond = order, bond
        first, second, third, fourth = order
        self.equation = f"z{first}a,a{second}b,b{third}c,c{fourth}z->{VIEW}"
        if (order, bond) != ("ihwo", 2):
            self.name = f"tr/{order}/{bond}"

    def variants(self, layer: LayerSpec) -> Sequence[Decomposition]:
        own = (self,) if self.name != "tr" else (self, *(form for form in RINGS if form.name != "tr"))
        return tuple(form for form in own if not form.refuses(layer))

    def variant(self, text: str) -> Decomposition:
        found = next((form for form in RINGS if f"{form.order}/{form.bond}" == text), None)
        if found is None:
            names = ", ".join(form.name for form in RINGS)
            raise UnknownNameError(f"There is no ring {text!r}; there are {names} (order of the modes, bond).")
        return found

    def refuses(self, layer: LayerSpec) -> str | None:
        size = self.sizes(layer)
        if reason := one_axis(layer) or one_channel(layer):
            return reason
        if min(size["o"], size["i"]) < self.bond:
            return f"it has fewer channels than the bond of {self.bond} that closes the ring"
        return None

    def structure(self, layer: LayerSpec) -> dict[str, int]:
        return {"z": self.bond}

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        i, second, third, last = (size[letter] for letter in self.order)
        a = ceil(min(i, second * third * last) / self.bond)
        b = min(a * second, third * last * self.bond)
        return a, b, min(b * third, last * self.bond)

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        found = tensor_train(target.permute(0, *(VIEW.index(letter) + 1 for letter in self.order)), rank, self.bond)
        left = (self.contracted(found) - target).square().sum()
        if left <= EXACT * target.square().sum() or not affordable(self.letters, self.view, found):
            return found
        return alternating(self.letters, self.view, target, found, SWEEPS)


RINGS = tuple(TensorRing(order, bond) for order in ORDERS for bond in BONDS)
FORMS.register(TensorRing.name, RINGS[0])
