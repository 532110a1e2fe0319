"""Keep the terms of a fit small: the error-preserving correction of Phan et al. (ECCV 2020).

Among all fits of nearly the same error the one with the smallest sum of squared norms of its rank-one terms is wanted:

    min  sum_r |a_r|^2 |b_r|^2 |c_r|^2 ...    subject to    error <= (1 + tolerance) * best error

The price of that sum which meets the bound is found by bisection; at each price variable projection minimises error
plus price times sum. Norms are those of the problem, in which the weight itself has norm one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.solvers.continuation import descended
from polyad.solvers.elimination import Elimination
from polyad.solvers.found import Frame, elimination_of, measured
from polyad.solvers.problem import Problem
from polyad.solvers.projection import Projection

TOLERANCE = 0.01
"""Share by which the error may rise."""

FLOOR = 1e-6
"""An error below this may rise to a hundredth of it: an exact fit has no error to take a share of."""

CHEAPEST, DEAREST = 1e-6, 1.0
"""Range of the prices tried, relative to the error."""

HALVINGS = 6
"""Steps of the bisection over the logarithm of the price."""


def most(error: float) -> float:
    """The error that a correction of a fit may have."""
    return (1 + TOLERANCE) * max(error, FLOOR)


def norm_bounded(
    form: Decomposition,
    split: Elimination,
    problem: Problem,
    sizes: dict[str, int],
    factors: Sequence[Tensor],
    limit: float,
    steps: int,
) -> list[Tensor]:
    """Factors of nearly the same error whose terms are as small as it allows.

    Args:
        split: how the form's equation parts.
        problem: in whitened coordinates.
        sizes: of the letters of the view.
        factors: the fit to correct.
        limit: relative error that it may have.
        steps: L-BFGS iterations at each price.
    """
    kept = list(factors)
    low, high = CHEAPEST * limit, DEAREST * limit
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5
        projection = Projection(form, split, problem, sizes, [tuple(f.shape) for f in factors], ridge=price)
        found = projection.refine(kept, steps)
        if problem.relative(form.contracted(found).reshape(problem.weight.shape)) <= limit:
            kept, low = found, price
        else:
            high = price
    return kept


def has_large_terms(form: Decomposition) -> bool:
    """Whether the terms of its fits may grow and cancel each other, and `settled` makes them smaller.

    Terms of two factors are those of a matrix, whose best ones stand at right angles.
    """
    many = form.term_letter is not None and len(form.letters) > 2
    return many and not form.reorders and elimination_of(form) is not None


def settled(
    form: Decomposition, layer: LayerSpec, problem: Problem, factors: Sequence[Tensor], price: float, steps: int
) -> tuple[Tensor, ...]:
    """Factors of nearly the same weight with smaller terms, by one descent at a price that is given.

    Where terms many times as large as the weight cancel each other, as after thorough fits, a small change of a factor
    is a large one of the weight, and no rate of a training fits.

    Args:
        form: one that `has_large_terms`.
        problem: the weight that the factors make, in the norm of what comes in.
        factors: as a `Fit` has them.
        price: of the squared norms of the terms, both relative to the energy of the weight.
        steps: L-BFGS iterations.
    """
    split = elimination_of(form)
    assert split is not None
    frame = Frame.of(form, layer, problem)
    start = frame.entered(form, factors)
    sizes, shapes = form.sizes(layer), [tuple(factor.shape) for factor in start]
    projection = Projection(form, split, frame.view.problem, sizes, shapes, ridge=price)
    found = descended(form, projection, start, steps)
    return frame.left(form, layer, measured(form, frame.view, (), found)).factors


def term_norms(form: Decomposition, factors: Sequence[Tensor]) -> Tensor:
    """Squared norms (groups, rank) of the terms of a sum of rank-one terms: the products over the factors.

    Args:
        factors: of a form with a letter that counts terms.
    """
    letter = form.term_letter
    if letter is None:
        raise ValueError(f"{form.name} is no sum of rank-one terms.")
    squared = []
    for letters, factor in zip(form.letters, factors, strict=True):
        moved = factor.movedim(letters.index(letter) + 1, 1)
        squared.append(moved.flatten(2).square().sum(-1) if moved.dim() > 2 else moved.square())
    return torch.stack(torch.broadcast_tensors(*squared)).prod(0)
