"""Variable projection: minimise over all factors but the output factor, which is the best one for the others.

For rows B (s, n), scaled to unit norm in C, the best output factor solves (M + ridge I) A' = N with M = B C B', N = B
C W'. What remains is

    f(B) = tr(W C W') - tr(A N),    df/dB = 2 (A' A B C - A' W C)

so one evaluation costs one product of B with C and a few small ones; the gradient needs no second product. Where all
groups share the output factor, M and N are summed over them.

Several problems of one shape, stacked along the groups, are evaluated as one, each with its own value and ridge.

The ridge on rows of unit norm is a price on the sum of the squared norms of the terms a_r b_r: a larger one gives the
fit of bounded norm that Phan et al. (ECCV 2020, error-preserving correction) look for.
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.linalg import solve_positive
from polyad.solvers.abreast import minimise_each
from polyad.solvers.descent import THOROUGH, Patience, minimise
from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import Problem
from polyad.solvers.products import products

RIDGE = 1e-7
"""Tikhonov term of the eliminated factor for rows of unit norm: keeps terms from growing while they cancel each
other."""

MANY = 1 << 22
"""Unknowns from which on a descent keeps its vectors in float32: SciPy's would be two dozen, of float64."""


class Projection:
    """The reduced problem of one form, layer and rank.

    Args:
        split: how the form's equation parts into output factor and rows.
        problem: weight (groups, out, n) and norm, in whitened coordinates.
        sizes: of the letters of the view.
        shapes: of all factors.
        ridge: price of the squared norms of the terms; (groups,) where problems have their own.
        energies: of stacked problems, float64 (problems,), the groups of each one after another; they share no factor.
    """

    def __init__(
        self,
        form: Decomposition,
        split: Elimination,
        problem: Problem,
        sizes: dict[str, int],
        shapes: Sequence[tuple[int, ...]],
        ridge: float | Tensor = RIDGE,
        energies: Tensor | None = None,
    ) -> None:
        self.form, self.split, self.problem, self.ridge = form, split, problem, ridge
        self.shapes = list(shapes)
        self.other_shapes = [shape for at, shape in enumerate(shapes) if at != split.position]
        self.weight = problem.weight
        self.energies = torch.tensor([problem.energy], dtype=torch.float64) if energies is None else energies
        self._largest = self.energies.to(self.weight.dtype)
        self._scales = self.energies.clamp_min(torch.finfo(torch.float64).tiny)  # what values are relative to
        self._slopes = (-2 / self._scales).to(self.weight.dtype).view(-1, 1, 1)  # (groups or 1, 1, 1)
        if len(self.energies) > 1:
            self._slopes = self._slopes.repeat_interleave(len(self.weight) // len(self.energies), 0)
        self.products = products(split, problem, sizes, self._full_work)

    @cached_property
    def rounding(self) -> Tensor:
        """Squared norm in C (groups or 1, 1, 1) that a row of length one may have by rounding alone."""
        matrix = self.problem.matrix
        if matrix is None:
            return self.weight.new_zeros(1, 1, 1)
        largest = matrix.abs().amax(-1) if matrix.dim() == 2 else torch.linalg.vector_norm(matrix, 1, -1).amax(-1)
        return torch.finfo(matrix.dtype).eps * largest.view(-1, 1, 1)

    @cached_property
    def _scale(self) -> float:
        """What the value of a single problem is relative to."""
        return float(self._scales)

    @property
    def work(self) -> int:
        """Multiply-accumulates of the product with C in one evaluation of one problem."""
        return self._full_work // self.products.share

    @property
    def _full_work(self) -> int:
        groups, out, n = self.weight.shape
        rows = prod(self.shapes[self.split.position][1:]) // out
        groups = groups // len(self.energies)
        return groups * rows * n * (n if self.problem.matrix is not None and self.problem.matrix.dim() == 3 else 1)

    def refine(self, factors: Sequence[Tensor], steps: int, patience: Patience = THOROUGH) -> list[Tensor]:
        """All factors, after at most `steps` iterations of L-BFGS from these."""
        return self.refined(factors, steps, patience)[0]

    def refined(
        self, factors: Sequence[Tensor], steps: int, patience: Patience = THOROUGH
    ) -> tuple[list[Tensor], Tensor]:
        """The same, and their relative error (1,)."""
        others = [factor for at, factor in enumerate(factors) if at != self.split.position]
        if sum(factor.numel() for factor in others) > MANY:
            return self.refined_each([factor.float() for factor in factors], steps, patience)
        return self.solved(minimise(self.value_and_gradients, others, steps, patience))

    def refined_each(self, factors: Sequence[Tensor], steps: int, patience: Patience) -> tuple[list[Tensor], Tensor]:
        """The same of stacked problems, abreast, in the type of the factors; and their relative errors (problems,)."""
        objectives = _Flat(self)
        others = [factor for at, factor in enumerate(factors) if at != self.split.position]
        return self.solved(objectives.parts(minimise_each(objectives, objectives.flat(others), steps, patience)))

    def take(self, kept: Tensor) -> "Projection":
        """Of stacked problems some."""
        each = len(self.weight) // len(self.energies)
        groups = (kept[:, None] * each + torch.arange(each)).flatten()
        part = copy(self)
        if len(self.rounding) > 1:
            vars(part)["rounding"] = self.rounding[groups]
        part.problem, part.products = self.problem.part(groups), self.products.part(groups)
        part.weight, part.energies = part.problem.weight, self.energies[kept]
        part._largest, part._scales, part._slopes = self._largest[kept], self._scales[kept], self._slopes[groups]
        part.ridge = self.ridge[groups] if isinstance(self.ridge, Tensor) else self.ridge
        part.shapes, part.other_shapes = (
            [(len(groups), *shape[1:]) for shape in shapes] for shapes in (self.shapes, self.other_shapes)
        )
        return part

    def value_and_gradients(self, others: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        """The relative error that the best output factor leaves (with the price of the ridge), and its gradients."""
        values, gradients = self._evaluated(others)
        return float(values) / self._scale, gradients

    def values_and_gradients(self, others: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The same of stacked problems, float64 (problems,), and the gradients of their sum."""
        values, gradients = self._evaluated(others)
        return values.double() / self._scales, gradients

    def _evaluated(self, others: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Values (problems,), not yet relative, and gradients, which are."""
        leaves = [factor.detach().to(self.weight.dtype).requires_grad_() for factor in others]
        rows = self.products.rows(leaves)
        with torch.no_grad():
            unit, weighted, scale = self._normalised(rows)
            solution, overlap = self._solve(unit, weighted)
            values = self._largest - self._sums(solution * overlap)
            gradient = self.products.residual(solution, weighted)  # in place from here: wide rows are large
            along = (gradient * unit).sum(-1, keepdim=True)
            if self.split.one:  # one scale for the rows of all groups
                along = along.sum(0, keepdim=True)
            gradient.addcmul_(self.products.own(weighted), along, value=-1).mul_(scale * self._slopes)
            if len(rows) < len(gradient):  # rows that all groups share
                gradient = gradient.sum(0, keepdim=True)
            del unit, weighted
        rows.backward(gradient)
        pairs = zip(leaves, others, strict=True)
        return values, [leaf.grad.to(factor.dtype) for leaf, factor in pairs]  # type: ignore[union-attr]

    def completed(self, others: Sequence[Tensor]) -> list[Tensor]:
        """The other factors with the best output factor put back in its place."""
        return self.solved(others)[0]

    def solved(self, others: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The same, and the relative errors (problems,): with M A' = N - ridge A' an error is tr(W C W') - tr(A N) -
        ridge |A|^2."""
        rows = self.products.rows([factor.to(self.weight.dtype) for factor in others])
        unit, weighted, scale = self._normalised(rows)
        solution, overlap = self._solve(unit, weighted)
        squared, ridge = solution.square(), self.ridge
        price = (
            self._sums(squared * ridge.view(-1, 1, 1))
            if isinstance(ridge, Tensor)
            else self._sums(squared).double() * ridge
        )
        explained = self._sums(solution * overlap).double() + price.double()
        factors = [factor.double() for factor in others]
        shape = self.shapes[self.split.position]
        factors.insert(self.split.position, self.split.factor(self.form, (solution * scale).mT.double(), shape))
        return factors, (self.energies - explained) / self._scales

    def _sums(self, products: Tensor) -> Tensor:
        """Of (groups, ...) the sums of each problem (problems,)."""
        count = len(self.energies)
        return products.sum().view(1) if count == 1 else products.unflatten(0, (count, -1)).sum((1, 2, 3))

    def _normalised(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of unit norm in C, their product with C, and the scales; one scale for groups that share a factor.

        A row whose norm in C is rounding, since C sees nothing of it, has the scale 0 and takes no part.
        """
        weighted = self.products.times_norm(rows)
        squared = (rows * self.products.own(weighted)).sum(-1, keepdim=True)
        rounding = self.rounding * rows.square().sum(-1, keepdim=True)
        if self.split.one:
            squared, rounding = squared.sum(0, keepdim=True), rounding.sum(0, keepdim=True)
        seen = squared > rounding.clamp_min(torch.finfo(rows.dtype).tiny)
        scale = torch.where(seen, squared, torch.ones_like(squared)).rsqrt() * seen
        unit = rows * scale
        return unit, unit if weighted is rows else weighted.mul_(scale), scale

    def _solve(self, unit: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
        """A' (groups or 1, s, out), and N = B C W'."""
        gram, overlap = self.products.gram(weighted, unit), self.products.overlap(weighted, unit)
        if self.split.one:
            gram, overlap = gram.sum(0, keepdim=True), overlap.sum(0, keepdim=True)
        ridge = self.ridge.to(gram.dtype).unsqueeze(-1) if isinstance(self.ridge, Tensor) else self.ridge
        gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return solve_positive(gram, overlap), overlap


class _Flat:
    """Reduced problems as functions of one vector (problems, unknowns) each, all factors one after another."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection

    def __call__(self, unknowns: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = self.projection.values_and_gradients(self.parts(unknowns))
        return values, self.flat(gradients)

    def take(self, kept: Tensor) -> "_Flat":
        return _Flat(self.projection.take(kept))

    def flat(self, factors: Sequence[Tensor]) -> Tensor:
        return torch.cat([factor.reshape(len(self.projection.energies), -1) for factor in factors], 1)

    def parts(self, unknowns: Tensor) -> list[Tensor]:
        shapes = self.projection.other_shapes
        parts = unknowns.split([prod(shape) // len(unknowns) for shape in shapes], 1)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
