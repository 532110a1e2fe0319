"""Reconstruction: the blocks of a network, what cannot stand alone, and the laws of the level."""

import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import active_count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import Polyad
from own_network import write_own
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.errors import PlanError
from polyad.evaluation import divergence, outputs
from polyad.models import build_model
from polyad.pipeline import compress
from polyad.progress import silent
from polyad.records import DENSE, Choice
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.settings import Training
from polyad.trace import trace
from polyad.training.alone import alone
from polyad.training.blocks import Block, find_blocks
from polyad.training.loop import Trained
from polyad.training.one_block import trainable
from polyad.training.schedule import HIGHEST
from polyad.work import Work

QUICK = Training(epochs=15, batch=32, rate=2e-2)
PARTS = QUICK.model_copy(update={"blocks": ("2", "3")})
"""Of `residual`: 0 to 1, 2, 3, 4."""


class Residual(nn.Module):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Masked(nn.Module):
    """A transformer with a mask that all samples share."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers, self.last = nn.ModuleList(deepcopy(layer) for _ in range(2)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((5, 5), -torch.inf).triu(1)
        for layer in self.layers:
            x = layer(x, src_mask=mask)
        return self.last(x[:, -1])


def residual() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), Residual(), Residual(), nn.Linear(12, 5))


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (residual, (6,)), "images": (images, (2, 8, 8)), "masked": (Masked, (5, 8)),
}  # fmt: skip


def lesson(name: str, training: Training = QUICK, **options: Any) -> Lesson:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    teacher = build().eval()
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.2, 0.6)  # type: ignore[arg-type]
    with torch.no_grad():
        list(teacher.parameters())[-2].mul_(8)  # predictions that an error can change
    inputs = torch.randn(240, *shape)
    found = compress(
        teacher, [inputs], budget=Budget(params=0.5), forms=("svd",), damage="relative", recover="none", **options
    )
    # the expanded original is what the pipeline hands over; without expansions it is the original
    calibration, held_out = as_batches([inputs[:100], inputs[100:190]]), as_batches([inputs[190:]])
    return Lesson(found.model, _expanded(teacher, found.plan), found.plan, calibration, held_out, silent, training)


def _expanded(teacher: nn.Module, plan: Any) -> nn.Module:
    from polyad.expand import in_use, redo

    return redo(deepcopy(teacher), in_use(plan)) if in_use(plan) else teacher


def changed(first: nn.Module, second: nn.Module) -> list[str]:
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return [name for (name, a), b in pairs if not torch.equal(a, b)]


def distance(work: Lesson, batches: Sequence[Batch]) -> float:
    return divergence(outputs(work.teacher, batches), outputs(work.student, batches))


def choices(model: nn.Module, example: Batch) -> list[Choice]:
    sites = trace(model, example).sites
    return [Choice(site=site, form=DENSE, rank=(), params=1, macs=1, damage=0, why="") for site in sites]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_come_closer_the_plan_stays_and_twice_gives_the_same(name: str) -> None:
    work = lesson(name)
    again, original, before = replace(work, student=deepcopy(work.student)), deepcopy(work.teacher), lesson(name)
    notes = RECOVERIES["reconstruction"].run(work)
    assert len(notes) == 1 and "blocks improved" in notes[0] and "left as they are" not in notes[0]
    for batches in (work.calibration, work.held_out):
        assert distance(work, batches) < 0.9 * distance(before, batches)
    assert changed(work.student, before.student) and not changed(work.teacher, original)
    assert all("running" not in tensor for tensor in changed(work.student, before.student))
    counted, wanted = (trace(one.student, work.held_out[0]) for one in (work, before))
    assert (counted.params, counted.macs) == (wanted.params, wanted.macs)
    assert RECOVERIES["reconstruction"].run(again) == notes and not changed(work.student, again.student)


class Killed(BaseException):
    pass


def test_a_run_that_was_killed_goes_on_behind_the_finished_blocks(tmp_path: Path, monkeypatch: Any) -> None:
    import polyad.recovery.reconstruction as level

    whole, broken = lesson("residual", PARTS), lesson("residual", PARTS)
    notes = RECOVERIES["reconstruction"].run(whole)
    trained: list[str] = []
    inner, end = level.train_block, 2

    def until(student: nn.Module, teacher: nn.Module, passage: Any, *args: Any, **kwargs: Any) -> Trained:
        if len(trained) == end:
            raise Killed
        trained.append(passage.block.name)
        return inner(student, teacher, passage, *args, **kwargs)

    monkeypatch.setattr(level, "train_block", until)
    threads = active_count()
    with pytest.raises(Killed) as held:
        RECOVERIES["reconstruction"].run(replace(broken, work=Work(tmp_path)))
    assert held.tb and active_count() == threads  # though its frames are still there, none of its runs is
    assert trained == ["0 to 1", "2"]
    again, end, work = lesson("residual", PARTS), 9, Work(tmp_path)
    assert RECOVERIES["reconstruction"].run(replace(again, work=work)) == notes
    assert trained == ["0 to 1", "2", "3", "4"] and work.taken["block"] == 2
    assert not changed(again.student, whole.student)


def test_nothing_is_kept_of_a_training_that_breaks_the_network() -> None:
    work = scaled(lesson("residual", PARTS.model_copy(update={"rate": 1e20, "clip": None})))
    before = deepcopy(work.student)
    (note,) = RECOVERIES["reconstruction"].run(work)
    assert "0 of 4 blocks improved" in note and "no longer finite" in note
    assert not changed(work.student, before)


@pytest.mark.parametrize("good", [0, 3])
def test_blocks_that_raise_the_divergence_are_taken_back(monkeypatch: Any, good: int) -> None:
    import polyad.recovery.reconstruction as level

    work, names = lesson("residual", PARTS), ["0 to 1", "2", "3", "4"]
    before, inner = deepcopy(work.student), level.train_block

    def spoil(student: nn.Module, teacher: nn.Module, passage: Any, *args: Any, **kwargs: Any) -> Trained:
        if passage.block.name in names[:good]:
            return inner(student, teacher, passage, *args, **kwargs)
        with torch.no_grad():
            next(passage.block.of(student).parameters()).mul_(-9)
        return Trained(1.0, 0.5, 1, 1)

    monkeypatch.setattr(level, "train_block", spoil)
    notes = RECOVERIES["reconstruction"].run(work)
    assert notes[0].endswith("so all is as it was" if not good else "(taken back, because it rose: 4)")
    if good:
        assert {name.split(".")[0] for name in changed(work.student, before)} == {"2", "3"}  # 0 is dense
        assert len(notes) == 1
    else:
        assert RECOVERIES["statistics"].run(replace(work, student=before)) == notes[1:]
        assert not changed(work.student, before)


def scaled(work: Lesson) -> Lesson:
    """The same network, with factors far from balanced."""
    with torch.no_grad():
        for choice in work.plan.choices:
            if not choice.dense:
                first, second = work.student.get_submodule(choice.site.name)  # type: ignore[misc]
                first.weight.mul_(1024)
                second.weight.div_(1024)
    return work


def test_the_gauge_of_the_factors_does_not_matter() -> None:
    one, other = lesson("residual"), scaled(lesson("residual"))
    for work in (one, other):
        RECOVERIES["reconstruction"].run(work)
    assert distance(other, one.held_out) == pytest.approx(distance(one, one.held_out), rel=0.02)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """(block, rate) of each training from now on."""
    import polyad.training.one_block as module

    inner, found = module.train, []

    def spy(course: Any, training: Training, **more: Any) -> Trained:
        found.append((course.name, training.rate))
        return inner(course, training, **more)

    monkeypatch.setattr(module, "train", spy)
    return found


def test_a_block_that_does_not_improve_is_tried_at_a_tenth_of_the_rate(rates: list[tuple[str, float]]) -> None:
    RECOVERIES["reconstruction"].run(lesson("residual", PARTS.model_copy(update={"rate": 1.0})))
    assert [rate for name, rate in rates if name == "3"] == [1.0, 0.1]


def test_without_a_rate_the_highest_is_tried_first(rates: list[tuple[str, float]]) -> None:
    """The first block is dense, so perfect: nothing improves it."""
    RECOVERIES["reconstruction"].run(lesson("residual", Training(epochs=1, batch=32, blocks=PARTS.blocks)))
    assert [rate for name, rate in rates if name == "0 to 1"] == [HIGHEST["soap"], pytest.approx(0.1 * HIGHEST["soap"])]


def test_blocks_of_known_networks() -> None:
    stages = [part for i in (1, 2, 3) for part in ((f"layer{i}.0", f"layer{i}.1"), (f"layer{i}.2",))]
    features = tuple(f"features.{i}" for i in range(13))
    for model, size, expected in (
        ("zoo:resnet20", (3, 32, 32), [("conv1", "bn1"), *stages, ("linear",)]),
        ("zoo:digits_cnn", (1, 8, 8), [features, ("classifier",)]),
    ):
        network, example = build_model(model).eval(), Batch((torch.randn(2, *size),))
        found = find_blocks(network, choices(network, example))
        assert [block.modules for block in found] == expected
        assert not any(one.refusal for one in alone(network, found, example).values())
        names = [choice.site.name for block in found for choice in block.choices]
        assert sorted(names) == sorted(choice.site.name for choice in choices(network, example))


def test_named_blocks_come_first() -> None:
    network, example = residual().eval(), Batch((torch.randn(3, 6),))
    found = find_blocks(network, choices(network, example), ["2", "re:3[.]first"])
    assert [block.modules for block in found] == [("0", "1"), ("2",), ("3.first",), ("3.second",), ("4",)]
    assert [choice.site.name for choice in found[1].relative()] == ["0.first", "0.second"]
    network, example = images().eval(), Batch((torch.randn(2, 2, 8, 8),))
    (whole,) = find_blocks(network, choices(network, example))
    inner = [("0", "1"), ("3", None), ("5", "6"), ("9", None)]
    assert [(one.site.name, one.site.norm_behind) for one in whole.relative()] == inner
    _, *rest = find_blocks(network, choices(network, example), ["3"])
    assert [block.name for block in rest] == ["3", "5 to 9"]
    assert [(one.site.name, one.site.norm_behind) for one in rest[1].relative()] == [("0", "1"), ("4", None)]


def test_a_name_of_no_block_is_an_error() -> None:
    network, example = residual().eval(), Batch((torch.randn(3, 6),))
    with pytest.raises(PlanError, match="blocks '1' names no module"):
        find_blocks(network, choices(network, example), ["1"])


class Awkward(nn.Module):
    """Modules that cannot be trained by themselves, and one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.mixing, self.stateful = Residual(6), Mixing(), Stateful()
        self.tied, self.fine = nn.Linear(6, 6), nn.Linear(6, 6)
        self.same = nn.Linear(6, 6)
        self.same.weight, self.same.bias = self.tied.weight, self.tied.bias

    def forward(self, x: Tensor) -> Tensor:
        x = self.stateful(self.mixing(self.twice(self.twice(x))))
        return self.fine(self.same(self.tied(x)))


class Mixing(Residual):
    """Every sample sees the one before it."""

    def __init__(self) -> None:
        super().__init__(6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + x.roll(1, 0))


class Stateful(Residual):
    """Gives something else in every second call."""

    def __init__(self) -> None:
        super().__init__(6)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + self.calls % 2)


def test_what_cannot_stand_alone_is_refused() -> None:
    network, example = Awkward().eval(), Batch((torch.randn(3, 6),))
    found = find_blocks(network, choices(network, example), ["twice", "mixing", "stateful", "fine"])
    refused = {name: one.refusal for name, one in alone(network, found, example).items()}
    assert refused.pop("fine") is None
    assert refused == {
        "twice": "it runs several times",
        "mixing": "its samples cannot be taken apart",
        "stateful": "alone it gives something else than inside the network",
    }


def test_parameters_that_others_share_are_not_trained() -> None:
    network = Awkward().eval()
    assert not trainable(network, Block(("tied",), ()).of(network))
    assert trainable(network, Block(("fine",), ()).of(network))
    assert trainable(network, Block(("tied", "same"), ()).of(network))


def test_the_command_line_reconstructs_named_blocks(polyad: Polyad, tmp_path: Path) -> None:
    own = write_own(tmp_path)
    chosen = [
        "--data",
        "digits",
        "--budget",
        "params=40%",
        "--samples",
        "100",
        "--forms",
        "svd",
        "--damage",
        "relative",
    ]
    level = ["--recover", "reconstruction", "--train-samples", "200", "--epochs", "20", "--rate", "3e-3"]
    made = (own.model, "--weights", own.weights, *chosen, *level, "--json")
    ran = polyad("compress", *made, "--blocks", "conv2", "--blocks", "re:hea.", "--out", tmp_path / "small")
    assert (ran.code, ran.err) == (0, ""), ran.err
    found = json.loads(ran.out)
    assert found["recovery"] == "reconstruction"
    assert re.match("reconstruction: [23] of 3 blocks improved", found["recovered"][0])
    again = json.loads(polyad("evaluate", tmp_path / "small", "--model", own.model, "--data", "digits", "--json").out)
    assert again["value"] == found["after"]["value"]
    refused = polyad("compress", *made, "--blocks", "conv3", "--out", tmp_path / "none")
    assert refused.code == 2 and "blocks 'conv3' names no module" in refused.err
