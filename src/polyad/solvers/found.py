"""What a fit is, and the coordinates in which it is looked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import inf, isfinite, nan

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.records import Rank
from polyad.solvers.closed import is_matrix_product, output_components
from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import Problem, Whitened
from polyad.solvers.search import PLAIN
from polyad.solvers.transform import along

EXACT = 1e-12
"""Relative error below which there is nothing to refine."""

elimination_of = cache(Elimination.of)


@dataclass(frozen=True)
class Fit:
    """Factors (groups, ...) float64, balanced, and their relative error in the norm of the problem.

    For a form that sorts the outputs the last factor is their order (groups, out). `start` says which of several starts
    they come from.
    """

    rank: Rank
    factors: tuple[Tensor, ...]
    error: float
    start: str = PLAIN


@dataclass(frozen=True)
class Frame:
    """The coordinates of a fit: weight and norm in a moderate range, outputs sorted where the form wants it, whitened.

    Attributes:
        scale: what the weight was divided by.
        order: of the outputs (groups, out), or None.
    """

    view: Whitened
    scale: float
    order: Tensor | None

    @classmethod
    def of(cls, form: Decomposition, layer: LayerSpec, problem: Problem, order: Tensor | None = None) -> "Frame":
        """Those of a problem; the order of a form that reorders is found, or given."""
        problem, scale = problem.moderate
        if form.reorders:
            order = form.sorted_outputs(problem.weight, layer) if order is None else order
            problem = problem.reordered(order)
        return cls(problem.whitened(form, layer), scale, order)

    def entered(self, form: Decomposition, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Factors of the weight in these coordinates; without the order."""
        return scaled(_applied(form, self.view.factors, factors), 1 / self.scale)

    def left(self, form: Decomposition, layer: LayerSpec, found: Fit) -> Fit:
        """A fit in these coordinates as one of the weight."""
        factors = form.balanced(layer, scaled(_applied(form, self.view.undo, found.factors), self.scale))
        order = () if self.order is None else (self.order,)
        return replace(found, factors=(*factors, *order))


def closed(form: Decomposition, problem: Problem) -> bool:
    """Whether there is a closed form."""
    return problem.left is None and is_matrix_product(form, elimination_of(form))


def components(form: Decomposition, layer: LayerSpec, problem: Problem, ranks: Sequence[Rank]) -> list[Fit]:
    """All ranks of a matrix factorisation at once."""
    problem, scale = problem.moderate
    found = output_components(form, problem, [form.factor_shapes(layer, rank) for rank in ranks])
    return [
        Fit(rank, tuple(form.balanced(layer, scaled(factors, scale))), error)
        for rank, (factors, error) in zip(ranks, found, strict=True)
    ]


def measured(form: Decomposition, view: Whitened, rank: Rank, factors: Sequence[Tensor], start: str = PLAIN) -> Fit:
    """Factors with their error, in the coordinates of the view."""
    error = view.problem.relative(form.contracted(factors).reshape(view.problem.weight.shape))
    return Fit(rank, tuple(factors), error, start)


def error_key(found: Fit) -> float:
    """The error as a key: one that is no number is the worst."""
    return found.error if isfinite(found.error) else inf


def no_worse_than_zero(form: Decomposition, view: Whitened, found: Fit) -> Fit:
    """A start that errs more than zeros would, as one from the plain norm may, at the multiple of it that errs least.

    For W^ that is <W, W^> / <W^, W^> in the norm, which leaves 1 - <W, W^>^2 / (<W, W> <W^, W^>) of the error.
    """
    if found.error <= 1:
        return found
    approximation = form.contracted(found.factors).reshape(view.problem.weight.shape)
    weighted = view.problem.weighted(approximation)
    along, length = float((weighted * view.problem.weight).sum()), float((weighted * approximation).sum())
    share = along / length if isfinite(along) and isfinite(length) and length > 0 else nan
    if isfinite(share):
        smaller = measured(form, view, found.rank, scaled(found.factors, share), found.start)
        if smaller.error <= 1:
            return smaller
    zeros = tuple(torch.zeros_like(factor) for factor in found.factors)
    return Fit(found.rank, zeros, 1.0 if view.problem.energy > 0 else 0.0, found.start)


def scaled(factors: Sequence[Tensor], scale: float) -> tuple[Tensor, ...]:
    """A multiple of the weight that factors stand for."""
    return tuple(factors) if scale == 1 else (factors[0] * scale, *factors[1:])


def _applied(form: Decomposition, changes: Mapping[str, Tensor], factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Whitening of each mode, or what undoes it, in the factor that carries the mode."""
    result = list(factors)
    for letter, undo in changes.items():
        at = next(at for at, letters in enumerate(form.letters) if letter in letters)
        result[at] = along(result[at], undo, form.letters[at].index(letter) + 1)
    return tuple(result)
