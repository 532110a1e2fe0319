"""What replacements do among the others, and plans made with that."""

from copy import deepcopy

import pytest
import torch

import polyad
from polyad.allocators.allocate import allocate
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.evaluation import divergence, outputs
from polyad.naming import put
from polyad.records import DENSE, NARROW
from polyad.remeasure import contributions, parts, remeasured
from test_allocators import menu_of
from test_finalists import Net
from test_narrow import compressed, mobile, pictures

MENU = menu_of([[(60, 60, 0.04), (30, 30, 0.3)], [(200, 200, 0.02), (90, 90, 0.2)], [(60, 60, 0.1)]], [10, 20, 10])


def test_a_contribution_is_what_taking_the_replacement_back_brings() -> None:
    model, x = Net().eval(), torch.randn(60, 24, generator=torch.Generator().manual_seed(1))
    found = polyad.compress(model, x, budget=Budget(params=0.5), forms=("svd",), samples=60, recover="none")
    batches, student = as_batches(x), found.model
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    wanted = outputs(model, batches)

    def apart(network: torch.nn.Module) -> float:
        return divergence(wanted, outputs(network, batches))

    given = contributions(student, model, found.plan, apart)
    replaced = [choice.site.name for choice in found.plan.choices if not choice.dense]
    assert [site for site, _ in given] == replaced and replaced
    for (site, _), contribution in given.items():
        without = deepcopy(student)
        put(without, site, model.get_submodule(site))
        assert contribution == pytest.approx(apart(student) - apart(without))
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_narrowing_is_taken_back_with_all_its_layers() -> None:
    model = mobile()
    found, given = compressed(model, 0.6), [Batch((pictures(20),))]
    wanted = outputs(model, given)
    by_part = contributions(found.model, model, found.plan, lambda network: divergence(wanted, outputs(network, given)))
    for one in found.plan.narrowed:
        assert by_part[one.hidden.reader, NARROW] > 0
        assert {*one.hidden.layers} <= parts(found.plan)[one.hidden.reader, NARROW]
    alone = [choice for choice in found.plan.choices if not choice.dense]
    if len(found.plan.narrowed) + len(alone) == 1:
        assert sum(by_part.values()) == pytest.approx(divergence(wanted, outputs(found.model, given)))


def test_what_does_more_than_its_damage_says_becomes_dearer_and_the_other_cheaper() -> None:
    plan = allocate(MENU, Budget(params=330))
    taken = {choice.site.name: choice for choice in plan.choices if not choice.dense}
    first, second = list(taken)[:2]
    given = {(name, ""): taken[name].damage for name in taken} | {(first, ""): 50 * taken[first].damage}
    found = remeasured(MENU, plan, given)
    for site, options in found.candidates.items():
        for new, old in zip(options, MENU.candidates[site], strict=True):
            assert (new.damage == 0) == (old.form == DENSE)
            if old.form != DENSE and site in (first, second):
                assert (new.damage > old.damage) == (site == first)
            elif site not in taken:
                assert new.damage == old.damage


def test_contributions_in_proportion_to_the_damages_change_nothing() -> None:
    plan = allocate(MENU, Budget(params=330))
    given = {(choice.site.name, ""): 3 * choice.damage for choice in plan.choices if not choice.dense}
    for site, options in remeasured(MENU, plan, given).candidates.items():
        assert [c.damage for c in options] == pytest.approx([c.damage for c in MENU.candidates[site]])
    nothing = dict.fromkeys(given, -1.0)
    assert remeasured(MENU, plan, nothing) is MENU
