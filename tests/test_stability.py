"""Fits of weights and norms that trained networks do have and textbooks leave out: dead, doubled, huge, tiny, singular.

Every factor is finite; no fit is worse than zeros, nor than its start; and its error is the one it names.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.linalg import solve_positive
from polyad.records import Rank
from polyad.solvers import Fit, Problem, fit, fit_path

DEFAULT = [name for name in FORMS if FORMS[name].default]
OUT, INPUTS, KERNEL = 6, 4, 9
N = INPUTS * KERNEL
CONV = LayerSpec(
    kind="conv", in_features=INPUTS, out_features=OUT, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)
)
SLACK = 1e-6
"""What rounding may add to a relative error."""

NAMED = 0.01
"""Share by which an error may be another than the one named: comparisons are in float32, and norms over 24 decades are
lifted a little."""

Spoil = Callable[[Tensor], Tensor]


def normal(*size: int, seed: int = 7) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scaled(share: float) -> Spoil:
    return lambda weight: weight * share


def without(filters: slice, channels: slice) -> Spoil:
    def spoil(weight: Tensor) -> Tensor:
        weight = weight.clone()
        weight[:, filters, channels] = 0
        return weight

    return spoil


WEIGHTS: dict[str, Spoil] = {
    "as they are": scaled(1),
    "zero": scaled(0),
    "tiny": scaled(1e-20),
    "huge": scaled(1e20),
    "dead filters": without(slice(0, 3), slice(None)),
    "dead channels": without(slice(None), slice(0, 2)),
    "one filter alive": without(slice(1, None), slice(None)),
    "doubled filters": lambda weight: weight[:, :1].expand_as(weight).clone(),
    "doubled channels": lambda weight: weight[:, :, :1].expand_as(weight).clone(),
    "filters from 1e-6 to 1e6": lambda weight: weight * torch.logspace(-6, 6, OUT).double()[:, None, None],
    "constant": torch.ones_like,
}


def moment(rows: Tensor) -> Tensor:
    return (rows.mT @ rows / rows.shape[-2]).unsqueeze(0)


def patches(*channels: float) -> Tensor:
    """(samples, channels * kernel), the channels of these sizes."""
    return (normal(200, INPUTS, KERNEL) * torch.tensor(channels)[:, None]).flatten(1)


NORMS: dict[str, Tensor | None] = {
    "plain": None,
    "many inputs": moment(patches(1, 1, 1, 1)),
    "one input": moment(normal(1, N)),
    "constant inputs": torch.ones(1, N, N, dtype=torch.float64),
    "no inputs": torch.zeros(1, N, N, dtype=torch.float64),
    "dead channels": moment(patches(0, 0, 1, 1)),
    "doubled channels": moment(normal(200, KERNEL).repeat(1, INPUTS)),
    "channels from 1e-6 to 1e6": moment(patches(1e-6, 1, 1e3, 1e6)),
    "tiny": moment(patches(1, 1, 1, 1)) * 1e-30,
    "huge": moment(patches(1, 1, 1, 1)) * 1e30,
    "diagonal": torch.tensor([0, 1e-12, 1, 1e12], dtype=torch.float64).repeat_interleave(KERNEL).unsqueeze(0),
}
LEFTS: dict[str, Tensor | None] = {
    "plain": None,
    "nearly singular": moment(normal(2, OUT)) + 1e-12 * torch.eye(OUT, dtype=torch.float64),
    "singular": moment(normal(1, OUT)),
    "zero": torch.zeros(1, OUT, OUT, dtype=torch.float64),
    "tiny": moment(normal(30, OUT)) * 1e-30,
}


def problem(weight: str, norm: str, left: str = "plain") -> Problem:
    return Problem(WEIGHTS[weight](normal(1, OUT, INPUTS, KERNEL)).flatten(2), NORMS[norm], LEFTS[left])


def ranks(form: str) -> list[Rank]:
    largest = FORMS[form].max_rank(CONV)
    return [tuple(max(1, round(top * share)) for top in largest) for share in (0.2, 0.6)]


def check(form: str, given: Problem, found: Fit) -> None:
    if given.energy == 0:  # a norm that sees nothing of the weight gives way to the plain one
        given = Problem(given.weight, None)
    assert all(factor.isfinite().all() for factor in found.factors)
    measured = given.relative(FORMS[form].reconstruct(found.factors).reshape(given.weight.shape))
    assert -SLACK <= found.error <= 1 + SLACK
    assert measured <= 1 + SLACK
    assert measured == pytest.approx(found.error, rel=NAMED, abs=NAMED / 10)


def check_all(form: str, given: Problem, steps: int = 20) -> None:
    """Briefly along two ranks and thoroughly at one, from its start and from factors that are there."""
    for found in fit_path(FORMS[form], CONV, given, ranks(form), steps=steps, brief=True):
        check(form, given, found)
    start, found = (fit(FORMS[form], CONV, given, ranks(form)[0], steps=count) for count in (0, steps))
    check(form, given, found)
    assert found.error <= start.error + SLACK
    further = fit(FORMS[form], CONV, given, ranks(form)[0], steps=steps, init=start.factors)
    check(form, given, further)
    assert further.error <= start.error + SLACK


@pytest.mark.parametrize("form", DEFAULT)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_whatever_the_weight_and_the_inputs(form: str, weight: str, norm: str) -> None:
    check_all(form, problem(weight, norm))


@pytest.mark.parametrize("form", DEFAULT)
@pytest.mark.parametrize("left", [name for name in LEFTS if name != "plain"])
@pytest.mark.parametrize("weight", ["as they are", "zero", "tiny", "huge", "dead filters", "doubled filters"])
def test_whatever_the_outputs(form: str, weight: str, left: str) -> None:
    check_all(form, problem(weight, "many inputs", left))


@pytest.mark.parametrize("form", DEFAULT)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    spoils=st.tuples(st.sampled_from(sorted(WEIGHTS)), st.sampled_from(sorted(WEIGHTS))),
    norm=st.sampled_from(sorted(NORMS)),
    left=st.sampled_from(sorted(LEFTS)),
)
def test_whatever_comes_together(form: str, spoils: tuple[str, str], norm: str, left: str) -> None:
    weight = WEIGHTS[spoils[1]](WEIGHTS[spoils[0]](normal(1, OUT, INPUTS, KERNEL)))
    check_all(form, Problem(weight.flatten(2), NORMS[norm], LEFTS[left]), steps=8)


@pytest.mark.parametrize("weight", ["zero", "huge", "one filter alive", "doubled channels", "constant"])
@pytest.mark.parametrize("norm", ["plain", "one input", "constant inputs", "dead channels"])
def test_a_search_from_several_starts(weight: str, norm: str) -> None:
    given = problem(weight, norm)
    check("cp", given, fit(FORMS["cp"], CONV, given, (3,), steps=100))


@pytest.mark.parametrize("form", DEFAULT)
def test_the_scale_changes_nothing(form: str) -> None:
    given, scale = problem("as they are", "many inputs"), 2.0**70  # rounding moves factors along flat valleys
    large = Problem(given.weight * scale, given.matrix / scale)
    first, second = (fit(FORMS[form], CONV, one, ranks(form)[0], steps=20) for one in (given, large))
    assert second.error == pytest.approx(first.error, rel=1e-6)
    expected, found = (FORMS[form].reconstruct(one.factors) for one in (first, second))
    assert float((found / scale - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_singular_systems_are_solved(dtype: torch.dtype) -> None:
    """Entries of a batch that are positive definite come out as ever; the others finite."""
    healthy = moment(normal(40, 5))
    one = normal(1, 5)
    matrix = torch.cat([healthy, moment(one) - 1e-7 * torch.eye(5), torch.zeros(1, 5, 5), -healthy]).to(dtype)
    right = normal(4, 5, 2).to(dtype)
    found = solve_positive(matrix, right)
    assert found.isfinite().all()
    assert torch.equal(found[:1], torch.cholesky_solve(right[:1], torch.linalg.cholesky(matrix[:1])))
