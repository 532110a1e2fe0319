"""Allocator laws, over the registry."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyad.allocators.allocate import allocate
from polyad.allocators.base import ALLOCATORS
from polyad.budget import Budget
from polyad.errors import BudgetError, UnknownNameError
from polyad.layers import LayerSpec
from polyad.records import DENSE, Candidate, Menu, Plan, Run, Site

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
    return Menu(sites=sites, candidates=candidates, params=params, macs=macs, metric="weights")


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


def reachable(menu: Menu, share: float) -> Budget | None:
    """A params and macs budget some way between what some selection needs and the whole, so that it can be reached."""
    smallest = [min(options, key=lambda c: c.params) for options in menu.candidates.values()]
    low = FIXED + sum(c.params for c in smallest), FIXED + sum(c.macs for c in smallest)
    whole = menu.params, menu.macs
    params, macs = (int(a + share * max(b - a, 0)) for a, b in zip(low, whole, strict=True))
    return Budget(params=params, macs=max(macs, low[1]))


def damage(plan: Plan) -> float:
    return sum(choice.damage for choice in plan.choices)


@pytest.mark.parametrize("name", ALLOCATORS)
@settings(max_examples=40, deadline=None)
@given(menu=menus(), share=st.floats(0, 1), order=st.integers(0, 1000))
def test_the_budget_is_kept_and_the_order_does_not_matter(name: str, menu: Menu, share: float, order: int) -> None:
    budget = reachable(menu, share)
    plan = allocate(menu, budget, allocator=name)
    assert plan.params <= budget.params and plan.macs <= budget.macs
    assert plan.params_before == menu.params and [c.site for c in plan.choices] == list(menu.sites)
    shuffled = random.Random(order)
    candidates = {s: tuple(shuffled.sample(options, len(options))) for s, options in menu.candidates.items()}
    other = Menu(sites=menu.sites, candidates=candidates, params=menu.params, macs=menu.macs, metric=menu.metric)
    again = allocate(other, budget, allocator=name)
    assert [(c.form, c.rank, c.damage) for c in again.choices] == [(c.form, c.rank, c.damage) for c in plan.choices]


@pytest.mark.parametrize("name", ALLOCATORS)
@settings(max_examples=40, deadline=None)
@given(menu=menus(), shares=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_larger_budget_is_never_worse(name: str, menu: Menu, shares: list[float]) -> None:
    plans = [allocate(menu, reachable(menu, share), allocator=name) for share in sorted(shares)]
    found = [damage(plan) for plan in plans]
    assert all(b <= a * (1 + 2e-6) + 1e-9 for a, b in itertools.pairwise(found)), found


@settings(max_examples=60, deadline=None)
@given(menu=menus(most_sites=3), share=st.floats(0, 1))
def test_knapsack_equals_brute_force(menu: Menu, share: float) -> None:
    budget = reachable(menu, share)
    limits = {"params": budget.params - FIXED, "macs": budget.macs - FIXED}
    every = itertools.product(*menu.candidates.values())
    allowed = [s for s in every if all(sum(getattr(c, unit) for c in s) <= limit for unit, limit in limits.items())]
    best = min(sum(c.damage for c in selection) for selection in allowed)
    assert damage(allocate(menu, budget)) <= best * (1 + 1e-5) + 1e-9


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
    crossed = menu_of([[(10, 290, 0.5), (90, 30, 0.5)]], [10])
    with pytest.raises(BudgetError, match="at once"):
        allocate(crossed, Budget(params=FIXED + 20, macs=FIXED + 40), allocator=name)


def test_an_unknown_allocator_is_told_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match="knapsack, uniform.*Did you mean 'knapsack'"):
        allocate(menu_of([[(1, 1, 1)]], [4]), Budget(params=1.0), allocator="knapsak")
