"""Budgets that name a loss: the least share within it, in few evaluations, on data that nothing else sees."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

import polyad
from conftest import Polyad
from own_network import Own, write_own
from polyad.allocators.allocate import allocate
from polyad.budget import Budget
from polyad.data import DataSource, calibration_and_evaluation, validation_samples
from polyad.drop import CLOSE, EVALUATIONS, least_share
from polyad.errors import BudgetError, DataError
from polyad.menu import Menu
from polyad.outcome import CurvePoint, Evaluation
from polyad.records import Plan
from polyad.work import Work
from test_allocators import menu_of


def fine_menu() -> Menu:
    """Two layers that can take any per cent of their parameters, at a damage that rises steeply when they lose more."""
    widths = (40, 80)
    options = [[(w * w * k // 100, w * w * k // 80, (1 - k / 100) ** 4 / 10) for k in range(2, 100)] for w in widths]
    return menu_of(options, list(widths))


def loss(plan: Plan) -> float:
    return 100 * sum(choice.damage for choice in plan.choices)


def found(budget: Budget) -> tuple[Plan, tuple[CurvePoint, ...]]:
    """A search in which what a network loses is a hundred times its damage."""
    menu = fine_menu()

    def judge(plan: Plan) -> Evaluation:
        return Evaluation(metric="accuracy", value=90, loss=None, samples=9, difference=-loss(plan), standard_error=0.1)

    return least_share(menu, budget, lambda wanted: allocate(menu, wanted), judge)


@settings(max_examples=6, deadline=None)
@given(drop=st.floats(0.05, 15), unit=st.sampled_from(["params", "macs"]))
def test_the_least_share_within_a_drop_is_found_in_few_evaluations(drop: float, unit: str) -> None:
    budget = Budget(drop=drop) if unit == "params" else Budget(drop=drop, macs=1.0)
    plan, points = found(budget)
    assert loss(plan) <= drop and len(points) <= EVALUATIONS
    assert list(points) == sorted(points, key=lambda point: point.share)
    kept = getattr(plan, unit)
    smaller = allocate(fine_menu(), Budget(**{unit: int(kept / CLOSE**2)}))
    assert loss(smaller) > drop  # a little less does not keep within it
    assert plan.budget == str(budget) and "validation" in plan.rule


def test_limits_beside_a_drop_hold() -> None:
    plan, points = found(Budget(drop=3, params=0.7))
    assert plan.params <= 0.7 * plan.params_before and max(point.share for point in points) <= 0.7
    with pytest.raises(
        BudgetError, match=r"drop=0.1 cannot be reached: of 1 networks the best loses .* at 2\d\.\d% of"
    ):
        found(Budget(drop=0.1, params=0.3))


@pytest.mark.parametrize("text", ["drop=0", "drop=50%", "drop=-1", "drop=half", "drop="])
def test_a_drop_that_is_none_says_how_to_write_it(text: str) -> None:
    with pytest.raises(BudgetError, match=r"drop=0\.5"):
        Budget.parse(text)


def test_a_drop_is_read_and_written() -> None:
    budget = Budget.parse("drop=1.5,macs=60%")
    assert (budget.drop, budget.macs, str(budget)) == (1.5, 0.6, "drop=1.5,macs=60%")
    assert Budget.parse(str(budget)) == budget and budget.limits({"params": 10, "macs": 100}) == {"macs": 60}
    with pytest.raises(BudgetError, match="above 0"):
        Budget(drop=0)


def numbered(splits: dict[str, int]) -> DataSource:
    """Splits of so many samples each, every one another number."""
    made, first = {}, 0
    for name, size in splits.items():
        made[name] = TensorDataset(torch.arange(first, first + size).float(), torch.zeros(size))
        first += size
    return DataSource("numbers", made)


@pytest.mark.parametrize("splits", [{"train": 60, "test": 20}, {"train": 60, "validation": 30, "test": 20}])
def test_what_a_drop_is_measured_on_is_neither_calibration_nor_test(splits: dict[str, int]) -> None:
    source = numbered(splits)
    parts = [*calibration_and_evaluation(source, 25, 0), validation_samples(source, 25, 0)]
    seen = [{float(part[at][0]) for at in range(len(part))} for part in parts]
    assert seen[2] and not seen[2] & (seen[0] | seen[1])


def test_data_that_leave_nothing_to_measure_a_drop_on_are_refused() -> None:
    for splits, samples in (({"train": 60, "test": 20}, 60), ({"all": 60}, 20)):
        with pytest.raises(DataError, match="leaves no samples to measure a drop on"):
            validation_samples(numbered(splits), samples, 0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))


def test_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(1)
    images, others = torch.randn(32, 3, 8, 8), torch.randn(64, 3, 8, 8)
    with torch.no_grad():
        labelled = [(others, Net().eval()(others).argmax(1))]
    options = {
        "budget": Budget(drop=40),
        "validation": labelled,
        "forms": ["svd"],
        "damage": "relative",
        "recover": "none",
    }
    works = [Work(tmp_path / "work") for _ in range(2)]
    results = [polyad.compress(Net(), images, work=work, **options) for work in works]
    assert works[0].made["trial"] == len(results[0].report.curve) > 2 and not works[1].made
    assert works[1].taken["trial"] == works[0].made["trial"]
    assert results[0].report.curve == results[1].report.curve and results[0].plan == results[1].plan
    free = polyad.compress(Net(), images, **options)
    assert free.plan == results[0].plan
    assert polyad.plan(Net(), images, **options) == free.plan.model_copy(update={"model": ""})
    after = polyad.evaluate(free.model, labelled, reference=Net())
    assert after.difference is not None and -after.difference <= 40


def test_a_drop_needs_labelled_data_of_its_own() -> None:
    images = torch.randn(16, 3, 8, 8)
    with pytest.raises(BudgetError, match="validation=..., labelled"):
        polyad.plan(Net(), images, budget=Budget(drop=1), forms=["svd"])
    with pytest.raises(DataError, match="give labelled data"):
        polyad.plan(Net(), images, budget=Budget(drop=1), forms=["svd"], validation=images)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


def test_the_command_line_shows_the_curve(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    chosen = (own.model, "--weights", own.weights, "--data", "digits", "--forms", "svd", "--samples", "60")
    ran = polyad("compress", *chosen, "--budget", "drop=3", "--out", tmp_path / "small", "--json")
    assert (ran.code, ran.err) == (0, "")
    printed = json.loads(ran.out)
    saved = json.loads((tmp_path / "small" / "report.json").read_text())
    assert printed["curve"] == saved["curve"] and len(saved["curve"]) <= EVALUATIONS
    kept = min(point["share"] for point in saved["curve"] if point["drop"] <= 3)
    assert printed["params"]["kept"] == pytest.approx(kept)
    assert printed["budget"] == "drop=3" and not (tmp_path / "small.work").exists()
    assert "lost on validation data" in polyad("report", tmp_path / "small").out
    assert all("lost on validation" in (tmp_path / "small" / name).read_text() for name in ("report.html", "README.md"))
