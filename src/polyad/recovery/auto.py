"""The ladder climbed from below, as long as it pays and within a time."""

from dataclasses import replace
from time import perf_counter

from polyad.evaluation import divergence, outputs
from polyad.recovery.base import RECOVERIES, Lesson, Recovery

LADDER = ("refit", "reconstruction", "distillation")
"""In rising cost, none of them with labels; `refit` ends with `statistics`."""

SECONDS = 1800.0
"""For all of it, where no time is given; a level that trains then ends after the usual number of epochs as well."""

LEAST = 1e-3
"""Held-out divergence from the original below which nothing is left to win back: one prediction in 500 or so."""


def auto(lesson: Lesson) -> tuple[str, ...]:
    """Climb; returns the notes of each level, and why it ended."""
    start, notes = perf_counter(), ()
    limit = lesson.training.time or SECONDS
    levels = [RECOVERIES[name] for name in LADDER if name in RECOVERIES]
    targets = outputs(lesson.teacher, lesson.judges)
    for at, level in enumerate(levels):
        left = lesson.ranks.agreed(limit - (perf_counter() - start))
        found = lesson.ranks.agreed(divergence(targets, outputs(lesson.student, lesson.judges)))
        if found < LEAST:
            return (*notes, f"auto: {level.name} and what follows left out, the divergence is down to {found:.2g}")
        if level.trains and left <= 0:
            return (*notes, f"auto: {level.name} and what follows left out, the {limit:.0f} s are over")
        sharing = max(1, sum(one.trains for one in levels[at:]))  # the time that is left
        limits = {"time": left / sharing, "epochs": lesson.training.passes}
        notes += level.run(replace(lesson, training=lesson.training.model_copy(update=limits)))
    return notes


RECOVERIES.register(
    "auto", Recovery("auto", f"{', '.join(LADDER)} in turn, while it pays and within --time (30m)", auto, True)
)
