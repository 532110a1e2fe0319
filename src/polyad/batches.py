"""What a stage gets as data: batches that know how to run a network."""
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
import torch
from torch import Tensor, nn

@dataclass(frozen=True)
class Batch:
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None
    def run(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)
    @property
    def size(self) -> int:
        return len(self.args[0] if self.args else next(iter(self.kwargs.values())))
    def take(self, n: int) -> "Batch":
        return Batch(tuple(a[:n] for a in self.args), {k: v[:n] for k, v in self.kwargs.items()}, None if self.labels is None else self.labels[:n])

def as_batches(data: Any, samples: int | None = None) -> list[Batch]:
    out = []
    left = samples or 10**12
    for d in data:
        if isinstance(d, Batch): b = d
        elif isinstance(d, (tuple, list)): b = Batch((d[0],), {}, d[1])
        else: b = Batch((d,))
        b = b.take(min(left, b.size)); left -= b.size
        out.append(b)
        if left <= 0: break
    return out
