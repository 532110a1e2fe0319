"""Terms that cancel each other are made small before a training, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.budget import Budget
from polyad.decompositions.base import FORMS
from polyad.evaluation import outputs
from polyad.pipeline import Result, compress
from polyad.place import Place, place_of
from polyad.progress import silent
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.settings import Training
from polyad.solvers import term_norms
from polyad.training.loop import train
from polyad.training.settling import settle
from test_training import QUICK, course, network, same, values

BATCHES = [Batch((torch.randn(40, 6, 9, 9, generator=torch.Generator().manual_seed(at)),)) for at in range(3)]


@pytest.fixture(scope="module", params=["cp", "cp4", "svd"])
def made(request: pytest.FixtureRequest) -> tuple[nn.Module, Result]:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(6, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.Flatten(), nn.Linear(400, 5)
    ).eval()
    fixed = {"0": (request.param, (5,)), "3": (request.param, (8,)), "5": ("dense", ())}
    found = compress(teacher, [batch.args[0] for batch in BATCHES], budget=Budget(params=0.99), fixed=fixed)
    return teacher, found


def places(made: tuple[nn.Module, Result]) -> list[Place]:
    teacher, found = made
    return [place_of(choice, teacher, found.model) for choice in found.plan.choices if not choice.dense]


@torch.no_grad()
def cancelling(place: Place, by: float) -> None:
    """Two terms alike in all but the outputs, which have so much more of one vector in the first and less in the
    second."""
    factors, state = [factor.clone() for factor in place.read().factors], place.read()
    form = FORMS[place.choice.form]
    for letters, factor in zip(form.letters, factors, strict=True):
        terms = factor.movedim(letters.index(form.term_letter or "r") + 1, 0)  # a view
        if "o" in letters:
            terms[0], terms[1] = terms[0] + by, terms[1] - by
        else:
            terms[1] = terms[0] * (1 + 0.01 * torch.rand_like(terms[0]))
    place.put(replace(state, factors=tuple(factors)))


def size(place: Place) -> float:
    return float(term_norms(place.form, place.read().factors).sum())


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).square().sum() / wanted.square().sum())


def test_terms_become_small_and_outputs_stay(made: tuple[nn.Module, Result]) -> None:
    teacher, found = made
    before = values(found.model)
    for place in places(made):
        cancelling(place, 20.0)
    sizes, wanted = [size(place) for place in places(made)], outputs(found.model, BATCHES)
    cancelled = values(found.model)
    settle(found.model, teacher, found.plan.choices, BATCHES)
    now, given = values(found.model), outputs(found.model, BATCHES)
    small = [size(place) < 0.05 * was for place, was in zip(places(made), sizes, strict=True)]
    found.model.load_state_dict(before)
    if places(made)[0].choice.form == "svd":  # terms of a matrix
        assert same(now, cancelled)
    else:
        assert all(small) and 0 < apart(given, wanted) < 0.03
        changed = {name for name in now if not torch.equal(now[name], cancelled[name])}
        assert changed and not any(name.startswith("5") for name in changed)


@pytest.mark.parametrize("level", ["distillation", "reconstruction"])
def test_levels_that_train_settle_first(made: tuple[nn.Module, Result], level: str) -> None:
    teacher, found = made
    before = values(found.model)
    for place in places(made):
        cancelling(place, 20.0)
    sizes = [size(place) for place in places(made)]
    work = Lesson(found.model, teacher, found.plan, BATCHES[:2], BATCHES[2:], silent, Training(epochs=1, rate=1e-4))
    (note,) = RECOVERIES[level].run(work)
    small = [size(place) < 0.05 * was for place, was in zip(places(made), sizes, strict=True)]
    found.model.load_state_dict(before)
    assert all(small) == (places(made)[0].choice.form != "svd"), note


def test_what_has_to_be_beaten_is_the_network_as_it_came() -> None:
    """A settled network that trains no better leaves the one that came."""
    student, teacher = network(0), network(1)
    before, one = values(student), course(student, teacher)
    calls = []

    def spoil() -> None:
        calls.append(one.figure())
        with torch.no_grad():
            student[3].weight.mul_(50)

    found = train(replace(one, settle=spoil), QUICK.model_copy(update={"rate": 1e-9}))
    assert (
        calls == [found.before] and not found.improved and min(figure for _, figure in found.history[1:]) > found.before
    )
    assert same(values(student), before)


def test_a_settled_network_that_trains_better_stays() -> None:
    plain, settled, teacher = network(0), network(0), network(1)
    one = course(settled, teacher)
    without = train(course(plain, teacher), QUICK)
    found = train(replace(one, settle=lambda: settled.load_state_dict(teacher.state_dict())), QUICK)
    assert found.after < 0.1 * without.after and found.before == without.before
