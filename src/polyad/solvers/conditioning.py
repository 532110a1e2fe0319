"""L-BFGS over the factors of a sum of terms in coordinates in which all directions curve nearly alike.

Where terms resemble each other the error hardly changes along some mixtures of them and steeply along others, and a
descent crawls. To second order the error changes with a factor U (sizes, ranks) as tr(U Gamma U') does, Gamma the Gram
matrix of what the other factors make of each of its ranks (for a canonical decomposition the normal equations of
alternating least squares). With Gamma = L L' as it is when a descent starts, V = U L are coordinates in which that is
tr(V V'). Others precondition L-BFGS by a whole sweep of alternating least squares in each iteration (De Sterck and
Howse, Numer. Linear Algebra Appl. 2018).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.execution.network import BATCH
from polyad.linalg import raised
from polyad.solvers.descent import minimise
from polyad.solvers.projection import Projection

FLOOR = 0.01
"""What Gamma is lifted by, relative to its largest diagonal entry: it changes while a descent goes on."""

LARGEST = 2000
"""Ranks of a factor, multiplied, beyond which it stays as it is: its Gamma would take longer than the descent."""


def conditionable(form: Decomposition) -> bool:
    """Whether it is a sum of terms each of whose factors has modes of its own."""
    once = all(sum(letter in letters for letters in form.letters) == 1 for letter in form.view)
    return form.term_letter is not None and once and not any(form.shared)


def conditioned(projection: Projection, factors: Sequence[Tensor], steps: int) -> list[Tensor]:
    """All factors (groups, ...), after at most `steps` iterations of L-BFGS from these."""
    form = projection.form
    own = [at for at in range(len(factors)) if at != projection.split.position]
    factors = projection.completed([factors[at] for at in own])
    changes = [_Change.at(form, factors, at) for at in own]

    def value_and_gradients(coordinates: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        value, gradients = projection.value_and_gradients([c.undone(v) for c, v in zip(changes, coordinates)])
        return value, [c.gradient(gradient) for c, gradient in zip(changes, gradients)]

    found = minimise(value_and_gradients, [c.done(factors[at]) for c, at in zip(changes, own)], steps)
    return projection.completed([c.undone(v) for c, v in zip(changes, found)])


@dataclass(frozen=True)
class _Change:
    """Of the coordinates of one factor: its ranks, moved behind its modes, times the root of Gamma, and back.

    Attributes:
        order: of the axes, the modes before the ranks.
        root: of Gamma (groups, R, R) over all ranks of the factor, and its inverse; None where nothing changes.
    """

    order: tuple[int, ...]
    root: Tensor | None = None
    inverse: Tensor | None = None

    @classmethod
    def at(cls, form: Decomposition, factors: Sequence[Tensor], at: int) -> "_Change":
        letters = form.letters[at]
        ranks = "".join(letter for letter in letters if letter not in form.view)
        modes = "".join(letter for letter in letters if letter in form.view)
        order = (0, *(1 + letters.index(letter) for letter in modes + ranks))
        if prod(factors[at].shape[1 + letters.index(letter)] for letter in ranks) > LARGEST:
            return cls(order)
        gram = gamma(form, factors, at, ranks)
        largest = gram.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
        gram = gram / torch.where(largest > 0, largest, torch.ones_like(largest))  # the same at any scale of the weight
        root, failed = torch.linalg.cholesky_ex(raised(gram, FLOOR))
        if failed.any():  # factors that are no numbers
            return cls(order)
        identity = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand_as(root)
        return cls(order, root, torch.linalg.solve_triangular(root, identity, upper=False))

    def done(self, factor: Tensor) -> Tensor:
        return self._times(factor, self.root)

    def undone(self, factor: Tensor) -> Tensor:
        return self._times(factor, self.inverse)

    def gradient(self, factor: Tensor) -> Tensor:
        return self._times(factor, None if self.inverse is None else self.inverse.mT)

    def _times(self, factor: Tensor, matrix: Tensor | None) -> Tensor:
        if matrix is None:
            return factor
        moved = factor.permute(self.order)
        changed = moved.reshape(len(moved), -1, matrix.shape[-1]) @ matrix
        return changed.reshape(moved.shape).permute([self.order.index(axis) for axis in range(moved.dim())])


def gamma(form: Decomposition, factors: Sequence[Tensor], at: int, ranks: str) -> Tensor:
    """(groups, R, R) over all ranks of a factor: what the others make of each, multiplied over all other modes."""
    inner = sorted({letter for letters in form.letters for letter in letters if letter not in form.view})
    twin = str.maketrans(dict(zip(inner, "ABCDEFHIJ", strict=False)))  # not the letter of the groups
    operands, terms = [], []
    for other, letters in enumerate(form.letters):
        if other != at:
            operands += [factors[other]] * 2
            terms += [BATCH + letters, BATCH + letters.translate(twin)]
    found = torch.einsum(f"{','.join(terms)}->{BATCH}{ranks}{ranks.translate(twin)}", *operands)
    return found.flatten(1, len(ranks)).flatten(2)
