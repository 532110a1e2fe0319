"""Part a list of batches into fitted and held-out ones, join batches into one, run a person's own loop as a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from polyad.batches import Batch


@dataclass(frozen=True)
class Call:
    """A function that runs the model on data of its own, in the place of a batch; one call counts as one sample."""

    function: Callable[[nn.Module], Any]
    size: int = 1

    def run(self, model: nn.Module) -> Any:
        return self.function(model)

    def take(self, n: int) -> "Call":
        return self


def hold_out(batches: Sequence[Batch], share: float) -> tuple[list[Batch], list[Batch]]:
    """All but the last `share` of the samples, and those; nothing is held out of a single sample."""
    total = sum(batch.size for batch in batches)
    kept = total - int(total * share) if total > 1 else total
    if 1 < total == kept:
        kept = total - 1
    fitted, held_out = [], []
    for batch in batches:
        inside = min(max(kept, 0), batch.size)
        if inside:
            fitted.append(batch.take(inside))
        if inside < batch.size:
            held_out.append(batch.part(inside, batch.size))
        kept -= inside
    return fitted, held_out


def merge(batches: Sequence[Batch], samples: int) -> Batch:
    """The first `samples` samples in one batch; as far as the shapes of the batches agree."""
    leaves, spec = tree_flatten((batches[0].args, batches[0].kwargs))
    columns: list[list[Any]] = [[leaf] for leaf in leaves]
    size = batches[0].size
    for batch in batches[1:]:
        more, other = tree_flatten((batch.args, batch.kwargs))
        if size >= samples or other != spec or not all(map(_joinable, leaves, more)):
            break
        for column, leaf in zip(columns, more, strict=True):
            column.append(leaf)
        size += batch.size
    joined = [
        torch.cat(column) if isinstance(column[0], Tensor) and column[0].dim() else column[0] for column in columns
    ]
    args, kwargs = tree_unflatten(joined, spec)
    return Batch(args, kwargs, None).take(min(samples, size))


def merged(batches: Sequence[Batch], samples: int) -> list[Batch]:
    """The first `samples` samples in as few batches as their shapes allow."""
    found: list[Batch] = []
    left = list(batches)
    while left and samples > 0:
        found.append(merge(left, samples))
        samples -= found[-1].size
        taken = 0
        while left and taken < found[-1].size:
            taken += left.pop(0).size
    return found


def _joinable(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape[1:] == b.shape[1:] and a.dim() == b.dim()
    return a == b
