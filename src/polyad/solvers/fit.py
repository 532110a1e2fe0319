"""Fit the factors of a form to a weight in a norm: `fit` at one rank, `fit_path` along rising ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from polyad.decompositions.base import BATCH, Decomposition
from polyad.layers import LayerSpec
from polyad.records import Rank
from polyad.solvers.elimination import Elimination
from polyad.solvers.growth import grow
from polyad.solvers.problem import Problem, Whitened
from polyad.solvers.projection import Projection

EXACT = 1e-12
"""Relative error below which there is nothing to refine."""

elimination_of = cache(Elimination.of)


@dataclass(frozen=True)
class Fit:
    """Factors (groups, ...) float64, balanced, and their relative error in the norm of the problem."""

    rank: Rank
    factors: tuple[Tensor, ...]
    error: float


def fit(form: Decomposition, layer: LayerSpec, problem: Problem, rank: Rank, *, steps: int = 100) -> Fit:
    """The best factors of one rank that the solver finds; the same input gives the same factors.

    Args:
        layer: the layer whose weight it is.
        problem: weight (groups, out, n) and norm.
        rank: the rank.
        steps: at most so many L-BFGS iterations.

    Raises:
        FormError: the form refuses the layer or has no such rank.
    """
    return fit_path(form, layer, problem, [rank], steps=steps)[0]


def fit_path(
    form: Decomposition, layer: LayerSpec, problem: Problem, ranks: Sequence[Rank], *, steps: int = 100
) -> list[Fit]:
    """Fits at several ranks, each warm-started from the one before; the error never rises with the rank.

    A plain algorithm starts in mode-wise whitened coordinates; L-BFGS over all factors but the output factor, which is
    eliminated in closed form, refines in the full norm.
    """
    for rank in ranks:
        form.check(layer, rank)
    view = problem.whitened(form.sizes(layer))
    fits, previous = [], None
    for rank in ranks:
        previous = _fit_one(form, layer, view, rank, previous, steps)
        factors = form.balanced(_unwhiten(form, view, previous.factors))
        fits.append(Fit(rank, tuple(factors), previous.error))
    return fits


def _fit_one(
    form: Decomposition, layer: LayerSpec, view: Whitened, rank: Rank, previous: Fit | None, steps: int
) -> Fit:
    """The best of the plain start and its refinement; grown from the smaller rank where that is better."""
    start = _measured(form, view, rank, form.start(view.target, rank))
    if start.error < EXACT or (view.problem.matrix is None and form.start_is_optimal):
        return start
    origin = start.factors
    if previous is not None and form.additive:
        origin = grow(form, view, previous.factors, rank)
    shapes = form.factor_shapes(layer, rank)
    projection = Projection(form, elimination_of(form), view.problem, form.sizes(layer), shapes)
    refined = _measured(form, view, rank, projection.refine(origin, steps))
    return min(start, refined, key=lambda found: found.error)


def _measured(form: Decomposition, view: Whitened, rank: Rank, factors: Sequence[Tensor]) -> Fit:
    error = view.problem.relative(form.reconstruct(factors).flatten(2))
    return Fit(rank, tuple(factors), error)


def _unwhiten(form: Decomposition, view: Whitened, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Undo the whitening of each mode in the factor that carries it."""
    result = list(factors)
    modes = form.view.replace("o", "")
    for letter, undo in zip(modes, view.undo, strict=bool(view.undo)):
        at = next(at for at, letters in enumerate(form.inputs) if letter in letters)
        letters = BATCH + form.inputs[at]
        result[at] = torch.einsum(f"{letters},{BATCH}{letter}Y->{letters.replace(letter, 'Y')}", result[at], undo)
    return tuple(result)
