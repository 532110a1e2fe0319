"""Variable projection with a falling price of the terms' norms: the way around swamps.

While terms grow and cancel each other a descent crawls through a nearly flat valley (a swamp). A price on their norms
that falls in stages keeps it out: each stage starts from terms that are still moderate (Navasca, De Lathauwer and
Kindermann, "Swamp Reducing Technique for Tensor Decomposition", EUSIPCO 2008). Prices are relative to the error of the
start, so that tensors with steep spectra, whose errors are tiny, are fitted as well as others; and since value never
rises in a stage, the last price bounds the sum of squared norms of the terms.
"""

from collections.abc import Sequence
from functools import partial
from math import inf

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.plain.accelerated import accelerated
from polyad.solvers.conditioning import conditionable, conditioned
from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import Problem
from polyad.solvers.projection import Projection

PRICES = (1e-2, 1e-4, 1e-6)
"""Of the squared norms of the terms, per stage, relative to the error of the start."""

STAGE = 30
"""L-BFGS iterations that a stage needs at least; with fewer in all, and for forms that are no sums of rank-one terms,
the last stages alone are gone through."""

LONGEST, WORTHWHILE = 100, 0.01
"""L-BFGS iterations after which a sum of terms has its coordinates chosen anew (conditioning.py), and the share of the
error that so many of them have to gain for the last stage to go on."""

CHEAPEST = 1e-11
"""Smallest price: below it rounding in the Gram matrix of the rows would count as information."""

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
    each = min(LONGEST, steps // stages) if conditionable(form) else steps // stages
    shapes, found = [tuple(factor.shape) for factor in factors], list(factors)
    if form.canonical and problem.matrix is None:
        found = in_plain_norm(form, sizes, problem, factors, steps)
    more = steps // each - stages if each else 0
    for at, price in enumerate([*PRICES[-stages:], *PRICES[-1:] * more]):
        projection = Projection(form, split, problem, sizes, shapes, ridge=max(price * error, CHEAPEST))
        before = error_of(form, problem, found) if at >= stages else inf
        found = descended(form, projection, found, each)
        if at >= stages and error_of(form, problem, found) > (1 - WORTHWHILE) * before:
            break
    return found


def descended(form: Decomposition, projection: Projection, factors: Sequence[Tensor], steps: int) -> list[Tensor]:
    """All factors, after at most `steps` iterations of L-BFGS at one price, in the coordinates that suit the form."""
    refine = partial(conditioned, projection) if conditionable(form) else projection.refine
    return refine(rescaled(form, projection, factors), steps)


def in_plain_norm(
    form: Decomposition,
    sizes: dict[str, int],
    problem: Problem,
    factors: Sequence[Tensor],
    sweeps: int,
    gain: float = 1e-4,
    problems: int = 1,
) -> list[Tensor]:
    """Factors of a sum of rank-one terms after sweeps of accelerated alternating least squares, blind to C; of several
    problems, stacked along the groups, abreast."""
    order = [form.view.index(letters[0]) for letters in form.letters]
    target = problem.single.weight.reshape(-1, *(sizes[letter] for letter in form.view))
    target = target.permute(0, *(axis + 1 for axis in order))
    found = accelerated(target, [factor.float() for factor in factors], sweeps, gain, problems)
    return [factor.double() for factor in found]


def error_of(form: Decomposition, problem: Problem, factors: Sequence[Tensor]) -> float:
    """Relative error of factors, good enough for a comparison."""
    return problem.nearly(form.contracted(factors).reshape(problem.weight.shape))


def rescaled(form: Decomposition, projection: Projection, factors: Sequence[Tensor]) -> list[Tensor]:
    """`scaled_alike` with the best output factor, which says how strong a term is."""
    position = projection.split.position
    if form.term_letter is None or any(form.shared):
        return list(factors)
    completed = projection.completed([factor for at, factor in enumerate(factors) if at != position])
    return scaled_alike(form, completed)


def scaled_alike(form: Decomposition, factors: Sequence[Tensor]) -> list[Tensor]:
    """The terms of a sum of rank-one terms with slices as long as the term is strong.

    The reduced error depends on directions alone, and its curvature along a unit slice grows with the square of the
    term's norm: with slices in that proportion it is nearly the same for all terms, and L-BFGS starts well conditioned.
    """
    letter = form.term_letter
    if letter is None or any(form.shared):
        return list(factors)
    norms = []
    for letters, factor in zip(form.letters, factors, strict=True):
        others = [at for at, other in enumerate(letters, 1) if other != letter]
        norms.append(factor.square().sum(others, keepdim=True).sqrt())
    strength = torch.stack([norm.flatten(1) for norm in norms]).prod(0)
    strength = (strength / strength.amax(-1, keepdim=True).clamp_min(1e-300)).clamp_min(WEAKEST)
    return [
        factor * strength.view(norm.shape) / torch.where(norm > 0, norm, torch.ones_like(norm))
        for factor, norm in zip(factors, norms, strict=True)
    ]
