"""Find the layers whose attributes other code reads while the network runs.

A factorised layer is an `nn.Sequential`: it has no `weight` or `in_features` of its own. Code such as
`x.to(self.proj.weight.dtype)` in a parent would fail, or quietly take another branch, so such a layer cannot be
replaced.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from polyad.batches import Batch
from polyad.modes import evaluating
from polyad.naming import put
from polyad.splits import Call

FAILURES = (AttributeError, TypeError, RuntimeError, ValueError, IndexError, KeyError)


class _Opaque(nn.Module):
    """Runs a module and shows nothing else of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = (inner,)  # in a tuple, so that it is no sub-module and no attribute can be reached through it

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner[0](*args, **kwargs)


def read_from_outside(model: nn.Module, names: Sequence[Sequence[str]], example: Batch | Call) -> dict[str, str]:
    """First name -> what went wrong, for every layer that cannot be hidden behind another module.

    Args:
        model: the network; changed while this runs, restored behind.
        names: of each layer, all of its names.
        example: a batch that runs it.
    """
    if _failure(model, names, example) is None:
        return {}
    found = {group[0]: _failure(model, [group], example) for group in names}
    return {name: failure for name, failure in found.items() if failure is not None}


def _failure(model: nn.Module, names: Sequence[Sequence[str]], example: Batch | Call) -> str | None:
    with _hidden(model, names), evaluating(model), torch.no_grad():
        try:
            example.run(model)
        except FAILURES as error:
            return str(error).splitlines()[0]
    return None


@contextmanager
def _hidden(model: nn.Module, names: Sequence[Sequence[str]]) -> Iterator[None]:
    originals = [(name, model.get_submodule(name)) for group in names for name in group]
    wrapped = {id(module): _Opaque(module) for _, module in originals}
    try:
        for name, module in originals:
            put(model, name, wrapped[id(module)])
        yield
    finally:
        for name, module in originals:
            put(model, name, module)
