"""What stands behind a layer, or behind its batch norm: a sum with a shortcut, a ReLU, or both one after the other."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from polyad.batches import Batch, run_on
from polyad.modes import evaluating
from polyad.records import Site

SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}
RELUS = {
    F.relu: inf,
    F.relu_: inf,
    torch.relu: inf,
    torch.relu_: inf,
    Tensor.relu: inf,
    Tensor.relu_: inf,
    F.relu6: 6.0,
}
"""With the value at which they end."""


@dataclass(frozen=True)
class Follower:
    """What alone takes the output of a site.

    Attributes:
        summed: whether something of the same shape is added to it.
        ceiling: where a ReLU behind that ends: infinity, or 6; None where none follows.
    """

    summed: bool = False
    ceiling: float | None = None


def summands(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> tuple[Tensor, ...]:
    """The two tensors of one shape that a call adds, or none."""
    if function not in SUMS or kwargs or len(args) != 2:
        return ()
    alike = all(isinstance(one, Tensor) for one in args) and args[0].shape == args[1].shape
    return tuple(args) if alike else ()


class _Uses(TorchFunctionMode):
    """Notes what the outputs of layers, and sums of them, are used for.

    Attributes:
        of: id of an output -> (site, whether it is a sum already) and the output.
        order: the sites in the order in which their outputs came.
        used: how many functions took what.
        summed: how often it was added; of two outputs in one sum the later counts.
        ended: where the ReLU ends that took it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[int, tuple[tuple[str, bool], Tensor]] = {}
        self.order: list[str] = []
        self.used: Counter[tuple[str, bool]] = Counter()
        self.summed: Counter[str] = Counter()
        self.ended: dict[tuple[str, bool], float] = {}

    def note(self, name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            self.of[id(output)] = ((name, False), output)
            self.order.append(name)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        taken = self._known(tree_iter((args, kwargs)))
        self.used.update(taken)
        if func in RELUS:
            self.ended |= dict.fromkeys(taken, RELUS[func])
        pair = [name for name, summed in self._known(summands(func, args, kwargs)) if not summed]
        result = func(*args, **(kwargs or {}))
        if func in RELUS:  # in place it gives the same tensor, which is something else now
            self.of.pop(id(result), None)
        if pair:
            last = max(pair, key=self.order.index)
            self.summed[last] += 1
            self.of[id(result)] = ((last, True), result)
        return result

    def _known(self, leaves: Iterable[Any]) -> list[tuple[str, bool]]:
        return [self.of[id(leaf)][0] for leaf in leaves if isinstance(leaf, Tensor) and id(leaf) in self.of]

    def follower(self, name: str) -> Follower:
        alone = self.used[name, False] == 1
        summed = alone and self.summed[name] == 1
        end = (name, summed)
        return Follower(summed, self.ended.get(end) if alone and self.used[end] == 1 else None)


def followers(model: nn.Module, sites: Sequence[Site], example: Batch) -> dict[str, Follower]:
    """What follows each site, as one run shows it.

    Of two sites whose outputs are added to each other the sum belongs to the one that runs later.

    Args:
        model: only read.
        sites: layers that run once.
        example: one sample or more.
    """
    uses = _Uses()

    def noting(name: str) -> Callable[..., None]:
        return lambda module, args, output: uses.note(name, output)

    handles = [
        model.get_submodule(site.norm_behind or site.name).register_forward_hook(noting(site.name)) for site in sites
    ]
    try:
        with torch.no_grad(), evaluating(model), uses:
            run_on(model, example, "a calibration batch")
    finally:
        for handle in handles:
            handle.remove()
    return {site.name: uses.follower(site.name) for site in sites}
