"""Variable projection with a falling price of the terms' norms: the way around swamps.

While terms grow and cancel each other a descent crawls through a nearly flat valley (a swamp). A price on their norms
that falls in stages keeps it out: each stage starts from terms that are still moderate (Navasca, De Lathauwer and
Kindermann, "Swamp Reducing Technique for Tensor Decomposition", EUSIPCO 2008). Prices are relative to the error of the
start, so that tensors with steep spectra, whose errors are tiny, are fitted as well as others; and since value never
rises in a stage, the last price bounds the sum of squared norms of the terms.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.solvers.descent import BRIEF
from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import Problem
from polyad.solvers.projection import Projection

PRICES = (1e-2, 1e-4, 1e-6)
"""Of the squared norms of the terms, per stage, relative to the error of the start."""

STAGE = 30
"""L-BFGS iterations that a stage needs at least; with fewer in all, and for forms that are no sums of rank-one terms,
the last stages alone are gone through."""

CHEAPEST = 1e-11
"""Smallest price: below it rounding in the Gram matrix of the rows would count as information."""

SINGLE = 3e-3
"""A descent for comparison whose start errs more than this is computed in float32: products take half the time, and
rounding (about 1e-6 of the weight's energy) does not show."""

ROUNDING = 3e-6
"""Smallest price in float32."""

AFFORDABLE, LEAST = 25e9, 4
"""Multiply-accumulates with C (about a second) that one descent for comparison may take, and the L-BFGS iterations that
it has however long they take: layers of 512 channels, whose patches have thousands of entries, have these alone."""

WEAKEST = 1e-3
"""Terms weaker than this share of the strongest are scaled like it."""


def refined(
    form: Decomposition,
    split: Elimination,
    problem: Problem,
    sizes: dict[str, int],
    factors: Sequence[Tensor],
    steps: int,
) -> list[Tensor]:
    """All factors, after at most `steps` iterations of L-BFGS from these.

    Args:
        split: how the form's equation parts.
        problem: in whitened coordinates.
        sizes: of the letters of the view.
    """
    error = min(1.0, problem.relative(form.contracted(factors).reshape(problem.weight.shape)))
    stages = min(len(PRICES), max(1, steps // STAGE)) if form.term_letter else 1
    shapes, found = [tuple(factor.shape) for factor in factors], list(factors)
    for price in PRICES[-stages:]:
        projection = Projection(form, split, problem, sizes, shapes, ridge=max(price * error, CHEAPEST))
        found = projection.refine(rescaled(form, projection, found), steps // stages)
    return found


def compared(
    form: Decomposition,
    split: Elimination,
    problem: Problem,
    sizes: dict[str, int],
    factors: Sequence[Tensor],
    *,
    error: float,
    steps: int,
) -> list[Tensor]:
    """Factors good enough to say which form and rank is worth more: a descent that ends where little is gained.

    A sum of terms, whose plain starts are far from the best fit in the plain norm of the whitened coordinates, is
    brought nearer to that first: an evaluation there needs no product with C.

    Args:
        error: relative error of the factors.
    """
    shapes, found = [tuple(factor.shape) for factor in factors], list(factors)
    price = PRICES[-1] * error
    if error > SINGLE:
        problem, price = problem.single, max(price, ROUNDING)
    if problem.matrix is not None and form.additive and not form.start_is_optimal:
        plain = Projection(form, split, Problem(problem.weight, None), sizes, shapes, ridge=price)
        found = plain.refine(rescaled(form, plain, found), steps, BRIEF)
    projection = Projection(form, split, problem, sizes, shapes, ridge=max(price, CHEAPEST))
    affordable = max(LEAST, int(AFFORDABLE / projection.work))
    return projection.refine(rescaled(form, projection, found), min(steps, affordable), BRIEF)


def error_of(form: Decomposition, problem: Problem, factors: Sequence[Tensor]) -> float:
    """Relative error of factors, in float32 where that is exact enough for a comparison."""
    approximation = form.contracted(factors).reshape(problem.weight.shape)
    quick = problem.single.relative(approximation.float())
    return quick if quick > SINGLE else problem.relative(approximation)


def rescaled(form: Decomposition, projection: Projection, factors: Sequence[Tensor]) -> list[Tensor]:
    """The terms of a sum of rank-one terms with slices as long as the term is strong.

    The reduced error depends on directions alone, and its curvature along a unit slice grows with the square of the
    term's norm: with slices in that proportion it is nearly the same for all terms, and L-BFGS starts well conditioned.
    """
    letter, position = form.term_letter, projection.split.position
    if letter is None or any(form.shared):
        return list(factors)
    completed = projection.completed([factor for at, factor in enumerate(factors) if at != position])
    norms = []
    for letters, factor in zip(form.letters, completed, strict=True):
        others = [at for at, other in enumerate(letters, 1) if other != letter]
        norms.append(factor.square().sum(others, keepdim=True).sqrt())
    strength = torch.stack([norm.flatten(1) for norm in norms]).prod(0)
    strength = (strength / strength.amax(-1, keepdim=True).clamp_min(1e-300)).clamp_min(WEAKEST)
    return [
        factor * strength.view(norm.shape) / torch.where(norm > 0, norm, torch.ones_like(norm))
        for factor, norm in zip(completed, norms, strict=True)
    ]
