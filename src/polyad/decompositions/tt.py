"""Tensor train over the modes of a kernel, in the best of their orders.

Oseledets, "Tensor-Train Decomposition", SIAM J. Sci. Comput. 2011; for convolutions Garipov et al., "Ultimate
Tensorization", 2016, and Gusak et al., 2019.
"""

from collections.abc import Sequence
from itertools import permutations
from math import prod

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.hosvd import tensor_train
from polyad.records import Rank
from polyad.refusals import one_axis, one_channel

VIEW = "oihw"


class TensorTrain(Decomposition):
    """`ia,ahb,bwc,co->oihw`, or the same chain through the modes in another order.

    Args:
        order: the modes along the train; a train and its mirror image are the same.
    """

    name = "tt"
    summary = "tensor train over i, h, w, o: 1x1, h x 1, 1 x w, 1x1; tt/hiwo ... for other orders"
    good_for = (
        "A middle way between spatial SVD and CP: small full convolutions along each axis, dense on every runtime. The"
        " order ihwo costs least to run; others may fit better at the same parameters."
    )
    source = "Oseledets, 2011; Garipov et al., 2016"

    def __init__(self, order: str = "ihwo") -> None:
        self.order = order
        first, second, third, fourth = order
        self.equation = f"{first}a,a{second}b,b{third}c,c{fourth}->{VIEW}"
        if order != "ihwo":
            self.name = f"tt/{order}"

    def variants(self, layer: LayerSpec) -> Sequence[Decomposition]:
        return () if self.refuses(layer) else tuple(ORDERS.values()) if self.order == "ihwo" else (self,)

    def variant(self, text: str) -> Decomposition:
        found = ORDERS.get(text) or ORDERS.get(text[::-1])
        if found is None:
            raise UnknownNameError(f"There is no order {text!r} of tt; there are {', '.join(ORDERS)}.")
        return found

    def refuses(self, layer: LayerSpec) -> str | None:
        return one_axis(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        modes = [size[letter] for letter in self.order]
        return tuple(min(prod(modes[:cut]), prod(modes[cut:])) for cut in (1, 2, 3))

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        cores = tensor_train(target.permute(0, *(VIEW.index(letter) + 1 for letter in self.order)), rank)
        return [cores[0].squeeze(1), *cores[1:-1], cores[-1].squeeze(-1)]


ORDERS = {order: TensorTrain(order) for order in sorted(map("".join, permutations("ihwo"))) if order < order[::-1]}
ORDERS = {"ihwo": TensorTrain(), **{order: form for order, form in ORDERS.items() if order != "ihwo"}}
FORMS.register(TensorTrain.name, ORDERS["ihwo"])
