"""A weight to be approximated and the norm that counts, prepared once per layer and view.

Mode-wise whitening: the norm C is approximated by a Kronecker product of one matrix per input mode (its partial
traces). Multiplying the weight by their square roots turns the weighted problem into nearly a plain one, without
destroying the
tensor: any plain algorithm gives a good start there, and the exact norm, transformed likewise, is well conditioned for
the refinement. Undoing it is one small multiplication of the factor that carries the mode.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from polyad.linalg import matrix_power, symmetric
from polyad.metrics import Metric, held_out_norm
from polyad.records import Site, Statistics

WHITENING_FLOOR = 1e-4
"""Modes are not whitened beyond this share of their strongest direction: a start, not the solution, depends on it."""


@dataclass(frozen=True)
class Problem:
    """Approximate `weight` in the norm of `matrix`.

    Attributes:
        weight: (groups, out, n) float64.
        matrix: (groups, n, n) float64, positive definite, or None for the plain norm.
    """

    weight: Tensor
    matrix: Tensor | None

    @cached_property
    def energy(self) -> float:
        """tr(W C W'), what relative errors are relative to."""
        return float(self.squared_norm(self.weight))

    def squared_norm(self, difference: Tensor) -> Tensor:
        """tr(D C D') of (groups, out, n), summed over groups."""
        if self.matrix is None:
            return difference.square().sum()
        return ((difference @ self.matrix) * difference).sum()

    def relative(self, approximation: Tensor) -> float:
        """Relative error of an approximation (groups, out, n)."""
        error = float(self.squared_norm(self.weight - approximation))
        return error / self.energy if self.energy > 0 else error

    @cached_property
    def _whitened(self) -> dict[tuple[int, ...], "Whitened"]:
        return {}

    def whitened(self, sizes: Mapping[str, int]) -> "Whitened":
        """The problem in whitened coordinates of a view; `sizes` are its letters, the output first."""
        modes = tuple(size for letter, size in sizes.items() if letter != "o")
        if modes not in self._whitened:
            self._whitened[modes] = _whiten(self, modes)
        return self._whitened[modes]


def problems(site: Site, weight: Tensor, norm: Metric, statistics: Statistics | None) -> tuple[Problem, Problem | None]:
    """The weight of a site (PyTorch layout) in the norm of the fit, and in that of the held-out inputs."""
    flat = site.layer.canonical(weight.detach().to("cpu", torch.float64)).flatten(2)
    if norm.matrix is None or statistics is None:
        return Problem(flat, None), None
    unseen = held_out_norm(site, statistics)
    return Problem(flat, norm.matrix(site, statistics)), None if unseen is None else Problem(flat, unseen)


@dataclass(frozen=True)
class Whitened:
    """A problem in the coordinates of one view.

    Attributes:
        problem: weight and norm, transformed.
        modes: sizes of the input modes of the view.
        undo: per input mode the inverse transformation (groups, size, size); empty for the plain norm.
    """

    problem: Problem
    modes: tuple[int, ...]
    undo: tuple[Tensor, ...]

    @property
    def target(self) -> Tensor:
        """The weight (groups, out, *modes)."""
        return self.problem.weight.unflatten(-1, self.modes)


def _whiten(problem: Problem, modes: tuple[int, ...]) -> Whitened:
    if problem.matrix is None:
        return Whitened(problem, modes, ())
    groups = problem.weight.shape[0]
    weight = problem.weight.unflatten(-1, modes)
    matrix = problem.matrix.reshape(groups, *modes, *modes)
    undo = []
    for axis in range(len(modes)):
        moment = _partial_trace(matrix, axis, len(modes))
        root = matrix_power(moment, 0.5, WHITENING_FLOOR)
        inverse = matrix_power(moment, -0.5, WHITENING_FLOOR)
        weight = _along(weight, root, axis + 2)
        matrix = _along(_along(matrix, inverse, axis + 1), inverse, axis + 1 + len(modes))
        undo.append(inverse)
    size = prod(modes)
    flat = Problem(weight.flatten(2), symmetric(matrix.reshape(groups, size, size)))
    return Whitened(flat, modes, tuple(undo))


def _partial_trace(matrix: Tensor, axis: int, count: int) -> Tensor:
    """Moment of one mode (groups, size, size), averaged over all the others."""
    letters = "abcdefgh"[:count]
    other = letters.replace(letters[axis], "y")
    return (
        torch.einsum(f"G{letters}{other}->G{letters[axis]}y", matrix)
        / (matrix[0].numel() ** 0.5)
        * matrix.shape[axis + 1]
    )


def _along(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one axis of (groups, ...) by a symmetric matrix (groups, size, size)."""
    moved = tensor.movedim(axis, -1)
    shape = moved.shape
    moved = moved.reshape(shape[0], -1, shape[-1]) @ matrix
    return moved.reshape(shape).movedim(-1, axis)
