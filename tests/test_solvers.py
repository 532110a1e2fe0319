"""The solver: exact gradients, optimal where optimality is known, no worse than an independent implementation."""

import numpy as np
import pytest
import tensorly as tl
import torch
from scipy.optimize import check_grad
from tensorly.decomposition import parafac, partial_tucker

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.solvers import Problem, fit
from polyad.solvers.fit import elimination_of
from polyad.solvers.projection import RIDGE, Projection

CONV = LayerSpec(
    kind="conv", in_features=8, out_features=12, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)
)
RANKS = {"svd": (5,), "spatial_svd": (6,), "tucker2": (6, 4), "cp": (9,)}


def problem(seed: int, *, plain: bool = False, groups: int = 1) -> Problem:
    """A weight (groups, 12, 72) with decaying structure, and a norm with correlated, unequal inputs."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    weight = normal(groups, 12, 6) @ normal(groups, 6, 72) + 0.3 * normal(groups, 12, 72)
    inputs = normal(groups, 72, 200) * normal(groups, 72, 1).exp() + 2 * normal(groups, 1, 200)
    return Problem(weight, None if plain else inputs @ inputs.mT / 200)


@pytest.mark.parametrize("plain", [True, False], ids=["weights", "inputs"])
@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_that_of_the_value(form: str, plain: bool) -> None:
    given = problem(0, plain=plain, groups=2)
    layer = CONV.model_copy(update={"groups": 2, "in_features": 16, "out_features": 24})
    split, rank = elimination_of(FORMS[form]), RANKS[form]
    shapes = FORMS[form].factor_shapes(layer, rank)
    reduced = Projection(FORMS[form], split, given, FORMS[form].sizes(layer), shapes)
    size = sum(int(np.prod(shape)) for at, shape in enumerate(shapes) if at != split.position)
    x = np.random.default_rng(0).standard_normal(size)
    error = check_grad(lambda v: reduced._value_and_gradient(v)[0], lambda v: reduced._value_and_gradient(v)[1], x)
    assert error < 1e-5 * np.linalg.norm(reduced._value_and_gradient(x)[1])


@pytest.mark.parametrize("seed", range(3))
def test_svd_reaches_the_bound_of_eckart_and_young_in_any_norm(seed: int) -> None:
    given = problem(seed)
    values, vectors = torch.linalg.eigh(given.matrix)
    whitened = given.weight @ (vectors * values.clamp_min(0).sqrt().unsqueeze(-2))
    energy = torch.linalg.svdvals(whitened)[0].square()
    found = fit(FORMS["svd"], CONV, given, (5,))
    assert found.error == pytest.approx(float(energy[5:].sum() / energy.sum()), rel=1e-4)


@pytest.mark.parametrize("form", [name for name in FORMS if name != "svd"])
def test_the_full_norm_is_worth_its_refinement(form: str) -> None:
    """The refined fit beats the whitened start, and that beats the fit that looks at the weights alone."""
    given = problem(1)
    plain = fit(FORMS[form], CONV, Problem(given.weight, None), RANKS[form])
    blind = given.relative(FORMS[form].reconstruct(plain.factors).flatten(2))
    start, refined = (fit(FORMS[form], CONV, given, RANKS[form], steps=steps).error for steps in (0, 200))
    assert refined < 0.9 * start < start < blind


@pytest.mark.parametrize("form", ["cp", "tucker2"])
def test_no_worse_than_tensorly_in_the_plain_norm(form: str) -> None:
    """In the median; on one tensor either may stop in a worse one of CP's local optima."""
    ratios = []
    for seed in range(6):
        given = problem(seed, plain=True)
        tensor = given.weight.reshape(12, 8, 9).numpy()
        if form == "cp":
            theirs = tl.cp_to_tensor(parafac(tensor, RANKS["cp"][0], n_iter_max=300, random_state=seed, init="svd"))
        else:
            (core, factors), _ = partial_tucker(tensor, list(RANKS["tucker2"]), modes=[0, 1], n_iter_max=100)
            theirs = tl.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
        error = np.square(tensor - theirs).sum() / np.square(tensor).sum()
        ratios.append(fit(FORMS[form], CONV, given, RANKS[form], steps=2000).error / error)
    assert max(ratios) < 1.1 and float(np.median(ratios)) < 1.005, ratios


def test_terms_do_not_grow_while_they_cancel() -> None:
    """A tensor of rank 3 and border rank 2: without the ridge its CP of rank 2 diverges (de Silva and Lim 2008)."""
    generator = torch.Generator().manual_seed(0)
    a, b, c, x, y, z = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (12, 8, 9) * 2)
    tensor = sum(torch.einsum("o,i,k->oik", *term) for term in ((x, b, c), (a, y, c), (a, b, z)))
    found = fit(FORMS["cp"], CONV, Problem(tensor.reshape(1, 12, 72), None), (2,), steps=2000)
    out, inp, kernel = found.factors
    terms = out.norm(dim=1) * inp.norm(dim=1) * kernel.norm(dim=1)
    assert found.error < 0.05
    assert float(terms.square().sum()) < float(tensor.square().sum()) / RIDGE


def test_zero_weights_stay_zero() -> None:
    for form in FORMS:
        found = fit(FORMS[form], CONV, Problem(torch.zeros(1, 12, 72, dtype=torch.float64), None), RANKS[form])
        assert found.error == 0
        assert not FORMS[form].reconstruct(found.factors).any()
