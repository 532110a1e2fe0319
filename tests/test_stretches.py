"""Blocks with small activations learn from more samples than those with large ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.pipeline import compress
from polyad.progress import silent
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.settings import Training
from polyad.training.alone import alone
from polyad.training.blocks import Block, find_blocks
from polyad.training.loop import Trained
from polyad.training.stretches import stretches
from polyad.work import Work


def rooms(elements: list[int], limit: int = 1000, most: int = 50) -> list[tuple[str, int]]:
    blocks = [Block((str(at),), ()) for at in range(len(elements))]
    found = stretches(blocks, {str(at): size for at, size in enumerate(elements)}, limit, most)
    assert [block for stretch in found for block in stretch.blocks] == blocks
    return [("".join(block.name for block in stretch.blocks), stretch.room) for stretch in found]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ([10], [("0", 50)]),  # no more than are needed
        ([100, 90, 26], [("012", 10)]),  # less than four times as many are no reason for a pass
        ([100, 25, 5], [("0", 10), ("12", 40)]),
        ([25, 100], [("0", 40), ("1", 10)]),  # networks that widen again
        ([4000, 0], [("0", 1), ("1", 50)]),
    ],
)
def test_blocks_of_about_one_size_share_a_pass(elements: list[int], expected: list[tuple[str, int]]) -> None:
    assert rooms(elements) == expected


class Backwards(nn.Module):
    """A network whose parts are made in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.deep = nn.Linear(8, 4), nn.Conv2d(6, 8, 4)
        self.first = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.idle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.deep(torch.relu(self.first(x))).relu().flatten(1))


def lesson() -> Lesson:
    torch.manual_seed(0)
    teacher, inputs = Backwards().eval(), torch.randn(60, 1, 8, 8)
    found = compress(teacher, [inputs], budget=Budget(params=0.4), forms=("svd",), damage="relative", recover="none")
    samples, judges = as_batches([inputs[:40]]), as_batches([inputs[40:]])
    return Lesson(found.model, teacher, found.plan, samples, judges, silent, Training(epochs=1, batch=20))


def test_deep_blocks_learn_from_all_samples_where_there_is_room_for_few_at_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import polyad.recovery.reconstruction as level

    seen: list[tuple[str, int, int]] = []
    inner = level.train_block

    def spy(student: nn.Module, teacher: nn.Module, learned: Any, unseen: Any, *rest: Any, **more: Any) -> Trained:
        seen.append((learned.block.name, *(sum(one.size for one in part.batches) for part in (learned, unseen))))
        return inner(student, teacher, learned, unseen, *rest, **more)

    monkeypatch.setattr(level, "train_block", spy)
    monkeypatch.setattr(level, "ELEMENTS", 10 * (64 + 96))  # the first takes 64 and gives 96 for each sample
    monkeypatch.setattr(level, "SAMPLES", 1)
    RECOVERIES["reconstruction"].run(lesson())
    assert seen == [("first", 10, 2), ("deep", 10, 2), ("last", 40, 10)]


def test_what_was_killed_in_a_later_stretch_goes_on_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import polyad.recovery.reconstruction as level

    class Killed(BaseException):
        pass

    inner, done = level.train_block, []

    def until(student: nn.Module, teacher: nn.Module, learned: Any, *rest: Any, **more: Any) -> Trained:
        if dies and learned.block.name == "last":
            raise Killed
        done.append(learned.block.name)
        return inner(student, teacher, learned, *rest, **more)

    monkeypatch.setattr(level, "train_block", until)
    monkeypatch.setattr(level, "ELEMENTS", 10 * (64 + 96))
    whole, broken, again = lesson(), lesson(), lesson()
    dies = False
    notes = RECOVERIES["reconstruction"].run(whole)
    dies = True
    with pytest.raises(Killed):
        RECOVERIES["reconstruction"].run(replace(broken, work=Work(tmp_path)))
    dies, done[:] = False, []
    assert RECOVERIES["reconstruction"].run(replace(again, work=Work(tmp_path))) == notes
    assert done == ["last"]  # the others, of the stretch before, were taken from the folder
    weights, others, before = (work.student.state_dict() for work in (whole, again, lesson()))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert any(not torch.equal(weights[name], before[name]) for name in weights if not name.startswith("last"))


def test_blocks_are_found_in_the_order_in_which_they_run() -> None:
    work, network = lesson(), Backwards().eval()
    found = find_blocks(network, work.plan.choices)
    assert [block.name for block in found] == ["last", "deep", "first"]
    assert list(alone(network, found, Batch((torch.randn(3, 1, 8, 8),)))) == ["first", "deep", "last"]


def test_images_are_varied_only_as_far_as_memory_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyad.recovery.reconstruction as level
    from polyad.training.variation import Variation

    work = lesson()
    for room, images, expected in ((1000, 64 * 1000, 1000), (90, 64 * 1000, 80), (1000, 64 * 130, 120), (30, 1, 30)):
        monkeypatch.setattr(level, "SAMPLES", 1000)
        monkeypatch.setattr(level, "IMAGES", images)
        varied = level._varied(work, room, Variation(flip=True))
        assert sum(batch.size for batch in varied) == expected
