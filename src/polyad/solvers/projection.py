"""Variable projection: minimise over all factors but the output factor, which is the best one for the others.

For rows B (s, n), scaled to unit norm in C, the best output factor solves (M + ridge I) A' = N with M = B C B', N = B
C W'. What remains is

    f(B) = tr(W C W') - tr(A N),    df/dB = 2 (A' A B C - A' W C)

so one evaluation costs one product of B with C and a few small ones; the gradient needs no second product.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import Problem

RIDGE = 1e-7
"""Tikhonov term of the eliminated factor for rows of unit norm: keeps terms from growing while they cancel each
other."""

MEMORY = 20
"""Pairs that L-BFGS keeps."""


class Projection:
    """The reduced problem of one form, layer and rank.

    Args:
        split: how the form's equation parts into output factor and rows.
        problem: weight (groups, out, n) and norm, in whitened coordinates.
        sizes: of the letters of the view.
        shapes: of all factors.
    """

    def __init__(
        self,
        form: Decomposition,
        split: Elimination,
        problem: Problem,
        sizes: dict[str, int],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        self.form, self.split, self.problem, self.sizes = form, split, problem, sizes
        self.shapes = list(shapes)
        self.other_shapes = [shape for at, shape in enumerate(shapes) if at != split.position]
        self.weight = problem.weight
        self.weighted = self.weight if problem.matrix is None else self.weight @ problem.matrix
        self.scale = max(problem.energy, torch.finfo(torch.float64).tiny)

    def refine(self, factors: Sequence[Tensor], steps: int) -> list[Tensor]:
        """All factors, after at most `steps` iterations of L-BFGS from these."""
        others = [factor for at, factor in enumerate(factors) if at != self.split.position]
        start = torch.cat([factor.flatten() for factor in others]).numpy()
        options = {"maxiter": steps, "maxcor": MEMORY, "ftol": 1e-7, "gtol": 1e-9}
        found = minimize(self._value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        return self._complete(self._unpack(torch.from_numpy(found.x)))

    def _unpack(self, flat: Tensor) -> list[Tensor]:
        sizes = [int(np.prod(shape)) for shape in self.other_shapes]
        return [part.view(shape) for part, shape in zip(flat.split(sizes), self.other_shapes, strict=True)]

    def _value_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(flat).requires_grad_()
        rows = self.split.rows(self._unpack(x), self.sizes)
        with torch.no_grad():
            unit, weighted, scale = self._normalised(rows)
            solution, overlap = self._solve(unit, weighted)
            value = self.problem.energy - (solution * overlap).sum()
            gradient = 2 * (solution @ (solution.mT @ weighted) - solution @ self.weighted)
            along = (gradient * unit).sum(-1, keepdim=True)
            gradient = scale * (gradient - along * weighted)
        rows.backward(gradient / self.scale)
        return float(value) / self.scale, x.grad.numpy()  # type: ignore[union-attr]

    def _normalised(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of unit norm in C, their product with C, and the scales."""
        weighted = rows if self.problem.matrix is None else rows @ self.problem.matrix
        squared = (rows * weighted).sum(-1, keepdim=True)
        scale = squared.clamp_min(torch.finfo(rows.dtype).tiny).rsqrt()
        return rows * scale, weighted * scale, scale

    def _solve(self, unit: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
        """A' (groups, s, out), and N = B C W'."""
        gram = weighted @ unit.mT
        gram.diagonal(dim1=-2, dim2=-1).add_(RIDGE)
        overlap = weighted @ self.weight.mT
        return torch.cholesky_solve(overlap, torch.linalg.cholesky(gram)), overlap

    def _complete(self, others: Sequence[Tensor]) -> list[Tensor]:
        """The other factors with the best output factor put back in its place."""
        rows = self.split.rows(others, self.sizes)
        unit, weighted, scale = self._normalised(rows)
        solution, _ = self._solve(unit, weighted)
        factors = list(others)
        shape = self.shapes[self.split.position]
        factors.insert(self.split.position, self.split.factor(self.form, (solution * scale).mT, shape))
        return factors
