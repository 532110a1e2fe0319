"""The whole story on one screen: a real network in, a smaller real network out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from polyad.allocators.base import ALLOCATORS
from polyad.batches import as_batches
from polyad.budget import Budget
from polyad.cost import recounted
from polyad.damages.assess import DEFAULT
from polyad.damages.base import DAMAGES
from polyad.deciding import Decision
from polyad.decompositions.base import FORMS
from polyad.drop import work_of
from polyad.errors import BudgetError
from polyad.evaluation import evaluate
from polyad.latency import latency_of
from polyad.lessons import learn, lesson
from polyad.looking import Observed, look
from polyad.making import Made, make
from polyad.metrics import METRICS
from polyad.outcome import Report
from polyad.overrides import replayed
from polyad.peaks import peaks_of
from polyad.progress import Progress, silent
from polyad.records import Plan
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.report.collect import Evidence, collect
from polyad.respending import check, learn_twice
from polyad.runtimes.base import RUNTIMES
from polyad.settings import Options, Settings
from polyad.stopwatch import Stopwatch
from polyad.work import Work


@dataclass(frozen=True)
class Result:
    """A compressed network with its evidence."""

    model: nn.Module
    plan: Plan
    report: Report


def plan(
    model: nn.Module,
    data: Any,
    *,
    budget: Budget,
    validation: Any = None,
    work: Work | str | Path | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Plan:
    """Decide only: which form and rank each layer would get. `print` the plan, edit it, hand it to `compress`.

    Args:
        model: a trained network; it is not changed.
        data: calibration inputs: a DataLoader, an iterable of tensors, tuples or dicts, or a function that runs the
            model.
        budget: what to keep.
        validation, work: as for `compress`.
        options: the fields of `Settings`.
    """
    settings = settings_of(**options)
    work = work_of(work, searches=_searches(budget, settings))
    seen = look(model, data, settings, budget=budget, work=work, progress=progress)
    return Decision(model, seen, settings, work, progress).plan(budget, validation)[0]


def compress(
    model: nn.Module,
    data: Any,
    *,
    budget: Budget | None = None,
    plan: Plan | None = None,
    evaluation: Any = None,
    validation: Any = None,
    learn_from: Any = None,
    source: str = "",
    work: Work | str | Path | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Result:
    """Compress a network to a budget, or as a plan says.

    Args:
        model: a trained network; it is not changed.
        data: calibration inputs, as for `plan`; labels are not looked at.
        budget: what to keep; not needed with a plan.
        plan: decisions made before.
        evaluation: data for the before and after figures, labelled where there are labels; none by default.
        validation: labelled data that a budget with a drop is measured on; neither of the other two.
        learn_from: samples for recovery levels that train, of which the last eighth judges; the calibration inputs by
            default. Labels are looked at by `finetune` alone.
        source: what builds the architecture ("zoo:resnet20"), so that the saved folder loads without a model.
        work: a folder for finished statistics and fits, from which a later call with the same network and data goes on
            where this one was interrupted; yours to remove. None by default.
        options: the fields of `Settings`.

    Returns:
        The compressed network, the plan and the report.
    """
    if plan is None and budget is None:
        raise BudgetError("Give a budget, as in budget=Budget(params=0.5), or a plan.")
    settings, clock = settings_of(**options), Stopwatch()
    check(settings.recover, settings.training, budgeted=plan is None and budget is not None and budget.drop is None)
    work = work_of(work, searches=_searches(budget, settings))
    with clock("trace and observe"):
        wanted = None if plan else budget
        seen = look(model, data, settings, budget=wanted, plan=plan, work=work, progress=progress)
    before, after, curve = None, None, ()
    judged = list(evaluation) if isinstance(evaluation, Iterator) else evaluation  # it is read twice
    if judged is not None:
        with clock("evaluate"):  # at once, so that data that do not fit are refused before the long work
            before = evaluate(model, judged, reference=model)
    if plan is None:
        with clock("propose and allocate"):
            plan, curve = Decision(model, seen, settings, work, progress).plan(budget, validation)  # type: ignore[arg-type]
    with clock("fit"):
        made = _made(model, plan, seen, source, work=work, progress=progress)
    with clock("recover"):
        given: dict[str, Any] = {"settings": settings, "budget": budget, "learn_from": learn_from, "source": source}
        made, notes = _recovered(made, seen, **given, work=work, progress=progress)
    student, plan = made.student, made.plan
    if judged is not None:
        with clock("evaluate"):
            after = evaluate(student, judged, reference=model)
    costs, missed = _costs(model, student, plan, seen, settings)
    measured = {**costs, "before": before, "after": after, "curve": curve, "seconds": clock.seconds}
    evidence = Evidence(seen.expanded.model, student, seen.trace, plan, made.fitted, seen.statistics)
    return Result(student, plan, collect(evidence, settings, recovered=(*notes, *missed), **measured))


def _made(model: nn.Module, plan: Plan, seen: Observed, source: str, *, work: Work, progress: Progress) -> Made:
    """The network of a plan, whose counts are those of the network."""
    plan = recounted(replayed(plan, seen.trace)).model_copy(update={"model": source})
    return make(model, plan, seen, work=work, progress=progress)


def _recovered(
    made: Made,
    seen: Observed,
    *,
    settings: Settings,
    budget: Budget | None,
    learn_from: Any,
    source: str,
    **shared: Any,
) -> tuple[Made, tuple[str, ...]]:
    """A network recovered, perhaps with other ranks, and notes."""
    samples = None if learn_from is None else as_batches(learn_from)  # it may be read twice

    def lesson_of(one: Made) -> Lesson:
        calibration, training = (seen.fitted, seen.held_out), settings.training
        teacher = seen.expanded.model
        return lesson(one.student, teacher, one.plan, calibration, training=training, learn_from=samples, **shared)

    def again(dense: nn.Module) -> Made:
        other = look(dense, [*seen.fitted, *seen.held_out], settings, budget=budget, **shared)
        decided, _ = Decision(dense, other, settings, **shared).plan(budget, None)  # type: ignore[arg-type]
        return _made(dense, decided, other, source, **shared)

    if settings.training.respend:
        return learn_twice(made, settings.recover, lesson_of, again)
    return made, learn(lesson_of(made), settings.recover)


def _searches(budget: Budget | None, settings: Settings) -> bool:
    """Whether several networks are made before one is chosen."""
    return settings.finalists > 1 or (budget is not None and budget.drop is not None)


def settings_of(**options: Unpack[Options]) -> Settings:
    """The settings, with unknown names refused before any work.

    Raises:
        UnknownNameError: a form, metric, damage, allocator or recovery level that does not exist.
    """
    settings = Settings(**options)  # type: ignore[arg-type]
    chosen = (
        (RUNTIMES, settings.runtime),
        (METRICS, settings.metric),
        (DAMAGES, settings.damage or DEFAULT),
        (ALLOCATORS, settings.allocator),
        (RECOVERIES, settings.recover),
    )
    FORMS.menu(settings.forms)
    for registry, name in chosen:
        registry[name]
    return settings


def _costs(
    model: nn.Module, student: nn.Module, plan: Plan, seen: Observed, settings: Settings
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the budget names and only the finished network shows, and notes where that misses its limit."""
    memory, exceeded = peaks_of(model, student, plan.budget, seen.fitted[0])
    latency, late = latency_of(model, student, plan, settings, seen.fitted)
    return {"memory": memory, "latency": latency}, (*exceeded, *late)
