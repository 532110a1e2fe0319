"""Stage 6 as it is called: what a recovery level learns from and is judged on, put together from what a run has."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from polyad.batches import Batch, as_batches
from polyad.expand import in_use
from polyad.naming import inside
from polyad.narrow import narrower_sites
from polyad.progress import Progress
from polyad.records import Plan
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.settings import Training
from polyad.splits import Call, hold_out
from polyad.training.ranks import ALONE, Ranks
from polyad.work import NOTHING_KEPT, Work

JUDGES = 0.125
"""Share of the samples to train on that is held out to judge a training by."""


def lesson(
    student: nn.Module,
    teacher: nn.Module,
    plan: Plan,
    calibration: tuple[Sequence[Batch | Call], Sequence[Batch]],
    *,
    training: Training | None = None,
    learn_from: Any = None,
    work: Work = NOTHING_KEPT,
    ranks: Ranks = ALONE,
    progress: Progress,
) -> Lesson:
    """A lesson.

    Args:
        student, teacher: compressed and original network; what is in use of the plan's expansions is expanded in both.
        calibration: batches that were fitted to, and batches that were held out.
        training, work, ranks: for levels that train.
        learn_from: what they learn from, as for `as_batches`; the last eighth judges. Calibration by default.
    """
    unused = plan.expanded.keys() - in_use(plan).keys()
    gone = narrower_sites(plan)
    there = [
        choice
        for choice in plan.choices
        if choice.site.name not in gone and not any(inside(choice.site.modules[0], name) for name in unused)
    ]
    plan = plan.model_copy(update={"choices": tuple(there)})  # the student has no other sites
    fitted = [batch for batch in calibration[0] if isinstance(batch, Batch)]
    learned, unseen = ([], []) if learn_from is None else hold_out(as_batches(learn_from), JUDGES)
    return Lesson(
        student, teacher, plan, fitted, calibration[1], progress, training or Training(), learned, unseen, work, ranks
    )


def learn(lesson: Lesson, level: str) -> tuple[str, ...]:
    """Run a recovery level where there is anything to learn from; returns what came of it."""
    if level != "none" and not (lesson.calibration and lesson.held_out):
        return (f"{level}: left out, it needs batches of which some are held out",)
    return RECOVERIES[level].run(lesson)
