"""The whole story on one screen: a real network in, a smaller real network out."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
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
from polyad.evaluation import divergence, evaluate, outputs
from polyad.expand import Expanded, expand, expand_as, in_use, redo
from polyad.finalists import STEPS, WAYS, best_of, repriced
from polyad.gather import gather
from polyad.lessons import learn, lesson
from polyad.metrics import METRICS
from polyad.outcome import CurvePoint, Report
from polyad.overrides import check_fixed, ignoring, replayed
from polyad.peaks import peaks_of, with_peaks
from polyad.progress import Progress, silent
from polyad.propose import outline, propose
from polyad.rebuild import FINAL_STEPS, factorise, rebuild
from polyad.records import Plan, Statistics, Trace
from polyad.recovery.base import RECOVERIES
from polyad.report.collect import Evidence, collect
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
    settings = settings_of(**options)
    work = work_of(work, searches=_searches(budget, settings))
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
            plan, curve = _decide(model, seen, budget, settings, validation, work=work, progress=progress)  # type: ignore[arg-type]
    plan = recounted(replayed(plan, seen.trace)).model_copy(update={"model": source})
    with clock("fit"):
        fitted = factorise(seen.expanded.model, plan, seen.statistics, progress=progress, work=work)
    student = rebuild(_with_expansions_in_use(model, plan), fitted)
    with clock("recover"):
        notes = learn(
            lesson(
                student,
                seen.expanded.model,
                plan,
                (seen.fitted, seen.held_out),
                training=settings.training,
                learn_from=learn_from,
                work=work,
                progress=progress,
            ),
            settings.recover,
        )
    if judged is not None:
        with clock("evaluate"):
            after = evaluate(student, judged, reference=model)
    memory, exceeded = peaks_of(model, student, plan.budget, seen.fitted[0])
    measured = {"before": before, "after": after, "memory": memory, "curve": curve, "seconds": clock.seconds}
    evidence = Evidence(seen.expanded.model, student, seen.trace, plan, fitted, seen.statistics)
    return Result(student, plan, collect(evidence, settings, recovered=(*notes, *exceeded), **measured))


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

    def make(plan: Plan, progress: Progress = progress, steps: int = FINAL_STEPS) -> nn.Module:
        fitted = factorise(seen.expanded.model, plan, seen.statistics, steps=steps, progress=progress, work=work)
        return rebuild(_with_expansions_in_use(model, plan), fitted)

    def recovered(plan: Plan) -> nn.Module:
        student = make(plan)
        lesson_of = lesson(student, seen.expanded.model, plan, (seen.fitted, seen.held_out), progress=silent)
        learn(lesson_of, "none" if settings.recover == "none" else SEARCHED_WITH)
        return student

    judge = None if budget.drop is None else judge_of(model, validation, recovered, work)
    menu = propose(seen.expanded.model, seen.trace, seen.statistics, settings, progress=progress, work=work)
    batches = [batch for batch in (*seen.held_out, *seen.fitted) if isinstance(batch, Batch)]
    menu = assess(menu, settings.damage, Ground(seen.expanded.model, seen.statistics, batches, work, progress))
    menu = ALLOCATORS[settings.allocator].prepare(seen.expanded.model, with_floor(menu, settings.floor))
    if budget.memory is not None:
        menu = with_peaks(seen.expanded.model, menu, seen.fitted[0])

    def decide(wanted: Budget, way: tuple[float, float] = WAYS[0]) -> Plan:
        found = allocate(repriced(menu, way), wanted, allocator=settings.allocator, refused=seen.trace.refused)
        return found.model_copy(update={"expanded": dict(seen.expanded.names)})

    if judge is not None:
        return least_share(menu, budget, decide, judge)
    if settings.finalists < 2 or not batches:
        return decide(budget), ()
    wanted = outputs(model, batches)

    def apart(plan: Plan) -> float:
        return divergence(wanted, outputs(make(plan, silent, STEPS), batches))

    return best_of([decide(budget, way) for way in WAYS[: settings.finalists]], apart, progress), ()


def _with_expansions_in_use(model: nn.Module, plan: Plan) -> nn.Module:
    """The original with those modules expanded in which the plan replaces something."""
    steps = in_use(plan)
    return redo(deepcopy(model), steps) if steps else model
