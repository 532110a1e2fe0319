"""The closed form of matrix factorisations: the optimum in any norm, at every rank, without inverting anything."""

import pytest
import torch

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.solvers import Problem, fit_path
from polyad.solvers.closed import is_matrix_product
from polyad.solvers.found import elimination_of

LAYER = LayerSpec(kind="linear", in_features=20, out_features=12)


def given(kind: str, groups: int = 1) -> Problem:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(groups, 12, 20, generator=generator, dtype=torch.float64)
    inputs = torch.randn(groups, 20, 60, generator=generator, dtype=torch.float64)
    matrix = {"plain": None, "diagonal": inputs.square().mean(-1), "full": inputs @ inputs.mT / 60}
    matrix["singular"] = inputs[..., :5] @ inputs[..., :5].mT
    return Problem(weight, matrix[kind])


def test_which_forms_it_is() -> None:
    assert [name for name in FORMS if is_matrix_product(FORMS[name], elimination_of(FORMS[name]))] == ["svd"]


@pytest.mark.parametrize("kind", ["plain", "diagonal", "full", "singular"])
def test_every_rank_reaches_the_bound_of_eckart_and_young(kind: str) -> None:
    problem = given(kind)
    matrix = torch.eye(20, dtype=torch.float64)[None] if problem.matrix is None else problem.matrix
    matrix = torch.diag_embed(matrix) if matrix.dim() == 2 else matrix
    values, vectors = torch.linalg.eigh(matrix)
    energy = torch.linalg.svdvals(problem.weight @ (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)))[0].square()
    for fitted in fit_path(FORMS["svd"], LAYER, problem, [(rank,) for rank in (1, 3, 7, 12)]):
        bound = float(energy[fitted.rank[0] :].sum() / energy.sum())
        found = problem.relative(FORMS["svd"].reconstruct(fitted.factors))
        assert found == pytest.approx(bound, rel=1e-8, abs=1e-12)
        assert fitted.error == pytest.approx(bound, rel=1e-6, abs=1e-12)


def test_groups_are_fitted_each() -> None:
    problem = given("full", groups=3)
    layer = LAYER.model_copy(
        update={"kind": "conv", "kernel": (1,), "stride": (1,), "padding": (0,), "dilation": (1,), "groups": 3}
        | {"in_features": 60, "out_features": 36}
    )
    (together,) = fit_path(FORMS["svd"], layer, problem, [(4,)])
    weight = FORMS["svd"].reconstruct(together.factors)
    for group in range(3):
        alone = Problem(problem.weight[group : group + 1], problem.matrix[group : group + 1])
        (fitted,) = fit_path(FORMS["svd"], LAYER, alone, [(4,)])
        torch.testing.assert_close(FORMS["svd"].reconstruct(fitted.factors)[0], weight[group])
