"""Plans that weigh damages differently, compared as whole networks."""

import pytest
import torch
from torch import Tensor, nn

import polyad
from polyad.allocators.allocate import allocate
from polyad.batches import as_batches
from polyad.budget import Budget
from polyad.errors import BudgetError
from polyad.evaluation import divergence, outputs
from polyad.finalists import WAYS, best_of, repriced
from polyad.records import DENSE, Plan
from test_allocators import menu_of

MENU = menu_of([[(60, 60, 0.04), (30, 30, 0.3)], [(200, 200, 0.02), (90, 90, 0.2)]], [10, 20])


def test_the_first_way_is_the_damage_itself() -> None:
    for site, options in repriced(MENU, WAYS[0]).candidates.items():
        assert [c.damage for c in options] == pytest.approx([c.damage for c in MENU.candidates[site]])


@pytest.mark.parametrize("way", WAYS)
def test_a_way_keeps_the_order_within_a_site_and_dense_layers_free(way: tuple[float, float]) -> None:
    for site, options in repriced(MENU, way).candidates.items():
        assert [c.damage for c in options if c.form == DENSE] == [0.0]
        order = [c.rank for c in sorted(options, key=lambda c: c.damage)]
        assert order == [c.rank for c in sorted(MENU.candidates[site], key=lambda c: c.damage)]


def test_the_closest_network_is_kept_and_each_is_made_once() -> None:
    near, far = (allocate(MENU, Budget(params=limit)) for limit in (400, 300))
    asked: list[Plan] = []

    def judge(plan: Plan) -> float:
        asked.append(plan)
        return 0.1 if plan is near else 0.2

    found = best_of([far, near, far], judge)
    assert asked == [far, near] and found.choices == near.choices
    assert "closest of 2" in found.rule and "0.1" in found.rule and "0.2" in found.rule


def test_one_plan_is_not_measured() -> None:
    plan = allocate(MENU, Budget(params=400))
    assert best_of([plan, plan], lambda _: pytest.fail("it was measured")) is plan


class Net(nn.Module):
    """Three layers, of which the last is far more sensitive than its error says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(3 * layer(x))
        return 4 * self.head(x)


def test_comparing_networks_brings_outputs_closer_within_the_budget() -> None:
    """Never farther than the plan that it starts from."""
    model, inputs = Net().eval(), torch.randn(200, 24, generator=torch.Generator().manual_seed(1))
    budget = Budget(params=0.5)
    options = {"forms": ("svd",), "samples": 200, "recover": "none"}
    one, best = (polyad.compress(model, inputs, budget=budget, finalists=n, **options) for n in (1, 8))
    batches = as_batches(inputs)
    before, after = (divergence(outputs(model, batches), outputs(found.model, batches)) for found in (one, best))
    assert after < before
    assert best.report.params.kept <= 0.5 and "closest of" in best.plan.rule


def test_how_many_is_checked() -> None:
    with pytest.raises(BudgetError, match="finalists=0"):
        polyad.plan(Net(), torch.randn(20, 24), budget=Budget(params=0.5), finalists=0)
