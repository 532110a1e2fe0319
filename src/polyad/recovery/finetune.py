"""The whole network trained on labels and on what the original says, mixed by `Training.labels`."""

from polyad.recovery.base import RECOVERIES, Lesson, Recovery, match_outputs


def finetune(lesson: Lesson) -> tuple[str, ...]:
    """Train the student; returns what came of it, or why it was left out."""
    return (match_outputs(lesson, "finetune", labels=True),)


RECOVERIES.register(
    "finetune", Recovery("finetune", "the whole network trained on labels and the original's outputs", finetune, True)
)
