"""L-BFGS over several problems abreast: one evaluation of all of them at a time, for small problems are small calls.

Every problem has its own step length, its own pairs and its own end. One whose step is refused tries a shorter one in
the next evaluation, while the others go on; those that have ended are left out as soon as they are a quarter of all.
"""

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from polyad.solvers.descent import Patience, pairs_kept

ARMIJO = 1e-4
"""Share of the decrease that the slope promises which a step has to reach."""

REFUSALS = 8
"""Steps refused in a row, each at most half as long as the one before, that end a descent."""

ENDED = 0.25
"""Share of problems that have ended from which on they are left out: leaving them out copies the others."""


class Objectives(Protocol):
    """Functions of as many unknowns each."""

    def __call__(self, unknowns: Tensor) -> tuple[Tensor, Tensor]:
        """Values (problems,) float64 and gradients, of the type of the points; all (problems, unknowns)."""
        ...

    def take(self, kept: Tensor) -> "Objectives":
        """Those of some problems."""
        ...


def minimise_each(objectives: Objectives, start: Tensor, steps: int, patience: Patience) -> Tensor:
    """Points (problems, unknowns) after at most `steps` iterations from these, none with a larger value.

    They are of the type of the start: in float32 vectors take half the memory, for problems of millions of unknowns.
    """
    final = start.clone()
    pairs = pairs_kept(start[0].nbytes)
    now = _Descents.begin(objectives, start, patience)
    for _ in range(2 * steps + 20):
        now.go(objectives, pairs)
        now.running &= (now.moves < steps) & (now.refusals < REFUSALS) & ~now.stalled(patience)
        if not now.running.any():
            break
        if now.running.double().mean() <= 1 - ENDED:
            final[now.which] = now.x
            (kept,) = now.running.nonzero(as_tuple=True)
            now, objectives = now.take(kept), objectives.take(kept)
    final[now.which] = now.x
    return final


@dataclass
class _Descents:
    """Where the descents are; the first axis of everything counts problems.

    Attributes:
        which: positions in the start.
        running: false where a descent has ended; it stays where it is.
        x, value, gradient: the last point accepted.
        length: of the step to try next, along `direction`.
        course: the last values, the newest one last; infinite before the first.
        moves: steps accepted. refusals: steps refused since then.
        steps, changes: S and Y (problems, pairs, unknowns): steps and changes of the gradient; zeros stand for a pair
            that has no curvature or was refused.
        gamma: the curvature that is known, s'y / y'y of the last pair; zero where there is none.
    """

    which: Tensor
    running: Tensor
    x: Tensor
    value: Tensor
    gradient: Tensor
    length: Tensor
    course: Tensor
    moves: Tensor
    refusals: Tensor
    steps: Tensor
    changes: Tensor
    gamma: Tensor

    @classmethod
    def begin(cls, objectives: Objectives, x: Tensor, patience: Patience) -> "_Descents":
        value, gradient = objectives(x)
        count = torch.zeros(len(x), dtype=torch.int64)
        course = value.new_full((len(x), patience.window + 1), torch.inf)
        pairs = x.new_zeros(len(x), 0, x.shape[1])
        which, running = torch.arange(len(x)), torch.ones(len(x), dtype=torch.bool)
        length, gamma = _first(gradient), torch.zeros_like(value)
        return cls(which, running, x, value, gradient, length, course, count, count, pairs, pairs, gamma)

    def take(self, kept: Tensor) -> "_Descents":
        return _Descents(*(getattr(self, field.name)[kept] for field in fields(self)))

    def stalled(self, patience: Patience) -> Tensor:
        """Which have gained too little of late."""
        return self.course[:, 0] - self.course[:, -1] < patience.gain * self.course[:, -1].abs()

    def go(self, objectives: Objectives, pairs: int) -> None:
        """One evaluation: every problem moves, or learns that its step was too long."""
        direction, slope = self._direction()
        tried = self.x + direction.mul_(self.length[:, None])
        del direction
        value, gradient = objectives(tried)
        fits = self.running & (value <= self.value + ARMIJO * self.length * slope)
        shorter = _shorter(self.length, slope, value - self.value)
        self._remember(fits, tried - self.x, gradient - self.gradient, pairs)
        self.x = torch.where(fits[:, None], tried, self.x)
        self.gradient = torch.where(fits[:, None], gradient, self.gradient)
        self.value = torch.where(fits, value, self.value)
        course = torch.cat([self.course[:, 1:], self.value[:, None]], 1)
        self.course = torch.where(fits[:, None], course, self.course)
        self.moves, self.refusals = self.moves + fits, torch.where(fits, 0, self.refusals + 1)
        onwards = torch.where(self.gamma > 0, torch.ones_like(self.length), _first(self.gradient))
        self.length = torch.where(fits, onwards, shorter)

    def _remember(self, fits: Tensor, step: Tensor, change: Tensor, pairs: int) -> None:
        curvature, square = (step * change).sum(1), change.square().sum(1)
        curved = fits & (curvature > torch.finfo(step.dtype).eps * square)
        if not curved.any():
            return
        self.gamma = torch.where(curved, curvature / square, self.gamma)
        pair = [torch.where(curved[:, None], part, 0.0).unsqueeze(1) for part in (step, change)]
        self.steps = torch.cat([self.steps, pair[0]], 1)[:, -pairs:]
        self.changes = torch.cat([self.changes, pair[1]], 1)[:, -pairs:]

    def _direction(self) -> tuple[Tensor, Tensor]:
        """-H g and its slope, H of the pairs in compact form: Byrd, Nocedal and Schnabel, "Representations of
        quasi-Newton matrices and their use in limited memory methods", Math. Programming 1994, theorem 2.2."""
        gradient, steepest = self.gradient.unsqueeze(-1), -self.gradient
        gamma = torch.where(self.gamma > 0, self.gamma, 1.0).to(gradient.dtype).view(-1, 1, 1)
        products = self.steps @ self.changes.mT
        diagonal = products.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        upper = products.triu() + torch.diag_embed((diagonal == 0).squeeze(-1).to(products.dtype))
        p = torch.linalg.solve_triangular(upper, self.steps @ gradient, upper=True)
        q = diagonal * p + gamma * (self.changes @ (self.changes.mT @ p - gradient))
        q = torch.linalg.solve_triangular(upper.mT, q, upper=False)
        found = -(gamma * (gradient - self.changes.mT @ p) + self.steps.mT @ q).squeeze(-1)
        slope = (found * self.gradient).sum(1)
        down = slope < 0
        found = torch.where(down[:, None], found, steepest)
        return found, torch.where(down, slope, -self.gradient.square().sum(1))


def _first(gradient: Tensor) -> Tensor:
    """Length along the steepest descent where no curvature is known: that of a step of at most one."""
    return (1 / gradient.norm(dim=1).double()).clamp_max(1.0)


def _shorter(length: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
    """To the lowest point of the parabola through what is known along the step, from a tenth to a half of it."""
    bend = 2 * (rise - length * slope)
    lowest = torch.where(bend.isfinite() & (bend > 0), -slope * length.square() / bend, length / 2)
    return torch.minimum(torch.maximum(lowest, length / 10), length / 2)
