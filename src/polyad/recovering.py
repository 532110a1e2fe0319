"""Recover a network that was compressed before: the same levels as in `compress`, in a run of their own."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from polyad.batches import as_batches
from polyad.checkpoint import PLAN, load_network, read_plan
from polyad.errors import DataError
from polyad.evaluation import evaluate
from polyad.expand import expand_as
from polyad.lessons import learn, lesson
from polyad.looking import HELD_OUT
from polyad.memory_format import as_images
from polyad.pipeline import Result
from polyad.progress import Progress, silent
from polyad.rebuild import check_fits
from polyad.recovery.base import RECOVERIES
from polyad.report.files import read_report
from polyad.respending import check
from polyad.settings import Training
from polyad.splits import hold_out
from polyad.stopwatch import Stopwatch
from polyad.training.ranks import ranks
from polyad.work import Work


def open_result(folder: str | Path, model: nn.Module | None = None) -> Result:
    """What `save` has written: network, plan and report.

    Args:
        folder, model: as for `load`.

    Raises:
        CheckpointError: the folder is not Polyad's, or is damaged.
    """
    return Result(load_network(folder, model), read_plan(Path(folder) / PLAN), read_report(folder))


def recover(
    result: Result,
    model: nn.Module,
    data: Any,
    *,
    level: str = "auto",
    training: Training | None = None,
    learn_from: Any = None,
    evaluation: Any = None,
    samples: int = 256,
    work: Work | str | Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Recover a compressed network: the plan and all counts stay, the network gets better on held-out samples or stays.

    Started by `accelerate launch` or `torchrun`, the processes share every step of a training, and each
    returns the same.

    Args:
        result: from `compress`, or of a folder (`open_result`); it is not changed.
        model: the original network, which is learned from; it is not changed.
        data: calibration inputs, as for `compress`.
        level: a recovery level (docs/recovery.md).
        training: how levels that train go about it.
        learn_from: samples for levels that train, of which the last eighth judges; `data` by default.
        evaluation: data for the figure afterwards; the report's own is taken out where there is none.
        samples: calibration samples; a fifth of them are held out.
        work: a folder for checkpoints, from which a later call with the same networks, data and settings goes on.

    Returns:
        The recovered network, the same plan, the report with what was done.

    Raises:
        PlanError: the original is not the one that the plan was made for.
        UnknownNameError: there is no such level.
    """
    RECOVERIES[level]
    training, clock, work = training or Training(), Stopwatch(), Work.at(work)
    check(level, training, budgeted=False)
    for choice in result.plan.choices:
        check_fits(model, choice)
    fitted, held_out = hold_out(as_images(model, as_batches(data, samples)), HELD_OUT)
    if not held_out:
        raise DataError("One sample cannot be fitted to and held out as well: give more.")
    teacher = expand_as(model, fitted[0].take(2), result.plan).model
    shared: dict[str, Any] = {"training": training, "work": work, "ranks": ranks(), "progress": progress}
    shared["learn_from"] = learn_from if learn_from is None else as_batches(learn_from)  # it may be read twice
    student, control = deepcopy(result.model), None
    with clock("recover"):
        notes = learn(lesson(student, teacher, result.plan, (fitted, held_out), **shared), level)
    if training.dense_control:
        control = deepcopy(teacher)
        nothing = result.plan.model_copy(update={"choices": ()})
        with clock("dense control"):
            learn(lesson(control, teacher, nothing, (fitted, held_out), **shared), level)
    changes: dict[str, Any] = {
        "recovery": f"{result.report.recovery}, {level}",
        "recovered": (*result.report.recovered, *notes),
        "after": None if evaluation is None else evaluate(student, evaluation, reference=model),
        "control": None if evaluation is None or control is None else evaluate(control, evaluation, reference=model),
        "seconds": dict(result.report.seconds) | clock.seconds,
    }
    return Result(student, result.plan, result.report.model_copy(update=changes))
