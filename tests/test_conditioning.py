"""Coordinates in which a sum of terms curves alike in all directions."""

import pytest
import torch

from polyad.decompositions.base import FORMS
from polyad.solvers import Problem
from polyad.solvers.conditioning import conditionable, conditioned, gamma
from polyad.solvers.found import elimination_of
from polyad.solvers.projection import Projection
from polyad.solvers.search import random_start
from test_solvers import CONV, middle, problem

SUMS = [name for name in FORMS if conditionable(FORMS[name])]


def test_which_forms_are_sums_of_terms_with_factors_of_their_own() -> None:
    assert {"cp", "cp4", "block_term"} <= set(SUMS)
    assert not {"tucker2", "tt", "filter_cp", "coupled_cp", "stack_cp"} & set(SUMS)


@pytest.mark.parametrize("name", SUMS)
def test_gamma_is_the_curvature_of_the_squared_error(name: str) -> None:
    """A change D of one factor changes the weight by tr(D Gamma D') in the plain norm."""
    form, generator = FORMS[name], torch.Generator().manual_seed(0)
    layer = CONV if form.refuses(CONV) is None else pytest.skip(f"{name} refuses the layer")
    shapes = form.factor_shapes(layer, middle(name, layer))
    factors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    for at, letters in enumerate(form.letters):
        ranks = "".join(letter for letter in letters if letter not in form.view)
        modes = [letter for letter in letters if letter in form.view]
        change = torch.randn(shapes[at], generator=generator, dtype=torch.float64)
        order = [0, *(1 + letters.index(letter) for letter in [*modes, *ranks])]
        found = gamma(form, factors, at, ranks)
        rows = change.permute(order).reshape(1, -1, found.shape[-1])
        moved = form.contracted([*factors[:at], change, *factors[at + 1 :]])
        assert torch.allclose((rows @ found * rows).sum(), moved.square().sum())


@pytest.mark.parametrize("name", ["cp", "block_term"])
def test_a_descent_through_a_swamp_gets_further(name: str) -> None:
    """Terms that resemble each other: the same iterations from the same factors leave a tenth less of the error."""
    form, given = FORMS[name], alike()
    split, shapes = elimination_of(form), form.factor_shapes(CONV, middle(name, CONV))
    assert split is not None
    projection = Projection(form, split, given, form.sizes(CONV), shapes, ridge=1e-11)
    start = projection.refine(random_start(form, shapes, {}, 1), 10)
    plain, better = (
        given.relative(form.contracted(found).reshape(given.weight.shape))
        for found in (projection.refine(start, 60), conditioned(projection, start, 60))
    )
    assert better < 0.9 * plain


def alike() -> Problem:
    """The weight of a sum of terms close to each other."""
    generator = torch.Generator().manual_seed(2)

    def near(size: int) -> torch.Tensor:
        return torch.randn(size, 1, generator=generator).double() + 0.3 * torch.randn(size, 24, generator=generator)

    weight = torch.einsum("or,ir,kr->oik", near(12), near(8), near(9)).reshape(1, 12, 72)
    return Problem(weight, problem(3).matrix)


def test_factors_of_dead_terms_stay_finite() -> None:
    form, given = FORMS["cp"], problem(0)
    split, shapes = elimination_of(form), form.factor_shapes(CONV, (4,))
    assert split is not None
    projection = Projection(form, split, given, form.sizes(CONV), shapes)
    zeros = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    assert all(factor.isfinite().all() for factor in conditioned(projection, zeros, 20))
