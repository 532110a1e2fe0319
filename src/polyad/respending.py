"""Rank adaptation: the budget spent once more, on what a training has made of the network so far.

Ranks are chosen before anything is trained. After a share of the training (`Training.respend`) what was learned, the
difference of each weight from where it started, is added to the original's weights; the network that has them is
compressed to the same budget by the same settings, refitted to the original, and trained for the rest of the time. The
network that is closer to the original on samples to judge by is kept: this one, or the one before.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from polyad.decompositions.base import FORMS
from polyad.errors import PolyadError
from polyad.evaluation import divergence, outputs
from polyad.lessons import learn
from polyad.making import Made
from polyad.records import Choice
from polyad.recovery.base import Lesson
from polyad.settings import Training

LEVELS = ("distillation", "finetune")
"""Those that train the whole network."""

REACH = 1.5
"""How much farther from the original the new network may be, refitted but not trained, than the one before it."""

LEAST_SECONDS = 1.0
"""Left for the second part, whatever the time between took."""


def check(level: str, training: Training, budgeted: bool) -> None:
    """Refuse what cannot be done, before the long work.

    Raises:
        PolyadError: another level, no budget to spend, or too few epochs for two parts.
    """
    said = f"respend={training.respend}"
    if not training.respend:
        return
    if level not in LEVELS:
        raise PolyadError(f"{said} parts a training of the whole network: recover by {' or '.join(LEVELS)}.")
    if not budgeted:
        raise PolyadError(f"{said} spends a budget again, in polyad compress: give one without a drop, and no plan.")
    if training.passes == 1:
        raise PolyadError(f"{said} parts the epochs of a training: give two or more.")


def learn_twice(
    made: Made, level: str, lesson_of: Callable[[Made], Lesson], again: Callable[[nn.Module], Made]
) -> tuple[Made, tuple[str, ...]]:
    """Train, spend the budget again, train on; what is kept, and notes.

    Args:
        made: to start from; its student is changed.
        lesson_of: what a network learns, its training that of the whole.
        again: a network with as many parameters as the original -> it compressed by the same settings.
    """
    given, clock = lesson_of(made), perf_counter()
    training, start = given.training, deepcopy(made.student)
    if made.plan.expanded or not given.held_out:
        return made, ("respend: left out, modules were expanded or nothing is held out", *learn(given, level))
    notes = learn(replace(given, training=_first(training)), level)
    figures = [_apart(given)]
    other = again(learned(given.teacher, start, made.student, given.plan.choices))
    new = lesson_of(other)
    notes += learn(new, "refit")
    figures.append(_apart(new))
    rest = _rest(training, perf_counter() - clock)
    on = new if figures[1] <= REACH * figures[0] else given
    notes += learn(replace(on, training=rest), level)
    figures.append(_apart(on))
    kept = other if on is new and figures[2] <= figures[0] else made
    return kept, (*notes, _said(made, other, figures, kept is other))


@torch.no_grad()
def learned(original: nn.Module, start: nn.Module, now: nn.Module, choices: Sequence[Choice]) -> nn.Module:
    """The original with what was learned added to its parameters, but for those of which a student has another number
    (stacks, and layers that leave out channels).

    Args:
        start, now: a compressed network before and after a training.
        choices: what was replaced in it.
    """
    dense = deepcopy(original)
    before, after = dict(start.named_parameters()), dict(now.named_parameters())
    for name, parameter in dense.named_parameters():
        if name in after and after[name].shape == parameter.shape:
            parameter.add_(after[name] - before[name])
    for choice in choices:
        if choice.dense or choice.site.members:
            continue
        layer, module = choice.site.layer, dense.get_submodule(choice.site.name)
        was, weight = (_weight(model, choice) for model in (start, now))
        module.weight.add_(layer.native(weight - was))  # type: ignore[operator, union-attr]
        if layer.bias:
            was, bias = (model.get_submodule(choice.site.name)[-1].bias for model in (start, now))  # type: ignore[index]
            module.bias.add_(bias - was)  # type: ignore[operator, union-attr]
    return dense


def _weight(model: nn.Module, choice: Choice) -> Tensor:
    """The dense weight that the factors of a site make."""
    form, layer = FORMS[choice.form], choice.site.layer
    factors = form.read(model.get_submodule(choice.site.name), layer, choice.rank)  # type: ignore[arg-type]
    return form.reconstruct([factor.double() for factor in factors]).reshape(layer.weight_shape)


def _first(training: Training) -> Training:
    """What comes before the budget is spent again."""
    changes: dict[str, Any] = {}
    if training.passes is not None:
        changes["epochs"] = min(max(1, round(training.respend * training.passes)), training.passes - 1)
    if training.time is not None:
        changes["time"] = training.time * training.respend
    return training.model_copy(update=changes)


def _rest(training: Training, spent: float) -> Training:
    """What comes behind it, so many seconds after the start."""
    changes: dict[str, Any] = {}
    if training.passes is not None:
        changes["epochs"] = training.passes - (_first(training).epochs or 0)
    if training.time is not None:
        changes["time"] = max(training.time - spent, LEAST_SECONDS)
    return training.model_copy(update=changes)


def _apart(lesson: Lesson) -> float:
    """The divergence of the student from the original on samples to judge by."""
    return divergence(outputs(lesson.teacher, lesson.judges), outputs(lesson.student, lesson.judges))


def _said(made: Made, other: Made, figures: Sequence[float], kept: bool) -> str:
    """One clause: figures are those before, behind the refit of the new network, and at the end."""
    pairs = zip(made.plan.choices, other.plan.choices, strict=True)
    changed = sum((a.form, a.rank) != (b.form, b.rank) for a, b in pairs)
    fall = " -> ".join(f"{figure:.4g}" for figure in figures)
    end = "" if kept else ", so the ranks are as they were"
    return f"respend: {changed} of {len(made.plan.choices)} layers got another form or rank, divergence {fall}{end}"
