"""Problems of one shape, stacked along the groups, so that one product serves all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.solvers.found import Fit, no_worse_than_zero
from polyad.solvers.problem import SINGLE, Problem, Whitened


@dataclass(frozen=True)
class Stack:
    """Problems in the coordinates of one view, the groups of each one after another.

    Args:
        form: the form that they are fitted with.
        views: one for each problem, of one shape, with norms of one kind.
    """

    form: Decomposition
    views: tuple[Whitened, ...]

    @cached_property
    def view(self) -> Whitened:
        """The weights of all of them as one, in the plain norm."""
        weights = [view.problem.weight for view in self.views]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        return Whitened(Problem(weight, None), self.views[0].shape, {})

    @cached_property
    def whole(self) -> Problem:
        """All of them as one."""
        return _stacked([view.problem for view in self.views])

    @property
    def single(self) -> "Stack":
        """The same in float32."""
        return self._single or self  # kept, itself would be a cycle, and its views stay until Python looks for cycles

    @cached_property
    def _single(self) -> "Stack | None":
        """As `single`, None for itself."""
        same = all(view.problem.single is view.problem for view in self.views)
        return None if same else self._of([view.problem.single for view in self.views])

    @cached_property
    def in_plain_norm(self) -> "Stack":
        """The same weights in float32 and the plain norm."""
        return self._of([Problem(view.problem.single.weight, None) for view in self.views])

    @property
    def energies(self) -> Tensor:
        """What their relative errors are relative to, float64 (problems,)."""
        return torch.tensor([view.problem.energy for view in self.views], dtype=torch.float64)

    @property
    def plain(self) -> bool:
        """Whether their norm is the plain one."""
        problem = self.views[0].problem
        return problem.matrix is None and problem.left is None

    def take(self, places: Tensor) -> "Stack":
        """Some of the problems."""
        whole = len(places) == len(self.views)
        return self if whole else Stack(self.form, tuple(self.views[at] for at in places.tolist()))

    def each(self, tensor: Tensor) -> Tensor:
        """(problems, groups, ...) of (problems * groups, ...)."""
        return tensor.unflatten(0, (len(self.views), -1))

    def errors(self, factors: Sequence[Tensor]) -> Tensor:
        """Relative errors, float64 (problems,), from float32 where that is exact enough for a comparison."""
        single, approximation = self.single, self.form.contracted(factors)
        approximation = approximation.reshape(single.whole.weight.shape)
        difference = single.whole.weight - approximation.float()
        squared = self.each(single.whole.weighted(difference) * difference).flatten(1).sum(1).double()
        energies = single.energies
        found = squared / torch.where(energies > 0, energies, torch.ones_like(energies))
        for at in (~(found > SINGLE)).nonzero().flatten().tolist():
            found[at] = self.views[at].problem.relative(self.each(approximation)[at])
        return found

    def _of(self, problems: Sequence[Problem]) -> "Stack":
        """Other problems in the same coordinates."""
        pairs = zip(problems, self.views, strict=True)
        return Stack(self.form, tuple(Whitened(problem, view.shape, view.undo) for problem, view in pairs))


@dataclass(frozen=True)
class Found:
    """Factors (problems * groups, ...) float64 of a stack, and their relative errors, float64 (problems,)."""

    factors: list[Tensor]
    errors: Tensor

    @classmethod
    def of(cls, stack: Stack, factors: Sequence[Tensor]) -> "Found":
        """Factors, measured."""
        return cls(list(factors), stack.errors(factors))

    def part(self, places: Tensor) -> "Found":
        """Those of some problems; of all of them as they lie in memory."""
        if len(places) == len(self.errors):
            return self
        return Found([self._each(factor)[places].flatten(0, 1) for factor in self.factors], self.errors[places])

    def fits(self, rank: tuple[int, ...]) -> list[Fit]:
        """One for each problem."""
        factors = [self._each(factor) for factor in self.factors]
        return [Fit(rank, tuple(factor[at] for factor in factors), float(e)) for at, e in enumerate(self.errors)]

    def put(self, places: Tensor, others: "Found") -> "Found":
        """With those of others at the places of some problems."""
        if len(places) == len(self.errors):
            return others
        factors, errors = [self._each(factor).clone() for factor in self.factors], self.errors.clone()
        for factor, other in zip(factors, others.factors, strict=True):
            factor[places] = other.unflatten(0, (len(places), -1)).to(factor.dtype)
        errors[places] = others.errors
        return Found([factor.flatten(0, 1) for factor in factors], errors)

    def better(self, places: Tensor, others: "Found") -> "Found":
        """With those of others at the places of some problems where they err less."""
        (less,) = (others.errors < self.errors[places]).nonzero(as_tuple=True)
        return self.put(places[less], others.part(less)) if len(less) else self

    def no_worse_than_zero(self, stack: Stack) -> "Found":
        """A start that errs more than zeros would is made smaller."""
        found = self
        for at in (~(self.errors <= 1)).nonzero().flatten():
            place = at.unsqueeze(0)
            mine = no_worse_than_zero(stack.form, stack.views[int(at)], self.part(place).fits(())[0])
            found = found.put(place, Found(list(mine.factors), torch.tensor([mine.error], dtype=torch.float64)))
        return found

    def _each(self, factor: Tensor) -> Tensor:
        return factor.unflatten(0, (len(self.errors), -1))


def _stacked(problems: Sequence[Problem]) -> Problem:
    if len(problems) == 1:
        return problems[0]
    norms = [problem.matrix for problem in problems if problem.matrix is not None]
    return Problem(torch.cat([problem.weight for problem in problems]), torch.cat(norms) if norms else None)
