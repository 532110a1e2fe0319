"""The whole network trained to say what the original says, on varied images; no labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. Images need no labels, but should look
like those that the network will meet.
"""

from polyad.recovery.base import RECOVERIES, Lesson, Recovery, match_outputs


def distillation(lesson: Lesson) -> tuple[str, ...]:
    """Train the student; returns what came of it."""
    return (match_outputs(lesson, "distillation", labels=False),)


RECOVERIES.register(
    "distillation",
    Recovery("distillation", "the whole network trained to give the original's outputs; no labels", distillation, True),
)
