"""The whole story on one screen: a real network in, a smaller real network out."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from polyad.allocators.allocate import allocate, check_limits, check_reachable, with_floor, within_memory
from polyad.allocators.base import ALLOCATORS
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.cost import recounted
from polyad.damages.assess import DEFAULT, assess
from polyad.damages.base import DAMAGES, Ground
from polyad.decompositions.base import FORMS
from polyad.drop import judge_of, least_share, work_of
from polyad.errors import BudgetError, ModelError
from polyad.evaluation import evaluate
from polyad.expand import Expanded, expand, expand_as, in_use, redo
from polyad.gather import gather
from polyad.latency import Latencies, keep, latency_of
from polyad.metrics import METRICS
from polyad.naming import inside
from polyad.outcome import CurvePoint, Report
from polyad.overrides import check_fixed, ignoring, replayed
from polyad.peaks import peaks_of, with_peaks
from polyad.progress import Progress, silent
from polyad.propose import outline, propose
from polyad.rebuild import factorise, rebuild, untrained
from polyad.records import Menu, Plan, Statistics, Trace
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.report.collect import Evidence, collect
from polyad.runtimes.base import RUNTIMES
from polyad.settings import Options, Settings
from polyad.sites import stacked, stacked_as
from polyad.splits import Call, hold_out
from polyad.stopwatch import Stopwatch
from polyad.trace import trace
from polyad.work import NOTHING_KEPT, Work

OUTLINE_MARGIN = 0.05
"""How far a budget may lie below what the outline of the menu promises before it is refused without a menu."""

SEARCHED_WITH = "statistics"
"""Recovery of the networks that a search for a drop makes, where any is wanted: the quick one."""

HELD_OUT = 0.2
"""Share of the calibration samples that no fit sees."""


@dataclass(frozen=True)
class Result:
    """A compressed network with its evidence."""

    model: nn.Module
    plan: Plan
    report: Report


@dataclass(frozen=True)
class Observed:
    """A network that has been expanded, traced and observed: what deciding and fitting work on."""

    expanded: Expanded
    trace: Trace
    statistics: Mapping[str, Statistics]
    fitted: Sequence[Batch | Call]
    held_out: Sequence[Batch]


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
    settings, work = settings_of(**options), work_of(work, budget)
    seen = look(model, data, settings, budget=budget, work=work, progress=progress)
    return _decide(model, seen, budget, settings, validation, work=work, progress=progress)[0]


def compress(
    model: nn.Module,
    data: Any,
    *,
    budget: Budget | None = None,
    plan: Plan | None = None,
    evaluation: Any = None,
    validation: Any = None,
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
        source: what builds the architecture ("zoo:resnet20"), so that the saved folder loads without a model.
        work: a folder for finished statistics and fits, from which a later call with the same network and data goes on
            where this one was interrupted; yours to remove. None by default.
        options: the fields of `Settings`.

    Returns:
        The compressed network, the plan and the report.
    """
    if plan is None and budget is None:
        raise BudgetError("Give a budget, as in budget=Budget(params=0.5), or a plan.")
    settings, work, clock = settings_of(**options), work_of(work, budget), Stopwatch()
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
            plan, curve = _decide(model, seen, budget, settings, validation, work=work, progress=progress)  # type: ignore[arg-type]
    plan = recounted(replayed(plan, seen.trace)).model_copy(update={"model": source})
    with clock("fit"):
        fitted = factorise(seen.expanded.model, plan, seen.statistics, progress=progress, work=work)
    student = rebuild(_with_expansions_in_use(model, plan), fitted)
    with clock("recover"):
        notes = _recover(student, plan, seen, settings.recover, progress)
    if judged is not None:
        with clock("evaluate"):
            after = evaluate(student, judged, reference=model)
    costs, missed = _costs(model, student, plan, seen, settings)
    measured = {**costs, "before": before, "after": after, "curve": curve, "seconds": clock.seconds}
    evidence = Evidence(seen.expanded.model, student, seen.trace, plan, fitted, seen.statistics)
    return Result(student, plan, collect(evidence, settings, recovered=(*notes, *missed), **measured))


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


def look(
    model: nn.Module,
    data: Any,
    settings: Settings,
    *,
    budget: Budget | None = None,
    plan: Plan | None = None,
    work: Work = NOTHING_KEPT,
    progress: Progress = silent,
) -> Observed:
    """Expand and trace a network and observe its sites; a budget far out of reach is refused in between.

    With a plan its expansions are done again, and no others.
    """
    if callable(data) and not isinstance(data, nn.Module):
        fitted, held_out = [Call(data)], []
    else:
        fitted, held_out = hold_out(as_batches(data, settings.samples), HELD_OUT)
    example = fitted[0].take(2)
    expanded = expand(model, example, settings.split) if plan is None else expand_as(model, example, plan)
    found = ignoring(trace_expanded(expanded, example), settings.ignore)
    found = stacked(found, settings.stack) if plan is None else stacked_as(found, plan)
    check_fixed(found, settings.fixed)
    if budget is not None:
        check_limits(settings.allocator, budget)
        rough = outline(expanded.model, found, settings)
        rough = rough if budget.memory is None else within_memory(with_peaks(expanded.model, rough, example), budget)
        if budget.latency is not None:
            rough = Latencies.of(model, rough, settings, fitted, progress).menu()
        check_reachable(rough, budget, margin=OUTLINE_MARGIN)
    metric = METRICS[plan.metric if plan else settings.metric]
    weighs = plan is None and DAMAGES[settings.damage or DEFAULT].needs_curvature
    statistics = gather(
        expanded.model,
        found.sites,
        fitted,
        held_out,
        curvature=metric.needs_curvature or weighs,
        seed=settings.seed,
        memory=settings.memory,
        work=work,
        progress=progress,
    )
    return Observed(expanded, found, statistics, fitted, held_out)


def trace_expanded(expanded: Expanded, example: Batch | Call) -> Trace:
    """The trace of an expanded network, with the modules that could not be expanded among what is refused."""
    try:
        return expanded.complete(trace(expanded.model, example))
    except ModelError as error:
        reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in expanded.refused)
        raise ModelError(f"{error} {reasons}." if reasons else str(error)) from None


def _decide(
    model: nn.Module,
    seen: Observed,
    budget: Budget,
    settings: Settings,
    validation: Any,
    *,
    work: Work,
    progress: Progress,
) -> tuple[Plan, tuple[CurvePoint, ...]]:
    """The plan of a budget; with a drop the one that a search finds, and what it measured."""

    def make(plan: Plan) -> nn.Module:
        fitted = factorise(seen.expanded.model, plan, seen.statistics, progress=progress, work=work)
        student = rebuild(_with_expansions_in_use(model, plan), fitted)
        _recover(student, plan, seen, "none" if settings.recover == "none" else SEARCHED_WITH, silent)
        return student

    judge = None if budget.drop is None else judge_of(model, validation, make, work)
    menu = propose(seen.expanded.model, seen.trace, seen.statistics, settings, progress=progress, work=work)
    batches = [batch for batch in (*seen.held_out, *seen.fitted) if isinstance(batch, Batch)]
    menu = assess(menu, settings.damage, Ground(seen.expanded.model, seen.statistics, batches, work, progress))
    menu = ALLOCATORS[settings.allocator].prepare(seen.expanded.model, with_floor(menu, settings.floor))
    if budget.memory is not None:
        menu = with_peaks(seen.expanded.model, menu, seen.fitted[0])

    def decide(priced: Menu, wanted: Budget) -> Plan:
        found = allocate(priced, wanted, allocator=settings.allocator, refused=seen.trace.refused)
        return found.model_copy(update={"expanded": dict(seen.expanded.names)})

    def shape(plan: Plan) -> nn.Module:
        return untrained(_with_expansions_in_use(model, plan), plan)

    if budget.latency is not None:
        times = Latencies.of(model, menu, settings, seen.fitted, progress)
        if judge is None:
            return keep(times, budget, decide, shape), ()
        return least_share(times.menu(), budget, partial(times.solved, decide), judge)
    given = partial(decide, menu)
    return (given(budget), ()) if judge is None else least_share(menu, budget, given, judge)


def _costs(
    model: nn.Module, student: nn.Module, plan: Plan, seen: Observed, settings: Settings
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the budget names and only the finished network shows, and notes where that misses its limit."""
    memory, exceeded = peaks_of(model, student, plan.budget, seen.fitted[0])
    latency, late = latency_of(model, student, plan, settings, seen.fitted)
    return {"memory": memory, "latency": latency}, (*exceeded, *late)


def _with_expansions_in_use(model: nn.Module, plan: Plan) -> nn.Module:
    """The original with those modules expanded in which the plan replaces something."""
    steps = in_use(plan)
    return redo(deepcopy(model), steps) if steps else model


def _recover(student: nn.Module, plan: Plan, seen: Observed, level: str, progress: Progress) -> tuple[str, ...]:
    recovery = RECOVERIES[level]
    batches = [batch for batch in seen.fitted if isinstance(batch, Batch)]
    if level != "none" and not (batches and seen.held_out):
        return (f"{level}: left out, it needs batches of which some are held out",)
    unused = plan.expanded.keys() - in_use(plan).keys()
    there = [choice for choice in plan.choices if not any(inside(choice.site.modules[0], name) for name in unused)]
    lesson_plan = plan.model_copy(update={"choices": tuple(there)})  # the student has no other sites
    return recovery.run(Lesson(student, seen.expanded.model, lesson_plan, batches, seen.held_out, progress))
