"""Channels between layers left out: which there are, which go, who makes up for them, what becomes of the network."""

import itertools
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import polyad
from conftest import Polyad
from polyad.allocators.allocate import allocate
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.checkpoint import load_network, read_plan, save_network
from polyad.errors import PlanError
from polyad.evaluation import divergence, outputs
from polyad.hidden import Hidden, Narrowed
from polyad.hidden_in import hidden_in
from polyad.lessons import learn, lesson
from polyad.menu import Narrowing
from polyad.pipeline import Result
from polyad.progress import silent
from polyad.records import NARROW, Plan
from polyad.slim import slim, slimmed
from polyad.solvers import Problem
from polyad.solvers.channels import fewer_channels, making_up
from polyad.trace import trace
from test_allocators import FIXED, menu_of


class Block(nn.Module):
    """An inverted residual with batch norm."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.ReLU6(), nn.Conv2d(hidden, channels, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Gated(nn.Module):
    """Two layers write the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 10, bias=False), nn.Linear(6, 10), nn.Linear(10, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Through(nn.Module):
    """Two layers with something in between."""

    def __init__(self, between: Callable[[Tensor], Tensor], reads: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(reads, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


class Twice(Through):
    """What the first gives is read by another layer too."""

    def __init__(self) -> None:
        super().__init__(torch.relu)
        self.third = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        return self.second(hidden) + self.third(hidden)


def mobile(hidden: int = 24) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Block(8, hidden), Block(8, hidden),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.weight, 0.5, 2)
    with torch.no_grad():
        model[-1].weight.mul_(20)
    return model.eval()


def pictures(count: int = 120) -> Tensor:
    x = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return x + 0.7 * x.roll(1, -1)


def found_in(model: nn.Module, *inputs: Tensor) -> tuple[Hidden, ...]:
    example = Batch(inputs)
    return hidden_in(model.eval(), trace(model, example).sites, example)


def test_channels_that_pass_batch_norms_and_depthwise_layers_are_found() -> None:
    model = mobile()
    before = deepcopy(model.state_dict())
    first, second = (one for one in found_in(model, pictures(2)))
    assert (first.reader, first.writers, first.channels) == ("2.conv.5", ("2.conv.0",), 24)
    assert first.between == ("2.conv.1", "2.conv.3") and (first.params, first.bytes) == (2, 16)
    assert second.reader == "3.conv.5"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_two_layers_may_write_what_one_reads() -> None:
    (found,) = found_in(Gated(), torch.randn(3, 6))
    assert set(found.writers) == {"gate", "up"} and found.reader == "down"


SPOILT: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: Through(lambda x: x.softmax(-1)),
    "norm over channels": lambda: Through(nn.LayerNorm(8)),
    "own numbers": lambda: Through(nn.PReLU(8)),
    "counted": lambda: Through(lambda x: x.reshape(-1, 2, 4).relu().reshape(-1, 8)),
    "permuted": lambda: Through(lambda x: x.flip(-1)),
    "rolled over halves": lambda: Through(lambda x: torch.cat([x[..., 4:], x[..., :4]], -1)),
    "paired": lambda: Through(lambda x: x[..., ::2] * x[..., 1::2], reads=4),
    "shortcut": lambda: Through(lambda x: x + 1.0 + 0 * torch.arange(8)),
    "two readers": Twice,
}


@pytest.mark.parametrize("name", SPOILT)
def test_channels_that_anything_else_sees_are_left_alone(name: str) -> None:
    assert found_in(SPOILT[name](), torch.randn(5, 6)) == ()


def problem(out: int = 5, channels: int = 8, positions: int = 1, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    n = channels * positions
    rows = torch.randn(400, n, generator=generator, dtype=torch.float64)
    rows = rows @ torch.randn(n, n, generator=generator, dtype=torch.float64)
    return Problem(torch.randn(1, out, n, generator=generator, dtype=torch.float64), (rows.mT @ rows / 400)[None])


@pytest.mark.parametrize("positions", [1, 3])
def test_the_channel_that_goes_first_costs_least_and_the_others_make_up_for_it(positions: int) -> None:
    given = problem(positions=positions)
    (kept,) = fewer_channels(given, 8, [7])
    costs = {some: given.relative(making_up(given, 8, some)) for some in itertools.combinations(range(8), 7)}
    assert kept == min(costs, key=lambda some: costs[some])
    weight = making_up(given, 8, kept)
    assert given.matrix is not None
    columns = torch.arange(8 * positions).view(8, positions)[list(kept)].flatten()
    left = (given.weight - weight) @ given.matrix
    assert float(left[..., columns].abs().max()) < 1e-8 * float((given.weight @ given.matrix).abs().max())


@pytest.mark.parametrize("positions", [1, 4])
def test_fewer_channels_are_parts_of_more_and_err_more(positions: int) -> None:
    given = problem(channels=12, positions=positions, seed=3)
    found = fewer_channels(given, 12, [2, 12, 9, 5])
    errors = [given.relative(making_up(given, 12, kept)) for kept in found]
    assert [len(kept) for kept in found] == [2, 12, 9, 5]
    assert set(found[0]) < set(found[3]) < set(found[2]) < set(found[1])
    assert errors[1] == pytest.approx(0, abs=1e-12) and errors[1] < errors[2] < errors[3] < errors[0] < 1


def test_making_up_beats_leaving_the_rest_as_it_is_and_doubled_channels_cost_nothing() -> None:
    given = problem()
    assert given.matrix is not None
    weight = torch.cat([given.weight, given.weight], -1)
    twice = Problem(weight, given.matrix.repeat(1, 2, 2) + 1e-9 * torch.eye(16, dtype=torch.float64))
    (kept,) = fewer_channels(twice, 16, [8])
    assert sorted(one % 8 for one in kept) == list(range(8))
    assert twice.relative(making_up(twice, 16, kept)) < 1e-6
    bare = torch.zeros_like(weight)
    bare[..., list(kept)] = weight[..., list(kept)]
    assert twice.relative(bare) > 0.1


def test_a_norm_of_outputs_decides_too() -> None:
    given = problem()
    left = torch.diag(torch.tensor([1e6, 1, 1, 1, 1], dtype=torch.float64))[None]
    weight = given.weight.clone()
    weight[0, 0] = 0
    weight[0, 0, 5] = 1  # the output that counts sees channel 5 alone
    plain = Problem(weight, torch.eye(8, dtype=torch.float64)[None])
    weight[0, 1:, 5] = 0
    assert 5 in fewer_channels(replace(plain, left=left), 8, [1])[0]


def compressed(model: nn.Module, share: float = 0.6, **options: object) -> Result:
    settings = {"forms": ("svd",), "narrow": True, "recover": "none", "samples": 120} | options
    return polyad.compress(model, pictures(), budget=Budget(params=share), **settings)  # type: ignore[arg-type]


def doubled(model: nn.Sequential) -> nn.Sequential:
    """Every second hidden channel is a copy of the one before."""
    with torch.no_grad():
        for block in (model[2], model[3]):
            for at in (0, 1, 3):
                for tensor in (*block.conv[at].parameters(), *block.conv[at].buffers()):
                    if tensor.dim():
                        tensor[1::2] = tensor[::2]
    return model


def test_a_network_with_doubled_channels_gets_narrower_at_no_loss() -> None:
    model = doubled(mobile(64))
    found = compressed(model, 0.57)
    assert found.plan.narrowed and all(len(one.kept) >= 32 for one in found.plan.narrowed)
    given = [Batch((pictures(40),))]
    assert divergence(outputs(model, given), outputs(found.model, given)) < 1e-5
    assert divergence(outputs(model, given), outputs(compressed(model, 0.57, narrow=False).model, given)) > 1e-3


def test_costs_are_those_of_the_network_that_comes_out() -> None:
    found = compressed(mobile())
    after = trace(found.model, Batch((pictures(2),)))
    assert found.plan.narrowed and any(choice.form == NARROW for choice in found.plan.choices)
    assert (found.plan.params, found.plan.macs) == (after.params, after.macs)
    assert found.report.bytes.after == after.bytes == found.plan.bytes
    assert found.report.params.kept <= 0.6
    readers = {one.hidden.reader for one in found.plan.narrowed}
    assert all(0 < row.output_error < 1 for row in found.report.sites if row.name in readers)  # type: ignore[operator]


def test_it_comes_back_from_a_folder_and_from_its_plan(tmp_path: Path) -> None:
    model, x = mobile(), pictures(4)
    found = compressed(model)
    save_network(found.model, found.plan, tmp_path)
    again = load_network(tmp_path, mobile())
    assert torch.equal(again(x), found.model(x))
    plan = read_plan(tmp_path / "plan.json")
    assert plan == found.plan
    replayed = polyad.compress(model, pictures(), plan=plan, recover="none", samples=120)
    assert torch.equal(replayed.model(x), found.model(x))


def test_a_plan_may_be_edited_and_is_checked(tmp_path: Path) -> None:
    model = mobile()
    plan = compressed(model).plan
    (first, *rest) = plan.narrowed
    fewer = plan.model_copy(update={"narrowed": (first.model_copy(update={"kept": (0, 5, 7)}), *rest)})
    found = polyad.compress(model, pictures(), plan=fewer, recover="none", samples=120)
    assert found.model.get_submodule(first.hidden.reader).in_channels == 3
    assert found.report.params.after == sum(p.numel() for p in found.model.parameters())
    for kept in ((), (3, 2), (0, 24), (1, 1), (-1, 2)):
        wrong = plan.model_copy(update={"narrowed": (first.model_copy(update={"kept": kept}), *rest)})
        with pytest.raises(PlanError, match="24"):
            slim(deepcopy(model), wrong.narrowed)
    elsewhere = Narrowed(hidden=first.hidden.model_copy(update={"reader": "9"}), kept=first.kept)
    with pytest.raises(PlanError, match="does not have"):
        slim(deepcopy(model), [elsewhere])


def test_what_was_narrowed_for_a_while_is_as_it_was() -> None:
    model, x = mobile(), pictures(3)
    before, modules = model(x), dict(model.named_modules())
    narrowed = [Narrowed(hidden=one, kept=(1, 4)) for one in found_in(model, x)]
    with slimmed(model, narrowed):
        assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in mobile().parameters()) / 2
        assert not torch.equal(model(x), before)
    assert torch.equal(model(x), before) and dict(model.named_modules()) == modules


@pytest.mark.parametrize("level", ["statistics", "refit", "reconstruction"])
def test_recovery_brings_a_narrower_network_closer(level: str) -> None:
    teacher = mobile()
    found = compressed(teacher, 0.52)
    assert found.plan.narrowed
    untouched, counted = deepcopy(teacher), sum(p.numel() for p in found.model.parameters())
    batches = as_batches([pictures(160)])
    calibration, held_out = [batches[0].part(0, 120)], [batches[0].part(120, 160)]
    before = divergence(outputs(teacher, held_out), outputs(found.model, held_out))
    given = lesson(found.model, teacher, found.plan, (calibration, held_out), progress=silent)
    notes = learn(given, level)
    assert divergence(outputs(teacher, held_out), outputs(found.model, held_out)) < before, notes
    assert sum(p.numel() for p in found.model.parameters()) == counted
    assert all(torch.equal(a, b) for a, b in zip(teacher.state_dict().values(), untouched.state_dict().values()))


def narrowing(sites: tuple[str, ...], share: float, damage: float) -> Narrowing:
    """Of layers of 100 and 400 parameters."""
    hidden = Hidden(reader=sites[-1], writers=sites[:-1], channels=10)
    menu = menu_of([[(1, 1, 1.0)]] * 2, [10, 20])
    candidates = {
        site: menu.candidates[site][0].model_copy(
            update={
                "form": NARROW,
                "rank": (int(10 * share), 10),
                "params": int(menu.candidates[site][0].params * share),
                "macs": int(menu.candidates[site][0].macs * share),
                "damage": damage if site == sites[-1] else 0.0,
                "error": damage if site == sites[-1] else 0.0,
            }
        )
        for site in sites
    }
    return Narrowing(Narrowed(hidden=hidden, kept=tuple(range(int(10 * share)))), candidates)


@pytest.mark.parametrize("limit", range(150, 600, 25))
def test_the_knapsack_weighs_narrowings_against_forms(limit: int) -> None:
    plain = menu_of([[(60, 60, 0.04), (30, 30, 0.3)], [(200, 200, 0.02), (90, 90, 0.2)]], [10, 20])
    menu = replace(plain, narrowings=tuple(narrowing(("s0", "s1"), s, d) for s, d in ((0.8, 0.01), (0.5, 0.05))))
    plan = allocate(menu, Budget(params=limit + FIXED))
    singles = itertools.product(*(plain.candidates[site] for site in ("s0", "s1")))
    together = (tuple(one.candidates.values()) for one in menu.narrowings)
    least = min(sum(c.damage for c in some) for some in itertools.chain(singles, together)
                if sum(c.params for c in some) <= limit)  # fmt: skip
    assert sum(choice.damage for choice in plan.choices) == pytest.approx(least)
    assert bool(plan.narrowed) == all(choice.form == NARROW for choice in plan.choices)
    assert bool(plan.narrowed) == any(choice.form == NARROW for choice in plan.choices)


def test_ignored_and_given_layers_keep_their_channels() -> None:
    model = mobile()
    for options in ({"ignore": ("2.conv.3",)}, {"fixed": {"2.conv.0": ("dense", ())}}, {"ignore": ("2.conv.5",)}):
        readers = {one.hidden.reader for one in compressed(model, 0.7, **options).plan.narrowed}
        assert readers == {"3.conv.5"}


def test_on_the_command_line(polyad: Polyad, tmp_path: Path) -> None:
    out = tmp_path / "small"
    options = ("--budget", "params=60%", "--forms", "svd", "--samples", "64", "--recover", "none", "--json")
    ran = polyad("compress", "zoo:digits_cnn", "--data", "digits", *options, "--narrow", "--out", out)
    assert ran.code == 0, ran.err
    plan = Plan.model_validate(json.loads((out / "plan.json").read_text()))
    assert plan.narrowed and "narrow: true" in (out / "recipe.yaml").read_text()
    assert polyad("evaluate", out, "--data", "digits", "--json").code == 0
