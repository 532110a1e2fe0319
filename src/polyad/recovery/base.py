"""What a recovery level is."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import prod

from torch import Tensor, nn

from polyad.batches import Batch
from polyad.digests import digest
from polyad.progress import Progress
from polyad.records import Plan, Site
from polyad.registry import Registry
from polyad.settings import Training
from polyad.training.blocks import find_blocks
from polyad.training.loop import Course, train
from polyad.training.matching import Matching, has_labels, own_share, variation_of
from polyad.training.ranks import ALONE, Ranks
from polyad.training.samples import Samples
from polyad.training.settling import settle
from polyad.work import NOTHING_KEPT, Piece, Work

ELEMENTS = 1 << 27
"""Largest activation of all calibration inputs together, in elements (512 MiB of float32)."""


@dataclass(frozen=True)
class Lesson:
    """What a recovery works with.

    Attributes:
        student: the compressed network; recovery changes its tensors in place, never its layers or their number.
        teacher: the original network, only read.
        plan: what was replaced.
        calibration: batches to learn from; labels are not looked at.
        held_out: batches that decide whether a change is kept.
        progress: shows how far it is.
        training: how levels that train go about it.
        learned: batches that they learn from, with labels where there are any; `calibration` where there are none.
        unseen: batches, none of them learned from, that decide which state they keep; `held_out` where there are none.
        work: where they keep checkpoints.
        ranks: the processes that share their work.
    """

    student: nn.Module
    teacher: nn.Module
    plan: Plan
    calibration: Sequence[Batch]
    held_out: Sequence[Batch]
    progress: Progress
    training: Training = Training()
    learned: Sequence[Batch] = ()
    unseen: Sequence[Batch] = ()
    work: Work = NOTHING_KEPT
    ranks: Ranks = ALONE

    @property
    def samples(self) -> Sequence[Batch]:
        """To train on."""
        return self.learned or self.calibration

    @property
    def judges(self) -> Sequence[Batch]:
        """To judge a training by."""
        return self.unseen or self.held_out

    def remember(self, key: str, make: Callable[[], Piece]) -> Piece:
        """A finished piece of work of an earlier run, as the first process has it; else made, and kept by that one."""
        piece = self.ranks.agreed(self.work.find(key) if self.ranks.first else None)
        if piece is None:
            piece = make()
            if self.ranks.first:
                self.work.keep(key, piece)
        return piece


@dataclass(frozen=True)
class Recovery:
    """One level; `run` changes the student and returns notes for the report.

    `trains` says whether it takes many steps on as many samples as there are, rather than one pass over a few.
    """

    name: str
    summary: str
    run: Callable[[Lesson], tuple[str, ...]]
    trains: bool = False


def samples_at_once(sites: Sequence[Site]) -> int:
    """As many samples as the largest output of a site allows."""
    sizes = (site.layer.out_features * prod(site.layer.output_size(run.size)) for site in sites for run in site.runs)
    return max(1, ELEMENTS // max(sizes))


CONFIDENCE = 1.0
"""Standard errors, over the held-out samples, by which a divergence has to differ. At 0 `statistics` keeps many
corrections by chance: on 2,000 other images ResNet-20 at 35 % of its parameters then got worse (divergence .057 to
.063; at 1 it stayed at .057); at 2 most of what helps is lost (at 15 %: .86 to .78; at 1 to .68)."""


def rose(before: Tensor, after: Tensor) -> bool:
    """Whether divergences of the same samples are higher on average, by more than chance would do: a few of two hundred
    samples may hold most of it. A network that was broken and is not any more has not risen."""
    if not after.isfinite().all():
        return bool(before.isfinite().all())
    change = after - before
    error = float(change.std()) / len(change) ** 0.5 if len(change) > 1 else 0.0
    return float(change.mean()) > CONFIDENCE * error


def match_outputs(lesson: Lesson, name: str, *, labels: bool) -> str:
    """Train the whole student towards the original's outputs, and the labels if they are to be used; a note."""
    samples, unseen = Samples(lesson.samples), lesson.judges
    if labels and lesson.training.augment == "mix":
        return f"{name}: left out, mixed images have no label of their own: --augment flip varies them without"
    if labels and not (has_labels(lesson.teacher, samples.parts) and has_labels(lesson.teacher, unseen)):
        return f"{name}: left out, it needs labels of classes or tokens for all samples"
    blocks = _blocks(lesson) if lesson.training.features else []
    matching = Matching(lesson.teacher, lesson.student, unseen, lesson.training, labels=labels, blocks=blocks)
    course = Course(
        lesson.student,
        samples,
        matching.loss,
        matching.figure,
        name,
        variation=variation_of(lesson.teacher, unseen, lesson.training, mix=not labels),
        choices=lesson.plan.choices,
        key=(digest(lesson.teacher.state_dict()), Samples(unseen).key, Samples(lesson.calibration).key),
        own=own_share(matching.expected, unseen),
        settle=partial(settle, lesson.student, lesson.teacher, lesson.plan.choices, lesson.calibration),
    )
    with closing(matching.features):
        found = train(course, lesson.training, work=lesson.work, progress=lesson.progress, ranks=lesson.ranks)
    return f"{name}: {found.text('validation loss' if labels else 'divergence on validation samples')}"


def _blocks(lesson: Lesson) -> list[str]:
    """The modules that end blocks."""
    return [block.modules[-1] for block in find_blocks(lesson.teacher, lesson.plan.choices, lesson.training.blocks)]


RECOVERIES: Registry[Recovery] = Registry("recovery level", "polyad.recovery")
RECOVERIES.register("none", Recovery("none", "the network as it was rebuilt", lambda lesson: ()))
