"""The products that variable projection needs of the rows B (groups, s, n): with C, with each other, with the weight.

Where the output factor shares an index with the weight (the kernel column w of the spatial SVD, the subset g of the
group SVD) a row is zero but where that index is its own. Then only these entries are kept, (groups, s, m) with m = n /
size of the index, and every product takes that share of the operations of the full one.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Protocol

import torch
from torch import Tensor

from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import Problem
from polyad.solvers.transform import times

WORTH = 1 << 25
"""Multiply-accumulates of a full product with C from which on one product per value of the tied index is faster."""


class Products(Protocol):
    """What there is to compute with rows kept as (groups, s, m); `weighted` is B C, (groups, s, n)."""

    share: int
    """n / m."""

    def rows(self, others: Sequence[Tensor]) -> Tensor:
        """B from the other factors."""
        ...

    def times_norm(self, rows: Tensor) -> Tensor:
        """B C."""
        ...

    def own(self, weighted: Tensor) -> Tensor:
        """The entries of (groups, s, n) where B is kept."""
        ...

    def gram(self, weighted: Tensor, rows: Tensor) -> Tensor:
        """B C B' (groups, s, s)."""
        ...

    def overlap(self, weighted: Tensor, rows: Tensor) -> Tensor:
        """B C W' (groups, s, out)."""
        ...

    def residual(self, solution: Tensor, weighted: Tensor) -> Tensor:
        """A' (W - A B) C where B is kept, for A' (groups or 1, s, out); a tensor of its own."""
        ...

    def part(self, groups: Tensor) -> "Products":
        """The same for some groups."""
        ...


class FullRows:
    """Rows of all n entries, for any norm."""

    share = 1

    def __init__(self, split: Elimination, problem: Problem, sizes: Mapping[str, int]) -> None:
        self.split, self.problem, self.sizes = split, problem, sizes
        self.target = times(problem.weight, problem.matrix)

    def rows(self, others: Sequence[Tensor]) -> Tensor:
        return self.split.rows(others, self.sizes)

    def times_norm(self, rows: Tensor) -> Tensor:
        return times(rows, self.problem.matrix)

    def own(self, weighted: Tensor) -> Tensor:
        return weighted

    def gram(self, weighted: Tensor, rows: Tensor) -> Tensor:
        return weighted @ rows.mT

    def overlap(self, weighted: Tensor, rows: Tensor) -> Tensor:
        return weighted @ self.problem.weight.mT

    def residual(self, solution: Tensor, weighted: Tensor) -> Tensor:
        return (solution @ self.target).sub_(_gram_times(solution, weighted))

    def part(self, groups: Tensor) -> "FullRows":
        found = copy(self)
        found.problem, found.target = self.problem.part(groups), self.target[groups]
        return found


class TiedRows:
    """Rows that one index ties to entries of their own, in a norm that is a full matrix."""

    def __init__(self, split: Elimination, problem: Problem, sizes: Mapping[str, int]) -> None:
        self.split, self.problem, self.sizes = split, problem, sizes
        self.share = sizes[split.tied]
        self.modes = tuple(sizes[letter] for letter in split.inputs)
        self.at = split.inputs.index(split.tied)
        target = times(problem.weight, problem.matrix)
        self.targets = [self._columns(target, at) for at in range(self.share)]

    @staticmethod
    def carry(split: Elimination, problem: Problem, work: int) -> bool:
        """Whether they can stand for the rows of a problem, and are worth it."""
        fits = len(split.tied) == 1 and split.letters[0] == split.tied and not split.one and not any(split.alone)
        return fits and problem.matrix is not None and problem.matrix.dim() == 3 and work >= WORTH

    def rows(self, others: Sequence[Tensor]) -> Tensor:
        return self.split.own_rows(others, self.sizes)

    def times_norm(self, rows: Tensor) -> Tensor:
        groups, n, _ = self.problem.matrix.shape  # type: ignore[union-attr]
        matrix = self.problem.matrix.reshape(groups, *self.modes, n)  # type: ignore[union-attr]
        parts = [
            part @ matrix.select(self.at + 1, at).reshape(groups, -1, n) for at, part in enumerate(self._parts(rows))
        ]
        return torch.cat(parts, 1)

    def own(self, weighted: Tensor) -> Tensor:
        return torch.cat([self._columns(part, at) for at, part in enumerate(self._parts(weighted))], 1)

    def gram(self, weighted: Tensor, rows: Tensor) -> Tensor:
        parts = [self._columns(weighted, at) @ part.mT for at, part in enumerate(self._parts(rows))]
        return torch.cat(parts, -1)

    def overlap(self, weighted: Tensor, rows: Tensor) -> Tensor:
        parts = zip(self._parts(rows), self.targets, strict=True)
        return torch.cat([part @ target.mT for part, target in parts], 1)

    def residual(self, solution: Tensor, weighted: Tensor) -> Tensor:
        products = self._parts(solution @ solution.mT)
        found = []
        for at, (part, product, target) in enumerate(zip(self._parts(solution), products, self.targets, strict=True)):
            found.append((part @ target).sub_(product @ self._columns(weighted, at)))
        return torch.cat(found, 1)

    def part(self, groups: Tensor) -> "TiedRows":
        found = copy(self)
        found.problem, found.targets = self.problem.part(groups), [target[groups] for target in self.targets]
        return found

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Per value of the index its rows (groups, s / share, ...)."""
        return rows.chunk(self.share, 1)

    def _columns(self, tensor: Tensor, at: int) -> Tensor:
        """Of (groups, s, n) the entries (groups, s, m) of one value of the index."""
        return tensor.unflatten(-1, self.modes).select(self.at + 2, at).flatten(2)


def products(split: Elimination, problem: Problem, sizes: Mapping[str, int], work: int) -> Products:
    """The cheaper ones; `work`: multiply-accumulates of the full product with C."""
    return (TiedRows if TiedRows.carry(split, problem, work) else FullRows)(split, problem, sizes)


def _gram_times(a: Tensor, b: Tensor) -> Tensor:
    """A A' B in the order with fewer operations, for A (..., s, o) and B (..., s, n)."""
    rows, columns = a.shape[-2:]
    return (a @ a.mT) @ b if rows < 2 * columns else a @ (a.mT @ b)
