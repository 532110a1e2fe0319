"""Allocator laws, over the registry.

Of all: the budget is kept, the order of the menu does not matter, budgets out of reach are refused with the range. Of
those that say so (`monotone`): a larger budget never has a larger objective. Of those that say so (`optimal`): no
selection has a smaller objective. Those that take one limit refuse two.
"""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.allocators.allocate import allocate, with_floor
from polyad.allocators.base import ALLOCATORS
from polyad.budget import Budget
from polyad.errors import BudgetError, UnknownNameError
from polyad.layers import LayerSpec
from polyad.menu import Candidate, Menu
from polyad.records import DENSE, Plan, Run, Site

FIXED = 100
"""Parameters and MACs that no candidate changes."""


def site(name: str, width: int) -> Site:
    layer = LayerSpec(kind="linear", in_features=width, out_features=width)
    return Site(name=name, layer=layer, dtype="float32", runs=(Run(size=(3,)),))


def menu_of(options: list[list[tuple[int, int, float]]], widths: list[int]) -> Menu:
    """Per site candidates (params, macs, damage); the dense one is added."""
    sites = tuple(site(f"s{at}", width) for at, width in enumerate(widths))
    candidates = {
        s.name: (
            Candidate(site=s.name, form=DENSE, rank=(), params=s.params, macs=s.macs, error=0, damage=0),
            *(
                Candidate(site=s.name, form=f"f{n % 2}", rank=(n + 1,), params=p, macs=m, error=d, damage=d)
                for n, (p, m, d) in enumerate(found)
            ),
        )
        for s, found in zip(sites, options, strict=True)
    }
    params, macs = sum(s.params for s in sites) + FIXED, sum(s.macs for s in sites) + FIXED
    suggested = {s.name: {"f0": max(s.params // 3, 1), "f1": max(s.params // 4, 1)} for s in sites}  # as EVBMF might
    return Menu(sites=sites, candidates=candidates, params=params, macs=macs, metric="weights", suggested=suggested)


@st.composite
def menus(draw: st.DrawFn, most_sites: int = 4) -> Menu:
    widths = draw(st.lists(st.integers(4, 30), min_size=1, max_size=most_sites))
    options = []
    for width in widths:
        shares = draw(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5))
        damages = draw(st.lists(st.floats(0.001, 1), min_size=len(shares), max_size=len(shares)))
        tilt = draw(st.floats(0.5, 1.5))
        options.append(
            [(int(width**2 * s) + 1, int(3 * width**2 * s * tilt) + 1, d) for s, d in zip(shares, damages, strict=True)]
        )
    return menu_of(options, widths)


def reachable(menu: Menu, share: float, name: str = "knapsack") -> Budget:
    """A budget some way between what some selection needs and the whole, so that it can be reached: of params and macs
    where the allocator takes both."""
    smallest = [min(options, key=lambda c: c.params) for options in menu.candidates.values()]
    low = FIXED + sum(c.params for c in smallest), FIXED + sum(c.macs for c in smallest)
    whole = menu.params, menu.macs
    params, macs = (int(a + share * max(b - a, 0)) for a, b in zip(low, whole, strict=True))
    return Budget(params=params, macs=max(macs, low[1]) if ALLOCATORS[name].several else None)


def damage(plan: Plan) -> float:
    return sum(choice.damage for choice in plan.choices)


def objective(name: str, menu: Menu, plan: Plan) -> float:
    """What the allocator makes small, of the plan's candidates."""
    taken = {
        choice.site.name: next(
            c for c in menu.candidates[choice.site.name] if (c.form, c.rank) == (choice.form, choice.rank)
        )
        for choice in plan.choices
    }
    return ALLOCATORS[name].objective(menu, taken)


@pytest.mark.parametrize("name", ALLOCATORS)
@settings(max_examples=40, deadline=None)
@given(menu=menus(), share=st.floats(0, 1), order=st.integers(0, 1000))
def test_the_budget_is_kept_and_the_order_does_not_matter(name: str, menu: Menu, share: float, order: int) -> None:
    budget = reachable(menu, share, name)
    plan = allocate(menu, budget, allocator=name)
    assert plan.params <= budget.params and plan.macs <= (budget.macs or plan.macs)
    assert plan.params_before == menu.params and [c.site for c in plan.choices] == list(menu.sites)
    shuffled = random.Random(order)
    candidates = {s: tuple(shuffled.sample(options, len(options))) for s, options in menu.candidates.items()}
    again = allocate(replace(menu, candidates=candidates), budget, allocator=name)
    assert [(c.form, c.rank, c.damage) for c in again.choices] == [(c.form, c.rank, c.damage) for c in plan.choices]


@pytest.mark.parametrize("name", [name for name in ALLOCATORS if ALLOCATORS[name].monotone])
@settings(max_examples=40, deadline=None)
@given(menu=menus(), shares=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_larger_budget_is_never_worse(name: str, menu: Menu, shares: list[float]) -> None:
    plans = [allocate(menu, reachable(menu, share, name), allocator=name) for share in sorted(shares)]
    found = [objective(name, menu, plan) for plan in plans]
    assert all(b <= a + abs(a) * 2e-6 + 1e-9 for a, b in itertools.pairwise(found)), found


@pytest.mark.parametrize("limits", [1, 2])
@pytest.mark.parametrize("name", ALLOCATORS)
@settings(max_examples=40, deadline=None)
@given(menu=menus(most_sites=3), share=st.floats(0, 1))
def test_no_selection_is_better_where_an_allocator_says_so(name: str, limits: int, menu: Menu, share: float) -> None:
    if ALLOCATORS[name].optimal < limits:
        return
    budget = reachable(menu, share)
    budget = budget if limits == 2 else Budget(params=budget.params)
    plan = allocate(menu, budget, allocator=name)
    best = min(ALLOCATORS[name].objective(menu, found) for found in allowed(menu, budget))
    assert objective(name, menu, plan) <= best * (1 + 1e-5) + 1e-9


def allowed(menu: Menu, budget: Budget) -> list[dict[str, Candidate]]:
    """Every selection within a budget."""
    limits = {unit: amount - FIXED for unit, amount in budget.amounts.items()}
    every = ({c.site: c for c in found} for found in itertools.product(*menu.candidates.values()))
    return [s for s in every if all(sum(getattr(c, u) for c in s.values()) <= limit for u, limit in limits.items())]


@settings(max_examples=60, deadline=None)
@given(menu=menus(most_sites=3), share=st.floats(0, 1))
def test_lagrange_is_within_one_edge_of_the_optimum(menu: Menu, share: float) -> None:
    """Its hull is optimal for the cost that it spends; what the next edge would have saved bounds the rest."""
    budget = Budget(params=reachable(menu, share).params)
    plan = allocate(menu, budget, allocator="lagrange")
    best = min(sum(c.damage for c in found.values()) for found in allowed(menu, budget))
    multiplier = float(plan.rule.split()[1])  # three digits of it
    most = max(c.params for options in menu.candidates.values() for c in options)
    assert damage(plan) <= best + multiplier * most * 1.01 + 1e-9


def test_lagrange_names_its_multiplier_and_takes_one_limit() -> None:
    menu = menu_of([[(50, 150, 0.1), (20, 60, 0.4)], [(200, 600, 0.1), (100, 300, 0.5)]], [10, 20])
    plan = allocate(menu, Budget(params=350), allocator="lagrange")
    # from 20 + 100 upwards: .3 / 30 and .4 / 100 fit, then .1 / 50 would be next
    assert [c.params for c in plan.choices] == [50, 200] and plan.rule == "multiplier 0.002 of damage per params"
    assert "multiplier 0.002" in str(plan)
    with pytest.raises(BudgetError, match="one limit.*knapsack"):
        allocate(menu, Budget(params=350, macs=900), allocator="lagrange")


def test_a_floor_keeps_every_layer_from_being_destroyed() -> None:
    menu = menu_of([[(2, 6, 0.01), (50, 150, 0.2)], [(8, 24, 0.01), (200, 600, 0.2)]], [10, 20])
    assert [c.params for c in allocate(menu, Budget(params=400)).choices] == [100, 8]
    for name in ALLOCATORS:
        plan = allocate(with_floor(menu, 0.05), Budget(params=400), allocator=name)
        assert all(choice.params >= 0.05 * choice.site.params for choice in plan.choices), name
    with pytest.raises(BudgetError, match="keeps from 350"):
        allocate(with_floor(menu, 0.05), Budget(params=300))


def test_evbmf_weakens_from_the_ranks_it_found() -> None:
    """Menus of a 10 x 10 and a 20 x 20 layer in steps of a tenth; EVBMF found a half and a quarter of them."""
    options = [[(w * w * k // 10, w * w * k // 10, 1 - k / 10) for k in range(1, 10)] for w in (10, 20)]
    options = [[option for option in found for _ in range(2)] for found in options]  # all of them in both forms
    menu = replace(menu_of(options, [10, 20]), suggested={"s0": {"f0": 50, "f1": 50}, "s1": {"f0": 100, "f1": 100}})
    tight = allocate(menu, Budget(params=FIXED + 50 + 100), allocator="evbmf")
    assert [c.params for c in tight.choices] == [50, 80] and tight.rule.startswith("100% of the parameters")
    weak = allocate(menu, Budget(params=FIXED + 70 + 200), allocator="evbmf")
    assert [c.params for c in weak.choices] == [70, 200] and "weakened: 60% of the way" in weak.rule
    with pytest.raises(BudgetError, match="prepare"):
        allocate(replace(menu, suggested={}), Budget(params=300), allocator="evbmf")


@pytest.mark.parametrize("name", ALLOCATORS)
def test_the_whole_network_stays_dense(name: str) -> None:
    plan = allocate(menu_of([[(10, 10, 0.5)], [(20, 20, 0.1)]], [10, 20]), Budget(params=1.0), allocator=name)
    assert all(choice.dense for choice in plan.choices)


def test_uniform_gives_every_site_the_same_share() -> None:
    options = [[(w * w * k // 10, 3 * w * w * k // 10, 1 - k / 10) for k in range(1, 10)] for w in (10, 20)]
    plan = allocate(menu_of(options, [10, 20]), Budget(params=FIXED + 260), allocator="uniform")
    assert [choice.params / choice.site.params for choice in plan.choices] == [0.5, 0.5]


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_infeasible_budget_names_the_reachable_range(name: str) -> None:
    menu = menu_of([[(10, 30, 0.5)], [(20, 10, 0.1)]], [10, 20])
    with pytest.raises(BudgetError, match=r"params=50 .*from 130 \(21\.7%\) to 600"):
        allocate(menu, Budget(params=50), allocator=name)
    assert allocate(menu, Budget(params=130), allocator=name).params == 130
    with pytest.raises(BudgetError, match=r"params=129 .*cannot be reached"):
        allocate(menu, Budget(params=129), allocator=name)
    if not ALLOCATORS[name].several:
        return
    crossed = menu_of([[(10, 290, 0.5), (90, 30, 0.5)]], [10])
    with pytest.raises(BudgetError, match=r"at once.*within the others macs goes down to 390 \(97.5%\)"):
        allocate(crossed, Budget(params=FIXED + 20, macs=FIXED + 40), allocator=name)


def test_an_unknown_allocator_is_told_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match="knapsack.*uniform.*Did you mean 'knapsack'"):
        allocate(menu_of([[(1, 1, 1)]], [4]), Budget(params=1.0), allocator="knapsak")
