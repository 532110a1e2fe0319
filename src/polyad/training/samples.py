"""Samples that a training draws in a new order each epoch, an order that can be drawn again."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from polyad.batches import Batch
from polyad.fingerprint import hash_of

Draw = tuple[int, Tensor]
"""A part, and the positions of samples in it."""


class Samples:
    """Samples in memory, joined as far as their shapes agree: only samples of one part share a batch.

    Args:
        batches: of inputs, with or without labels.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.parts = _joined(batches)

    def __len__(self) -> int:
        return sum(part.size for part in self.parts)

    def per_epoch(self, size: int) -> int:
        """Batches of one epoch."""
        return sum(max(1, part.size // size) for part in self.parts)

    def epoch(self, number: int, size: int, seed: int) -> list[Draw]:
        """The batches of an epoch: random, and the same whenever it is asked for again.

        Batches are full; the samples that are left over, others in each epoch, are left out.

        Args:
            number: of the epoch, from 0.
            size: samples in a batch.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        found: list[Draw] = []
        for at, part in enumerate(self.parts):
            order = torch.randperm(part.size, generator=generator)
            count = max(1, part.size // size)
            found += [(at, chunk) for chunk in order[: count * size].split(size)]
        return [found[at] for at in torch.randperm(len(found), generator=generator).tolist()]

    def take(self, draw: Draw) -> Batch:
        """The samples of a draw, in its order."""
        at, positions = draw
        return self.parts[at].pick(positions)

    def in_order(self, size: int) -> Iterator[Batch]:
        """All samples, once."""
        for part in self.parts:
            for start in range(0, part.size, size):
                yield part.part(start, start + size)

    @property
    def key(self) -> str:
        """Equal for equal samples."""
        return hash_of([(part.args, part.kwargs, part.labels) for part in self.parts])


def _joined(batches: Sequence[Batch]) -> list[Batch]:
    """One batch for all that agree in everything but the number of samples."""
    groups: dict[object, list[list[Any]]] = {}
    specs: dict[object, Any] = {}
    for batch in batches:
        leaves, spec = tree_flatten((batch.args, batch.kwargs, batch.labels))
        key = (str(spec), *(_kind(leaf) for leaf in leaves))
        groups.setdefault(key, []).append(leaves)
        specs[key] = spec
    found = []
    for key, rows in groups.items():
        columns = [_column(column) for column in zip(*rows)]
        found.append(Batch(*tree_unflatten(columns, specs[key])))
    return found


def _kind(leaf: Any) -> object:
    """What two leaves must have in common to be joined."""
    if isinstance(leaf, Tensor):
        return (leaf.dtype, tuple(leaf.shape[1:])) if leaf.dim() else float(leaf)
    return repr(leaf)


def _column(leaves: Sequence[Any]) -> Any:
    first = leaves[0]
    return torch.cat(list(leaves)) if isinstance(first, Tensor) and first.dim() else first
