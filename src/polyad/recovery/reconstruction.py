"""Every block trained to give what the original's block gives, on what it sees by now: no labels, a few hundred steps.

Compressed and original network run side by side over the samples and stop at each block (`training.passages`). There
the block learns to give what the original gives behind it, from what the blocks before it, trained already, hand over;
so it also repairs what they got wrong. Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block
Reconstruction", ICLR 2021, find blocks the right unit: layers in a block repair each other, and there is less to fit to
few samples than in a whole network.

A block is left as it was where its error does not fall on samples to judge by; so are the last blocks where the
divergence of the whole network from the original would rise there.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from polyad.batches import Batch
from polyad.digests import digest
from polyad.errors import ModelError
from polyad.evaluation import divergence, outputs
from polyad.recovery.base import ELEMENTS, RECOVERIES, Lesson, Recovery
from polyad.settings import Training
from polyad.splits import merged
from polyad.training.alone import alone
from polyad.training.average import copied, put, tensors_of
from polyad.training.blocks import Block, find_blocks
from polyad.training.loop import Trained
from polyad.training.matching import variation_of
from polyad.training.one_block import train_block, trainable
from polyad.training.passages import Passage, passages
from polyad.training.samples import Samples
from polyad.training.stretches import Stretch, stretches
from polyad.training.ticks import Ticks
from polyad.training.variation import Variation
from polyad.work import Piece, key_of

STEPS = 1000
"""Steps for each block, where no number of epochs is given ..."""

EPOCHS = 100
"""... nor are they more than this: few samples are soon seen often enough."""

BATCH = 32
"""Samples of a step, where nothing else is asked for."""

SAMPLES = 4096
"""With varied images there are at least as many samples as this ..."""

IMAGES = 1 << 28
"""... as long as all of these images have no more elements (1 GiB of float32)."""

LANES = 64
"""Batches that are under way together."""

NAME = "reconstruction"


def reconstruction(lesson: Lesson) -> tuple[str, ...]:
    """Train the student block by block; returns what came of it."""
    kept = _Kept(lesson)
    found, left_out = _stretches(lesson)
    blocks = [block for stretch in found for block in stretch.blocks]
    if not blocks:
        return (f"{NAME}: there is nothing to train{left_out}", *_statistics(lesson, []))
    path = _Path(lesson)
    try:
        _train(lesson, found, kept, path)
    except ModelError as error:
        left_out += f"; ended early: {error}"
    count = path.back()
    note = f"{_summary(path.trained)}{left_out}, {path.text(count)}"
    return (f"{NAME}: {note}", *_statistics(lesson, blocks if count else []))


def _statistics(lesson: Lesson, trained: list[Block]) -> tuple[str, ...]:
    """For sites that no block holds: the others have learned what it corrects."""
    names = {choice.site.name for block in trained for choice in block.choices}
    rest = tuple(choice for choice in lesson.plan.choices if choice.site.name not in names)
    if not rest:
        return ()
    return RECOVERIES["statistics"].run(replace(lesson, plan=lesson.plan.model_copy(update={"choices": rest})))


def _stretches(lesson: Lesson) -> tuple[list[Stretch], str]:
    """The blocks that can be trained, and words about the others."""
    blocks = find_blocks(lesson.teacher, lesson.plan.choices, lesson.training.blocks)
    example = merged(lesson.samples, 3)[0]
    seen = alone(lesson.teacher, blocks, example)
    refused = {name: one.refusal for name, one in seen.items() if one.refusal}
    for block in blocks:
        if block.name not in refused and not trainable(lesson.student, block.of(lesson.student)):
            refused[block.name] = "it shares all its parameters with others"
    refused |= {choice.site.name: "a stack" for choice in lesson.plan.choices if choice.site.members}
    words = ", ".join(f"{name} ({reason})" for name, reason in refused.items())
    able = {block.name: block for block in blocks if block.name not in refused}
    running = [able[name] for name in seen if name in able]
    most = max(SAMPLES, sum(batch.size for batch in lesson.samples))
    found = stretches(running, {name: one.elements for name, one in seen.items()}, ELEMENTS, most)
    return found, f" (left as they are: {words})" if words else ""


def _train(lesson: Lesson, found: list[Stretch], kept: "_Kept", path: "_Path") -> None:
    """All blocks in the order in which they run."""
    blocks = [block for stretch in found for block in stretch.blocks]
    clock = _Clock(lesson.training, blocks)
    with Ticks(lesson.progress, NAME) as ticks, closing(_passages(lesson, found)) as stops:
        for number, (learned, unseen) in enumerate(stops):
            block = learned.block
            make = partial(
                train_block,
                lesson.student,
                lesson.teacher,
                learned,
                unseen,
                clock.training(block, sum(batch.size for batch in learned.batches)),
                work=lesson.work,
                progress=_Share(ticks, number, len(blocks)),
                ranks=lesson.ranks,
            )
            before = copied(block.of(lesson.student))
            path.add(block, before, kept.block(block, make))
            ticks.show((number + 1) / len(blocks), path.figures[-1])


Stops = Generator[tuple[Passage, Passage], None, None]
"""At each block what is learned from, and what judges there."""


def _passages(lesson: Lesson, found: list[Stretch]) -> Stops:
    """All blocks, stretch by stretch."""
    variation = variation_of(lesson.teacher, lesson.judges, lesson.training)
    for stretch in found:
        yield from _along(lesson, stretch, variation)


def _along(lesson: Lesson, stretch: Stretch, variation: Variation) -> Stops:
    """The blocks of one stretch; its samples are given up at its end, before those of the next are made."""
    learned = _varied(lesson, stretch.room, variation)
    unseen = _cut(merged(lesson.judges, max(1, stretch.room // 4)), LANES // 4)
    with closing(passages(lesson.teacher, lesson.student, stretch.blocks, [*learned, *unseen])) as stops:
        for passage in stops:
            yield (
                Passage(passage.block, passage.batches[: len(learned)]),
                Passage(passage.block, passage.batches[len(learned) :]),
            )


class _Path:
    """The student after each block, by the divergence of the whole from the original on samples to judge by.

    The errors of blocks can fall and that rise above what it was; then the last blocks are taken back until it does
    not. To go back to where it is least would be to trust it too much: it hangs on a few samples, the errors on all.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self.targets = outputs(lesson.teacher, lesson.judges)
        self.steps: list[tuple[Block, dict[str, Tensor]]] = []
        self.trained: dict[str, Trained] = {}
        self.figures = [self._figure()]

    def add(self, block: Block, before: dict[str, Tensor], trained: Trained) -> None:
        """A block that was trained, and its tensors before that."""
        self.steps.append((block, before))
        self.trained[block.name] = trained
        self.figures.append(self._figure())

    def back(self) -> int:
        """Take blocks back; returns how many stay trained."""
        count = max(at for at, figure in enumerate(self.figures) if at == 0 or figure <= self.figures[0])
        for block, before in self.steps[count:]:
            put(block.of(self.lesson.student), before)
        return count

    def text(self, count: int) -> str:
        """One clause about what stays."""
        before, after = self.figures[0], self.figures[count]
        if not count:
            return f"divergence on validation samples no lower than {before:.4g}, so all is as it was"
        rest = [block.name for block, _ in self.steps[count:]]
        back = f" (taken back, because it rose: {', '.join(rest)})" if rest else ""
        return f"divergence on validation samples {before:.4g} -> {after:.4g}{back}"

    def _figure(self) -> float:
        lesson = self.lesson
        return lesson.ranks.agreed(divergence(self.targets, outputs(lesson.student, lesson.judges)))


def _varied(lesson: Lesson, room: int, variation: Variation) -> list[Batch]:
    """What is learned from: the samples, and varied ones where images bear it."""
    samples = merged(lesson.samples, room)
    generator = torch.Generator().manual_seed(lesson.training.seed)
    count = sum(batch.size for batch in samples)
    most = min(SAMPLES, room, count * IMAGES // max(1, sum(batch.elements for batch in samples)))
    copies = most // count - 1 if variation.shift or variation.flip else 0
    more = [variation.apply(one, variation.draw(one.size, generator)) for _ in range(copies) for one in samples]
    return _cut(merged([*samples, *more], room), LANES)


def _cut(batches: list[Batch], lanes: int) -> list[Batch]:
    """Into about so many parts; of more shapes than that the first ones."""
    size = -(-sum(batch.size for batch in batches) // lanes)
    return [batch.part(at, at + size) for batch in batches[:lanes] for at in range(0, batch.size, size)]


def _summary(found: dict[str, Trained]) -> str:
    better = [one for one in found.values() if one.improved]
    text = f"{len(better)} of {len(found)} blocks improved"
    if better:
        falls = torch.tensor([max(one.after, 1e-30) / one.before for one in better], dtype=torch.float64)
        text += f", their errors on validation samples by {100 * (1 - falls.log().mean().exp()):.3g} % on average"
    failed = [f"{name}: {one.failure}" for name, one in found.items() if one.failure]
    return text + (f" (taken back to the best state before: {'; '.join(failed)})" if failed else "")


class _Clock:
    """Shares a time out among the blocks by their multiply-accumulates."""

    def __init__(self, training: Training, blocks: list[Block]) -> None:
        self.given, self.start = training, perf_counter()
        self.left = sum(block.macs for block in blocks)

    def training(self, block: Block, samples: int) -> Training:
        """How a block is trained: about `STEPS` steps, fewer where its share of the time is over before."""
        given = self.given
        batch = given.batch if "batch" in given.model_fields_set else BATCH
        epochs = given.epochs or min(EPOCHS, max(1, round(STEPS / max(1, samples // batch))))
        changes: dict[str, Any] = {"batch": batch, "epochs": epochs}
        if given.time is not None:
            left = given.time - (perf_counter() - self.start)
            changes["time"] = max(left * block.macs / max(self.left, 1), 1e-3)
        self.left -= block.macs
        return given.model_copy(update=changes)


class _Share:
    """Progress of the training of one block, as a part of the whole."""

    def __init__(self, ticks: Ticks, number: int, count: int) -> None:
        self.ticks, self.number, self.count = ticks, number, count

    def __call__(self, items: Iterable[Any], label: object, total: int | None = None) -> Iterator[Any]:
        for at, item in enumerate(items):
            self.ticks.label.text = f"{NAME}, {label}"
            self.ticks.advance((self.number + at / (total or 100)) / self.count)
            yield item


class _Kept:
    """Finished blocks in the folder of unfinished work."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        networks = (digest(tensors_of(model)) for model in (lesson.student, lesson.teacher))
        data = (Samples(batches).key for batches in (lesson.samples, lesson.judges))
        training = lesson.training.model_dump_json(exclude={"checkpoint", "time"})
        self.key = (*networks, *data, training, lesson.plan.model_dump_json())

    def block(self, block: Block, make: Callable[[], Trained]) -> Trained:
        """The block as it was trained before, or as `make` trains it."""
        chain = block.of(self.lesson.student)

        def made() -> Piece:
            found = make()
            return Piece(copied(chain), json.dumps(asdict(found)))

        piece = self.lesson.remember(key_of("block", *self.key, block.name), made)
        put(chain, piece.tensors)
        return Trained(**json.loads(piece.text))


RECOVERIES.register(
    NAME, Recovery(NAME, "each block trained to give what the original's gives; no labels", reconstruction, True)
)
