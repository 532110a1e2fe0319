"""The refit: two networks that meet layer by layer, what follows a layer, and the laws of the level."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from math import inf
from pathlib import Path
from threading import active_count
from typing import Any

import pytest
import torch
from torch import nn

from conftest import Polyad
from own_network import write_own
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.errors import DataError
from polyad.evaluation import divergence, divergences, outputs
from polyad.followers import Follower, followers
from polyad.lockstep import walk
from polyad.pipeline import compress
from polyad.place import State
from polyad.progress import silent
from polyad.records import Choice
from polyad.recovery import refit as refitting
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.trace import trace
from polyad.work import Work


def networks() -> dict[str, Callable[[], nn.Module]]:
    def norms() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2),
            nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
        )  # fmt: skip

    def biases() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, groups=2), nn.ReLU(), nn.Flatten(2),
            nn.Linear(64, 12), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(96, 10, bias=False),
        )  # fmt: skip

    return {"norms": norms, "biases": biases}


def lesson(name: str, share: float = 0.3, **options: Any) -> Lesson:
    torch.manual_seed(0)
    teacher = networks()[name]().eval()
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
    with torch.no_grad():
        list(teacher.parameters())[-2 if name == "norms" else -1].mul_(8)  # predictions that an error can change
    inputs = torch.randn(200, 3, 8, 8)
    inputs = inputs + 0.7 * inputs.roll(1, -1)
    found = compress(
        teacher, [inputs], budget=Budget(params=share), forms=("svd", "tucker2", "cp"), recover="none", **options
    )
    calibration, held_out = as_batches([inputs[:80], inputs[80:160]]), as_batches([inputs[160:]])
    return Lesson(found.model, teacher, found.plan, calibration, held_out, silent)


def changed(first: nn.Module, second: nn.Module) -> list[str]:
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return [name for (name, a), b in pairs if not torch.equal(a, b)]


def distance(work: Lesson, batches: Sequence[Batch]) -> float:
    return divergence(outputs(work.teacher, batches), outputs(work.student, batches))


@pytest.mark.parametrize("name", networks())
def test_outputs_come_closer_the_plan_stays_and_twice_gives_the_same(name: str) -> None:
    work = lesson(name, 0.25)
    again = replace(work, student=deepcopy(work.student))
    original, compressed = deepcopy(work.teacher), deepcopy(work.student)
    before = [distance(work, batches) for batches in (work.calibration, work.held_out)]
    notes = RECOVERIES["refit"].run(work)
    after = [distance(work, batches) for batches in (work.calibration, work.held_out)]
    assert after[0] < before[0] and after[1] <= before[1]
    assert changed(work.student, compressed) and not changed(work.teacher, original)
    example = work.held_out[0]
    counted, wanted = trace(work.student, example), trace(compressed, example)
    assert (counted.params, counted.macs) == (wanted.params, wanted.macs)
    assert RECOVERIES["refit"].run(again) == notes
    assert not changed(work.student, again.student)


class Killed(BaseException):
    pass


def test_a_run_that_was_killed_goes_on_behind_the_refitted_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, inner, count = lesson("norms", 0.25), refitting._refit, 0
    broken, again = (replace(whole, student=deepcopy(whole.student), work=Work(tmp_path)) for _ in range(2))
    notes = RECOVERIES["refit"].run(whole)

    def until(*args: Any) -> State | None:
        nonlocal count
        count += 1
        if count == 3:
            raise Killed
        return inner(*args)

    monkeypatch.setattr(refitting, "_refit", until)
    with pytest.raises(Killed):
        RECOVERIES["refit"].run(broken)
    assert RECOVERIES["refit"].run(again) == notes
    assert count == 4 and again.work.taken["refit"] == 2
    assert not changed(again.student, whole.student)


def test_sweeps_go_on_as_long_as_the_divergence_falls() -> None:
    work = lesson("norms", 0.25)
    start, states = deepcopy(work.student), {}
    for sweeps in (1, 2, 30):
        student = deepcopy(start)
        training = work.training.model_copy(update={"sweeps": sweeps})
        (note, *_) = RECOVERIES["refit"].run(replace(work, student=student, training=training))
        states[sweeps] = distance(replace(work, student=student), work.held_out), note
    figures = states[30][1].split("divergence ")[1].split(",")[0].split(" -> ")
    assert 3 < len(figures) < 31
    assert states[30][1].endswith("so the last sweep is taken back")
    assert sorted(map(float, figures[:-1]), reverse=True) == list(map(float, figures[:-1]))
    assert states[30][0] <= states[2][0] < states[1][0]
    assert f"{states[30][0]:.4g}" == figures[-2]


def test_a_network_without_errors_stays_as_it_is() -> None:
    """Weights that have the rank of their forms: nothing is lacking, so nothing changes beyond rounding."""
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 12), nn.ReLU(), nn.Linear(12, 4)
    )
    with torch.no_grad():
        for at, rank in ((0, 2), (3, 3)):
            left, values, right = torch.linalg.svd(teacher[at].weight.flatten(1), full_matrices=False)
            low = (left[:, :rank] * values[:rank]) @ right[:rank]
            teacher[at].weight.copy_(low.reshape(teacher[at].weight.shape))  # type: ignore[operator, union-attr]
    inputs, fixed = torch.randn(60, 3, 8, 8), {"0": ("svd", (2,)), "3": ("svd", (3,)), "5": ("dense", ())}
    found = compress(teacher, [inputs], budget=Budget(params=0.9), fixed=fixed, recover="none")
    work = Lesson(found.model, teacher, found.plan, as_batches([inputs[:40]]), as_batches([inputs[40:]]), silent)
    before = distance(work, work.held_out)
    RECOVERIES["refit"].run(work)
    assert max(before, distance(work, work.held_out)) < 1e-9


@pytest.mark.parametrize("classes", [8, 2])
def test_where_dense_layers_do_harm_the_replaced_ones_are_refitted_alone(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harm is made: the dense layer is spoiled whenever it is refitted. A small one is not worth a second refit."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, classes))
    inputs, fixed = torch.randn(200, 12), {"0": ("svd", (4,)), "2": ("svd", (6,)), "4": ("dense", ())}
    found = compress(teacher, [inputs], budget=Budget(params=0.9), fixed=fixed, recover="none")
    work = Lesson(found.model, teacher, found.plan, as_batches([inputs[:150]]), as_batches([inputs[150:]]), silent)
    before, dense = distance(work, work.held_out), found.model.get_parameter("4.weight").clone()
    real = refitting._sweep

    def spoiled(lesson: Lesson, choices: Sequence[Choice]) -> set[str]:
        done = real(lesson, choices)
        if any(choice.dense for choice in choices):
            lesson.student.get_parameter("4.weight").data.neg_()
        return done

    monkeypatch.setattr(refitting, "_sweep", spoiled)
    first, second, *_ = RECOVERIES["refit"].run(work)
    assert "of 3 sites" in first and "all is as it was" in first
    if classes == 2:
        assert second.startswith("statistics")
        return
    assert "of 2 sites" in second and "as it was" not in second
    assert distance(work, work.held_out) < before
    assert torch.equal(found.model.get_parameter("4.weight"), dense)


@pytest.mark.parametrize("harm", [0.0, 0.5])
def test_a_rise_within_its_standard_error_is_kept(harm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a hundred held-out samples gets much worse, and then so many of the others."""
    teacher = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    inputs, fixed = torch.randn(200, 12), {"0": ("dense", ()), "2": ("svd", (4,))}
    found = compress(teacher, [inputs], budget=Budget(params=0.9), fixed=fixed, recover="none")
    work = Lesson(found.model, teacher, found.plan, as_batches([inputs[:100]]), as_batches([inputs[100:]]), silent)
    targets = outputs(teacher, work.held_out)
    apart = divergences(targets, outputs(found.model, work.held_out))
    after = 0.9 * apart
    after[: 1 + int(99 * harm)] += 20 * apart.mean()
    figures = iter([apart, after, apart, after])
    monkeypatch.setattr(refitting, "divergences", lambda *_: next(figures))
    note, *_ = RECOVERIES["refit"].run(work)
    assert note.endswith(", so all is as it was" if harm else " (a rise within its standard error)")


def test_stacks_and_what_runs_twice_are_left_with_a_word() -> None:
    torch.manual_seed(0)
    twice = nn.Linear(16, 16)
    teacher = nn.Sequential(
        *(nn.Linear(16, 16) for _ in range(2)), nn.ReLU(), twice, nn.ReLU(), twice, nn.Linear(16, 4)
    )
    fixed = {name: ("svd", (4,)) for name in ("[01]", "3", "6")}
    inputs = torch.randn(40, 16)
    found = compress(teacher, [inputs], budget=Budget(params=0.9), stack=["[01]"], fixed=fixed, recover="refit")
    assert found.report.recovered[0].startswith(
        "refit: 1 of 1 sites refitted (left as they are: [01] (a stack), 3 (it runs"
    )


def test_the_command_line_refits(polyad: Polyad, tmp_path: Path) -> None:
    own = write_own(tmp_path)
    out = tmp_path / "small"
    chosen = (
        "--data",
        "digits",
        "--budget",
        "params=25%",
        "--samples",
        "100",
        "--forms",
        "svd,tucker2",
        "--recover",
        "refit",
    )
    ran = polyad("compress", own.model, "--weights", own.weights, *chosen, "--out", out, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["recovery"] == "refit" and "sites refitted" in found["recovered"][0]
    again = json.loads(polyad("evaluate", out, "--model", own.model, "--data", "digits", "--json").out)
    assert again["value"] == found["after"]["value"]


class Block(nn.Module):
    """A residual block whose shortcut has a layer of its own, and a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)
        self.side, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.second(nn.functional.relu6(self.first(x))))
        return self.last(torch.relu_(y + self.side(x)))


def test_what_follows_a_layer_is_seen() -> None:
    model = Block().eval()
    inputs = Batch((torch.randn(5, 4),))
    found = followers(model, trace(model, inputs).sites, inputs)
    assert found == {
        "first": Follower(False, 6.0),
        "second": Follower(False, None),  # its sum belongs to the layer that runs later
        "side": Follower(True, inf),
        "last": Follower(False, None),
    }


@pytest.mark.parametrize("summed", [(), ("side",)])
def test_networks_meet_layer_by_layer_and_later_layers_see_what_was_changed(summed: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    teacher = Block().eval()
    student, inputs = deepcopy(teacher), torch.randn(5, 4)
    sites = trace(teacher, Batch((inputs,))).sites
    met = {}
    for meeting in walk(teacher, student, sites, as_batches([inputs[:3], inputs[3:]]), summed):
        met[meeting.name] = [torch.cat(list(part)) for part in (meeting.seen, meeting.wanted)]
        if meeting.beside is not None:
            met["sum"] = [torch.cat(parts) for parts in zip(*meeting.beside)]
        with torch.no_grad():
            student.get_submodule(meeting.name).weight.add_(1)  # type: ignore[operator, union-attr]
    assert list(met) == ["first", "second", "side", *(["sum"] if summed else []), "last"]
    with torch.no_grad():
        hidden, other = (nn.functional.relu6(one.first(inputs)) for one in (student, teacher))
        mine, theirs = (one.norm(one.second(x)) for one, x in ((student, hidden), (teacher, other)))
        ends = [torch.relu(y + one.side(inputs)) for y, one in ((mine, student), (theirs, teacher))]
        assert torch.equal(met["first"][0], inputs)
        assert torch.allclose(met["second"][0], hidden) and torch.allclose(met["second"][1], teacher.second(other))
        assert torch.allclose(met["last"][0], ends[0]) and torch.allclose(met["last"][1], teacher.last(ends[1]))
        if summed:
            assert torch.allclose(met["sum"][0], mine) and torch.allclose(met["sum"][1], theirs)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in [*student.modules(), *teacher.modules()]
    )


def test_an_error_on_the_way_ends_both_runs() -> None:
    teacher = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    student = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 4))
    inputs = torch.randn(5, 4)
    sites, threads = trace(teacher, Batch((inputs,))).sites, active_count()
    with pytest.raises(DataError, match="refuses a calibration batch"):
        list(walk(teacher, student, sites, as_batches([inputs])))
    with closing(walk(teacher, teacher, sites, as_batches([inputs]))) as meetings:  # and so does losing interest
        next(meetings)
    assert active_count() == threads
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in [*student, *teacher])
