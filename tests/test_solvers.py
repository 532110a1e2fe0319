"""The solver: exact gradients, optimal where optimality is known, never worse than its start."""

import gc
import weakref

import pytest
import torch

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.records import Rank
from polyad.solvers import Problem, fit, fit_path, term_norms
from polyad.solvers.continuation import PRICES
from polyad.solvers.descent import Descent, Objective
from polyad.solvers.found import elimination_of
from polyad.solvers.problem import HUGE
from polyad.solvers.projection import Projection

CONV = LayerSpec(
    kind="conv", in_features=8, out_features=12, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)
)
MATRIX = LayerSpec(kind="linear", in_features=72, out_features=12, kernel=(), stride=(), padding=(), dilation=())
RANKS = {"svd": (5,), "spatial_svd": (6,), "tucker2": (6, 4), "cp": (9,)}
"""Forms that stand for the others where a statement needs a certain rank."""


def carrier(form: str, groups: int = 1) -> LayerSpec:
    """A convolution with weight (groups, 12, 72), or the matrix of that size for forms of matrices."""
    conv = CONV.model_copy(update={"groups": groups, "in_features": 8 * groups, "out_features": 12 * groups})
    matrix = MATRIX.model_copy(update={"stack": groups}) if groups > 1 else MATRIX
    return conv if FORMS[form].refuses(conv) is None else matrix


def middle(form: str, layer: LayerSpec) -> Rank:
    return tuple(max(1, top // 3) for top in FORMS[form].max_rank(layer))


def problem(seed: int, *, plain: bool = False, groups: int = 1) -> Problem:
    """A weight (groups, 12, 72) with decaying structure, and a norm with correlated, unequal inputs."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    weight = normal(groups, 12, 6) @ normal(groups, 6, 72) + 0.3 * normal(groups, 12, 72)
    inputs = normal(groups, 72, 200) * normal(groups, 72, 1).exp() + 2 * normal(groups, 1, 200)
    return Problem(weight, None if plain else inputs @ inputs.mT / 200)


def gradient_error(objective: Objective, factors: list[torch.Tensor]) -> float:
    """Of the directional derivative along a random direction against a central difference, relative."""
    generator = torch.Generator().manual_seed(1)
    step = [torch.randn(factor.shape, generator=generator, dtype=torch.float64) for factor in factors]
    size = 1e-6
    above, below = (
        objective([factor + sign * size * move for factor, move in zip(factors, step, strict=True)])[0]
        for sign in (1, -1)
    )
    exact = sum(float((move * part).sum()) for move, part in zip(step, objective(factors)[1], strict=True))
    return abs((above - below) / (2 * size) - exact) / abs(exact)


@pytest.mark.parametrize("plain", [True, False], ids=["weights", "inputs"])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_the_value(form: str, plain: bool) -> None:
    """Over all factors, and where there is an output factor over the others once it is eliminated."""
    layer = carrier(form, groups=2)
    if FORMS[form].refuses(layer):
        pytest.skip(f"{form} refuses it")
    given, shapes = problem(0, plain=plain, groups=2), FORMS[form].factor_shapes(layer, middle(form, layer))
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(shape, generator=generator, dtype=torch.float64) / 3 for shape in shapes]
    assert gradient_error(Descent(FORMS[form], given).value_and_gradients, factors) < 1e-4
    if split := elimination_of(FORMS[form]):
        reduced = Projection(FORMS[form], split, given, FORMS[form].sizes(layer), shapes)
        others = [factor for at, factor in enumerate(factors) if at != split.position]
        assert gradient_error(reduced.value_and_gradients, others) < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_svd_reaches_the_bound_of_eckart_and_young_in_any_norm(seed: int) -> None:
    given = problem(seed)
    values, vectors = torch.linalg.eigh(given.matrix)
    whitened = given.weight @ (vectors * values.clamp_min(0).sqrt().unsqueeze(-2))
    energy = torch.linalg.svdvals(whitened)[0].square()
    found = fit(FORMS["svd"], CONV, given, (5,))
    assert found.error == pytest.approx(float(energy[5:].sum() / energy.sum()), rel=1e-4)


@pytest.mark.parametrize("form", [name for name in RANKS if name != "svd"])
def test_the_full_norm_is_worth_its_refinement(form: str) -> None:
    """The refined fit beats the whitened start, and that beats the fit that looks at the weights alone."""
    given = problem(1)
    plain = fit(FORMS[form], CONV, Problem(given.weight, None), RANKS[form])
    blind = given.relative(FORMS[form].reconstruct(plain.factors).flatten(2))
    start, refined = (fit(FORMS[form], CONV, given, RANKS[form], steps=steps).error for steps in (0, 200))
    assert refined < 0.9 * start < start < blind


@pytest.mark.parametrize("form", [name for name in RANKS if name != "svd"])
def test_a_brief_fit_is_nearly_as_good_as_one_of_as_many_steps(form: str) -> None:
    """Good enough to compare forms by it, and its error is what it says."""
    given = problem(1)
    brief = fit(FORMS[form], CONV, given, RANKS[form], steps=20, brief=True)
    assert brief.error <= 1.1 * fit(FORMS[form], CONV, given, RANKS[form], steps=20).error
    assert given.relative(FORMS[form].reconstruct(brief.factors).flatten(2)) == pytest.approx(brief.error, rel=1e-3)


@pytest.mark.parametrize("form", ["spatial_svd", "group_svd", "tucker1", "kronecker"])
def test_starts_cut_out_of_the_largest_are_those_of_each_rank(form: str) -> None:
    given, ranks = problem(1), [(1,), (3,), (5,)]
    along = fit_path(FORMS[form], CONV, given, ranks, steps=0, brief=True)
    alone = [fit(FORMS[form], CONV, given, rank, steps=0, brief=True).error for rank in ranks]
    assert [found.error for found in along] == pytest.approx(alone, rel=1e-4)
    assert fit_path(FORMS[form], CONV, given, [], steps=0, brief=True) == []


@pytest.mark.parametrize("form", FORMS)
def test_no_fit_is_worse_than_its_start(form: str) -> None:
    layer, given = carrier(form), problem(2)
    if FORMS[form].refuses(layer):
        pytest.skip(f"{form} refuses it")
    errors = [fit(FORMS[form], layer, given, middle(form, layer), steps=steps).error for steps in (0, 30, 120)]
    assert errors[0] >= max(errors[1:]), errors


def test_a_path_is_not_searched_from_many_starts() -> None:
    """The menu fits many ranks with few steps: each is grown from the one before."""
    assert {fitted.start for fitted in fit_path(FORMS["cp"], CONV, problem(0), [(3,), (6,)], steps=20)} == {"plain"}


def test_terms_do_not_grow_while_they_cancel() -> None:
    """A tensor of rank 3 and border rank 2: without the ridge its CP of rank 2 diverges (de Silva and Lim 2008)."""
    generator = torch.Generator().manual_seed(0)
    a, b, c, x, y, z = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (12, 8, 9) * 2)
    tensor = sum(torch.einsum("o,i,k->oik", *term) for term in ((x, b, c), (a, y, c), (a, b, z)))
    found = fit(FORMS["cp"], CONV, Problem(tensor.reshape(1, 12, 72), None), (2,), steps=2000)
    assert found.error < 0.05
    assert float(term_norms(FORMS["cp"], found.factors).sum()) < float(tensor.square().sum()) / PRICES[-1]


@pytest.mark.parametrize("form", FORMS)
def test_zero_weights_stay_zero(form: str) -> None:
    layer = carrier(form)
    if FORMS[form].refuses(layer):
        pytest.skip(f"{form} refuses it")
    found = fit(FORMS[form], layer, Problem(torch.zeros(1, 12, 72, dtype=torch.float64), None), middle(form, layer))
    assert found.error == 0
    assert not FORMS[form].reconstruct(found.factors).any()


@pytest.mark.parametrize("brief", [True, False])
@pytest.mark.parametrize("form", ["spatial_svd", "group_svd", "cp", "tucker2"])
def test_views_of_a_huge_norm_in_float32_give_the_fits_of_float64(
    form: str, brief: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to where descents end: rounding is carried on by those of a menu."""
    rank = middle(form, CONV)
    exact = fit(FORMS[form], CONV, problem(1), rank, steps=40, brief=brief)
    monkeypatch.setattr("polyad.solvers.problem.HUGE", 0)
    given = problem(1)
    single = fit(FORMS[form], CONV, given, rank, steps=40, brief=brief)
    assert given.whitened(FORMS[form], CONV).problem.weight.dtype == torch.float32
    assert single.error == pytest.approx(exact.error, rel=0.03)
    assert all(factor.dtype == torch.float64 for factor in single.factors)
    assert given.relative(FORMS[form].reconstruct(single.factors).reshape(1, 12, 72)) == pytest.approx(
        single.error,
        rel=1e-2 if brief else 1e-3,  # at an error of 6e-4
    )


@pytest.mark.parametrize("plain", [True, False], ids=["weights", "inputs"])
@pytest.mark.parametrize("brief", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("huge", [True, False])
def test_a_problem_goes_with_its_last_name(
    form: str, brief: bool, plain: bool, huge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its views, gigabytes for a wide layer, are not to wait until Python looks for cycles."""
    monkeypatch.setattr("polyad.solvers.problem.HUGE", 0 if huge else HUGE)
    layer, given = carrier(form), problem(3, plain=plain)
    if FORMS[form].refuses(layer):
        pytest.skip(f"{form} refuses it")
    views = []
    gc.collect()
    gc.disable()
    try:
        fit(FORMS[form], layer, given, middle(form, layer), steps=20, brief=brief)
        views = [weakref.ref(given), *(weakref.ref(view.problem) for view in given._whitened.values())]
        del given
        assert not [view for view in views if view() is not None]
    finally:
        gc.enable()
