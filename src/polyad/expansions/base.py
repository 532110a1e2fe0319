"""What an expansion is: an equal module in the place of another, its weights in ordinary linear layers."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from polyad.registry import Registry

Parts = tuple[int, ...]
"""Sizes of the parts, for the expansions that need them; empty for all others."""


def _never(parent: nn.Module) -> bool:
    return False


@dataclass(frozen=True)
class Expansion:
    """A kind of module and what takes its place.

    Attributes:
        name: as in a plan.
        summary: one line.
        types: the classes whose `forward` it stands in for.
        takes: whether a module is one for it.
        refuses: module and parts -> why this one cannot be expanded, or None.
        expand: module and parts -> the equal module. Parameters are copied (device, dtype, requires_grad, training mode
            and their number stay), sub-modules that need no change are taken over; the module itself is not changed.
        on_request: only where a person names the module.
        read_by: whether a parent reads the module's own attributes where it finds the original class, so that it has to
            be expanded as soon as any layer of that parent is replaced.
    """

    name: str
    summary: str
    types: tuple[type[nn.Module], ...]
    takes: Callable[[nn.Module], bool]
    refuses: Callable[[nn.Module, Parts], str | None]
    expand: Callable[[nn.Module, Parts], nn.Module]
    on_request: bool = False
    read_by: Callable[[nn.Module], bool] = _never


EXPANSIONS: Registry[Expansion] = Registry("expansion", "polyad.expansions")


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with copies of a weight (out, in) and a bias (out,)."""
    out, inp = weight.shape
    layer = nn.Linear(inp, out, bias=bias is not None, device="meta")  # no memory, no random numbers
    layer.weight = _copied(weight)
    if bias is not None:
        layer.bias = _copied(bias)
    return layer


def _copied(source: Tensor) -> nn.Parameter:
    return nn.Parameter(source.detach().clone(), requires_grad=source.requires_grad)


def computed(module: nn.Module, *names: str) -> str | None:
    """Why a module some of whose tensors are no parameters of its own cannot be expanded, or None."""
    missing = [name for name in names if not isinstance(module._parameters.get(name), nn.Parameter)]
    if missing:
        return f"its {missing[0]} is computed from other tensors: undo that first"
    return None
