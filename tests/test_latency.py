"""Budgets of latency: the table of timings, what it makes of a menu, the limit that is corrected, the whole run."""

import json
from dataclasses import replace
from functools import cache as cache_once
from pathlib import Path

import pytest
import torch
from torch import nn

import polyad
from conftest import Polyad
from polyad.allocators.allocate import allocate
from polyad.allocators.base import ALLOCATORS
from polyad.bare import Place
from polyad.batches import Batch
from polyad.bench import Bench, Timed
from polyad.correction import OVER, corrected
from polyad.cost import recounted
from polyad.decompositions.base import FORMS
from polyad.errors import BudgetError, DataError, ExportError, UnknownNameError
from polyad.latency import Clock, Latencies
from polyad.layers import LayerSpec
from polyad.menu import Menu
from polyad.propose import propose
from polyad.records import DENSE, Choice, Plan, Run, Site
from polyad.runtimes.base import RUNTIMES
from polyad.settings import Settings
from polyad.splits import Call
from polyad.timetable import Timetable
from polyad.timing import bench_of, in_turn
from polyad.trace import trace

IMAGES = torch.rand(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))
OPTIONS = {"forms": ["svd", "tucker2"], "metric": "weights", "recover": "none", "damage": "relative", "threads": 1}
HERE = Bench(runtime="eager", version="1", machine="this one", threads=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty; no more runs than it takes."""
    monkeypatch.setattr("polyad.latency.SECONDS", 0)
    monkeypatch.setattr("polyad.timetable.SECONDS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "polyad" / "latency"


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


@cache_once
def menu() -> Menu:
    """Of the network."""
    model = network()
    return propose(model, trace(model, Batch((IMAGES,))), {}, Settings(forms=("svd", "tucker2"), metric="weights"))


def with_table(table: Timetable, multiples: dict[str, float]) -> Latencies:
    """A menu whose table says of every candidate of a form what multiple of the dense layer's time it takes."""
    model = network()
    batch = Batch((IMAGES[:1],))
    Latencies(Clock(table.bench, model, batch), menu(), table)  # writes all keys that are asked for
    found = json.loads(table.file.read_text())
    for key in found["multiples"]:
        found["multiples"][key] = multiples[key.split(", ")[1].split()[0]]
    table.file.write_text(json.dumps(found))
    return Latencies(Clock(table.bench, model, batch), menu(), Timetable(table.bench, table.file.parent))


def test_a_table_is_kept_and_measures_nothing_twice(tmp_path: Path) -> None:
    model, batch = network(), Batch((IMAGES[:1],))
    first = Timetable(HERE, tmp_path)
    Latencies(Clock(HERE, model, batch), menu(), first)
    assert first.measured > 0
    again = Timetable(HERE, tmp_path)
    Latencies(Clock(HERE, model, batch), menu(), again)
    assert again.measured == 0
    for other in (HERE.model_copy(update={"threads": 2}), HERE.model_copy(update={"version": "2"})):
        assert Timetable(other, tmp_path).file != first.file
    first.file.write_text("{")
    assert Timetable(HERE, tmp_path).known(*_some_pick(menu())) == {}


def _some_pick(menu: Menu) -> tuple[Place, list]:
    site = menu.sites[1]
    candidate = menu.candidates[site.name][1]
    return Place.of(site, site.runs[0]), [(candidate.form, candidate.rank)]


def test_only_a_few_ranks_of_a_form_are_timed(tmp_path: Path) -> None:
    model = network()
    table = Timetable(HERE, tmp_path)
    Latencies(Clock(HERE, model, Batch((IMAGES[:1],))), menu(), table)
    assert table.measured < sum(len(found) - 1 for found in menu().candidates.values()) / 2


def test_what_is_not_faster_than_the_dense_layer_is_not_offered(tmp_path: Path) -> None:
    priced = with_table(Timetable(HERE, tmp_path), {"svd": 0.5, "tucker2": 1.0}).menu()
    forms = {c.form for found in priced.candidates.values() for c in found}
    assert forms == {DENSE, "svd"}
    for site in priced.sites:
        dense, *others = priced.candidates[site.name]
        assert dense.latency == site.latency > 0
        assert all(c.latency < dense.latency for c in others)
        assert all(c.latency == pytest.approx(dense.latency / 2, abs=1) for c in others)


def test_a_given_choice_stays_however_slow_it_is(tmp_path: Path) -> None:
    latencies = with_table(Timetable(HERE, tmp_path), {"svd": 2.0, "tucker2": 2.0})
    name = latencies.raw.sites[1].name
    given = latencies.raw.candidates[name][1]
    latencies.raw = replace(latencies.raw, candidates={**latencies.raw.candidates, name: (given,)})
    (kept,) = latencies.menu().candidates[name]
    assert kept.rank == given.rank and kept.latency > latencies.menu().sites[1].latency


def test_times_between_those_measured_rise_with_the_macs(tmp_path: Path) -> None:
    """Also where a timing says otherwise; a rank that was timed keeps its own time."""
    latencies = with_table(Timetable(HERE, tmp_path), {"svd": 0.5, "tucker2": 0.5})
    place, site = Place.of(latencies.raw.sites[1], latencies.raw.sites[1].runs[0]), latencies.raw.sites[1]
    known = latencies.table.known(place, [(c.form, c.rank) for c in latencies.raw.candidates[site.name][1:]])
    latencies.table._multiples |= {
        key: 0.3 + 0.1 * (at % 3) for at, key in enumerate(sorted(latencies.table._multiples))
    }
    for even in (True, False):
        ladder = sorted(
            (c for c in latencies.menu().candidates[site.name] if c.form == "svd" and (c.rank[0] % 8 == 0) is even),
            key=lambda c: c.macs,
        )
        between = [c.latency for c in ladder if (c.form, c.rank) not in known]
        assert between == sorted(between)


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_a_limit_is_kept_by_the_table(allocator: str, tmp_path: Path) -> None:
    latencies = with_table(Timetable(HERE, tmp_path), {"svd": 0.3, "tucker2": 0.4})
    priced = ALLOCATORS[allocator].prepare(network(), latencies.menu())
    least = priced.fixed("latency") + sum(min(c.latency for c in found) for found in priced.candidates.values())
    limit = (least + priced.latency) // 2
    plan = allocate(priced, polyad.Budget(latency=limit), allocator=allocator)
    spent = priced.latency + sum(c.latency - c.site.latency for c in plan.choices)
    assert least <= spent <= limit
    with pytest.raises(BudgetError, match=r"latency=[\d,]+ .* cannot be reached: .* keeps from"):
        allocate(priced, polyad.Budget(latency=least - 1), allocator=allocator)


def test_what_is_chosen_is_timed_itself(tmp_path: Path) -> None:
    """Also a rank between those that the table was begun with, which the plan goes for here."""
    latencies = with_table(Timetable(HERE, tmp_path), {"svd": 0.3, "tucker2": 0.4})
    site = latencies.raw.sites[1]
    place = Place.of(site, site.runs[0])
    untimed = next(
        c
        for c in latencies.raw.candidates[site.name]
        if c.form == "svd" and not latencies.table.known(place, [(c.form, c.rank)])
    )

    def decide(priced: Menu, budget: polyad.Budget) -> Plan:
        offered = {name: found[:1] for name, found in priced.candidates.items()}
        offered[site.name] = tuple(
            c for c in priced.candidates[site.name] if c.rank == untimed.rank and c.form == "svd"
        )
        return allocate(replace(priced, candidates=offered if offered[site.name] else priced.candidates), budget)

    plan = latencies.solved(decide, polyad.Budget(latency=1.0))
    assert latencies.table.known(place, [(untimed.form, untimed.rank)])
    assert plan.timed is not None and plan.timed.bench == HERE
    assert plan.latency <= latencies.before


def in_steps(asked: int) -> Plan:
    """A plan whose predicted latency is a limit rounded down to tens; less than 300 cannot be reached."""
    if asked < 300:
        raise BudgetError("out of reach")
    predicted = min(asked // 10 * 10, 1000)
    layer = LayerSpec(kind="linear", in_features=8, out_features=8)
    site = Site(name="a", layer=layer, dtype="float32", runs=(Run(size=(1,)),), latency=1000)
    choice = Choice(site=site, form="svd", rank=(predicted,), params=1, macs=1, damage=0.0, why="", latency=predicted)
    timed = Timed(bench=HERE, before=1000)
    return Plan(
        metric="weights",
        allocator="knapsack",
        budget="",
        choices=(choice,),
        params_before=1,
        macs_before=1,
        timed=timed,
    )


@pytest.mark.parametrize("off", [lambda x: x, lambda x: 0.8 * x + 200, lambda x: 1.2 * x - 200, lambda x: x**1.2 / 4])
def test_a_limit_is_corrected_until_the_network_keeps_it(off) -> None:  # noqa: ANN001
    plan, rounds = corrected(600, 1000, in_steps, lambda plan: round(off(plan.latency)))
    assert rounds[-1].predicted == plan.latency
    assert rounds[-1].measured == round(off(plan.latency))
    assert 0.95 * 600 <= rounds[-1].measured <= OVER * 600
    assert len(rounds) <= 5


def test_a_corrected_limit_out_of_reach_leaves_the_closest() -> None:
    plan, rounds = corrected(400, 1000, in_steps, lambda plan: 450 + plan.latency // 10)
    assert plan.latency == rounds[-1].predicted == min(one.predicted for one in rounds)
    with pytest.raises(BudgetError, match="out of reach"):
        corrected(200, 1000, in_steps, lambda plan: plan.latency)


def test_runs_are_taken_in_turn() -> None:
    """Each contender is run once uncounted before each counted run; the runs are its own."""
    order: list[str] = []

    def one(name: str, seconds: float):  # noqa: ANN202
        return lambda: order.append(name) or seconds

    found = in_turn({"a": one("a", 1.0), "b": one("b", 2.0)}, seconds=0, least=3, most=5)
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert order == ["a", "a", "b", "b"] * 3


def test_a_compression_keeps_a_latency_and_says_what_was_measured(cache: Path) -> None:
    """Structure only: what a machine takes for anything is its own affair."""
    wide = nn.Sequential(nn.Conv2d(3, 96, 3), nn.ReLU(), nn.Conv2d(96, 96, 3), nn.ReLU(), nn.Conv2d(96, 4, 3))
    result = polyad.compress(wide, IMAGES, budget=polyad.Budget(latency=0.9), **OPTIONS)
    plan, found = result.plan, result.report.latency
    assert plan.budget == "latency=90%" and plan.timed is not None and found is not None
    assert plan.timed.bench == found.bench == bench_of("eager", 1, 1)
    assert plan.timed.rounds[-1].predicted == plan.latency <= plan.timed.before
    assert found.predicted == pytest.approx(plan.latency / plan.timed.before)
    assert found.rounds == plan.timed.rounds and found.before > 0 < found.after
    assert any(not choice.dense for choice in plan.choices)
    assert all(choice.latency <= choice.site.latency for choice in plan.choices)
    assert "round 1: predicted" in str(plan)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert list(cache.glob("*.json"))
    again = polyad.compress(wide, IMAGES, plan=plan, **OPTIONS)
    assert again.report.latency is not None and again.report.latency.predicted == found.predicted
    edited = plan.model_copy(
        update={"choices": tuple(c.model_copy(update={"form": DENSE, "rank": ()}) for c in plan.choices)}
    )
    assert recounted(edited).timed is None and recounted(plan).timed == plan.timed


def test_a_latency_out_of_reach_is_refused_with_the_range() -> None:
    with pytest.raises(BudgetError, match=r"latency=[\d,]+ .* cannot be reached: .* keeps from [\d,]+ .* to [\d,]+"):
        polyad.plan(network(), IMAGES, budget=polyad.Budget(latency=0.01), **OPTIONS)


def test_what_a_latency_needs_is_said() -> None:
    model = network()
    with pytest.raises(UnknownNameError, match="runtime 'onnxruntim'.*Did you mean 'onnxruntime'"):
        polyad.plan(model, IMAGES, budget=polyad.Budget(latency=0.5), **{**OPTIONS, "runtime": "onnxruntim"})
    with pytest.raises(DataError, match="needs inputs, not a function"):
        Clock.on(HERE, model, [Call(lambda m: m(IMAGES))])
    with pytest.raises(DataError, match="needs a batch of so many; it has 12"):
        Clock.on(HERE.model_copy(update={"batch": 13}), model, [Batch((IMAGES,))])
    with pytest.raises(BudgetError, match="price it with"):
        allocate(menu(), polyad.Budget(latency=0.5))
    with pytest.raises(BudgetError, match="threads=0"):
        Settings(threads=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_a_runtime_that_is_not_there_says_why() -> None:
    with pytest.raises(ExportError, match="cuda cannot run here: there is no graphics card"):
        bench_of("cuda", None, 1)


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_time_networks_and_leave_them_alone(name: str) -> None:
    runtime = RUNTIMES[name]
    if lacks := runtime.lacks():
        pytest.skip(lacks)
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    once = runtime.prepare(model, Batch((IMAGES[:1],)), 1)
    assert once() > 0 and runtime.version() and runtime.place()
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())


KINDS = {
    "conv": (LayerSpec(kind="conv", in_features=8, out_features=6, kernel=(3, 3), stride=(1, 1), padding=(1, 1),
                       dilation=(1, 1)), (5, 7), (2, 8, 5, 7)),
    "linear": (LayerSpec(kind="linear", in_features=8, out_features=6, bias=True), (1,), (2, 8)),
    "rows": (LayerSpec(kind="linear", in_features=8, out_features=6, transposed=True), (5,), (2, 5, 8)),
    "embedding": (LayerSpec(kind="embedding", in_features=8, out_features=6), (5,), (2, 5)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_alone_takes_what_the_network_gives_it(kind: str) -> None:
    layer, size, shape = KINDS[kind]
    place = Place(layer, "float32", size)
    x = place.inputs(2)
    assert tuple(x.shape) == shape
    dense = place.module(DENSE, ())(x)
    for form in map(FORMS.__getitem__, ("svd", "tt", "tucker2")):
        if form.refuses(layer) is None:
            rank = tuple(1 for _ in form.rank_letters(layer))
            assert place.module(form.name, rank)(x).shape == dense.shape


def test_on_the_command_line(polyad: Polyad, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "small"
    options = ("--forms", "spatial_svd", "--samples", "20", "--damage", "relative", "--recover", "none", "--json")
    budget = ("--budget", "latency=95%", "--runtime", "onnxruntime", "--threads", "1")
    ran = polyad("compress", "zoo:digits_cnn", "--data", "digits", *budget, *options, "--out", out)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["latency"]
    assert found["bench"]["runtime"] == "onnxruntime" and found["bench"]["threads"] == 1 and found["unit"] == "ns"
    assert found["kept"] == found["after"] / found["before"]
    assert found["error"] == pytest.approx(found["predicted"] / found["kept"] - 1)
    recipe = (out / "recipe.yaml").read_text()
    assert "runtime: onnxruntime" in recipe and "threads: 1" in recipe
    card = (out / "README.md").read_text()
    for text in (card, (out / "report.html").read_text()):
        assert "latency measured on onnxruntime, 1 thread" in text and "latency, round 1" in text
    listed = {row["name"]: row["here"] for row in json.loads(polyad("runtimes", "--json").out)}
    assert listed["onnxruntime"].startswith("onnxruntime ") and listed.keys() >= {"eager", "cuda"}
    timed = json.loads(polyad("benchmark", out, "--runtime", "onnxruntime", "--runs", "3", "--json").out)
    assert timed.keys() == {"network", "dense"}
