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
