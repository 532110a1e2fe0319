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
from polyad.solvers.descent import BRIEF
from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import SINGLE, Problem
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

ROUNDING = 3e-6
"""Smallest price in float32."""

AFFORDABLE, LEAST = 25e9, 4
"""Multiply-accumulates with C (about a second) that one descent for comparison may take, and the L-BFGS iterations that
it has however long they take: layers of 512 channels, whose patches have thousands of entries, have these alone. After
sweeps it has one: on 64 channels of ResNet-20 one, two or four of them end within 3 % of each other."""

SWEEPS, LEAST_SWEEPS, BRIEF_GAIN = 3, 20, 0.02
"""Of accelerated alternating least squares before such a descent, so many for each of its steps, within the same limit
of work but never fewer than the second (whose fits err 8 % more there than those of 60); they end where ten of them
gain less than this share of the error."""

CANCELLED = 0.03
"""An error that is a difference of two energies in float32 is exact to about 1e-4 of itself from here on."""

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
        refine = partial(conditioned, projection) if conditionable(form) else projection.refine
        before = error_of(form, problem, found) if at >= stages else inf
        found = refine(rescaled(form, projection, found), each)
        if at >= stages and error_of(form, problem, found) > (1 - WORTHWHILE) * before:
            break
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
) -> tuple[list[Tensor], float]:
    """Factors good enough to say which form and rank is worth more, and their relative error: a descent that ends where
    little is gained.

    A sum of rank-one terms, whose plain start is far from the best fit in the plain norm of the whitened coordinates,
    is brought nearer to that first: a sweep there takes a sixth of an evaluation with C.

    Args:
        error: relative error of the factors.
    """
    shapes, found = [tuple(factor.shape) for factor in factors], list(factors)
    if swept := form.canonical and error > SINGLE:
        plain = Problem(problem.single.weight, None)
        found = in_plain_norm(form, sizes, problem, factors, _brief_sweeps(problem, shapes, steps), BRIEF_GAIN)
        error = error_of(form, plain, found)  # near that with C, and cheaper to find
        if problem.matrix is None:
            return found, error
    price = PRICES[-1] * error
    if single := error > SINGLE:
        problem, price = problem.single, max(price, ROUNDING)
    projection = Projection(form, split, problem, sizes, shapes, ridge=max(price, CHEAPEST))
    affordable = max(1 if swept else LEAST, int(AFFORDABLE / projection.work))
    found, error = projection.refined(scaled_alike(form, found), min(steps, affordable), BRIEF)
    return found, error_of(form, problem, found) if single and error < CANCELLED else error


def _brief_sweeps(problem: Problem, shapes: Sequence[tuple[int, ...]], steps: int) -> int:
    """Sweeps of alternating least squares before a descent of so many steps."""
    work = 2 * problem.weight.numel() * shapes[0][-1]
    return min(SWEEPS * steps, max(LEAST_SWEEPS, int(AFFORDABLE / work)))


def in_plain_norm(
    form: Decomposition,
    sizes: dict[str, int],
    problem: Problem,
    factors: Sequence[Tensor],
    sweeps: int,
    gain: float = 1e-4,
) -> list[Tensor]:
    """Factors of a sum of rank-one terms after sweeps of accelerated alternating least squares, blind to C."""
    order = [form.view.index(letters[0]) for letters in form.letters]
    target = problem.single.weight.reshape(-1, *(sizes[letter] for letter in form.view))
    found = accelerated(target.permute(0, *(axis + 1 for axis in order)), [f.float() for f in factors], sweeps, gain)
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
