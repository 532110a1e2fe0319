"""Stages 1 and 2 as they are called: what is known of a network before anything is decided."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import nn

from polyad.allocators.allocate import check_limits, check_reachable, within_memory
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.damages.assess import DEFAULT
from polyad.damages.base import DAMAGES
from polyad.errors import ModelError
from polyad.expand import Expanded, expand, expand_as, in_use, redo
from polyad.gather import gather
from polyad.latency import Latencies
from polyad.memory_format import as_images
from polyad.metrics import METRICS
from polyad.overrides import check_fixed, ignoring
from polyad.peaks import with_peaks
from polyad.progress import Progress, silent
from polyad.propose import outline
from polyad.records import Plan, Statistics, Trace
from polyad.settings import Settings
from polyad.sites import stacked, stacked_as
from polyad.splits import Call, hold_out
from polyad.trace import trace
from polyad.work import NOTHING_KEPT, Work

OUTLINE_MARGIN = 0.05
"""How far a budget may lie below what the outline of the menu promises before it is refused without a menu."""

HELD_OUT = 0.2
"""Share of the calibration samples that no fit sees."""


@dataclass(frozen=True)
class Observed:
    """A network that has been expanded, traced and observed: what deciding and fitting work on."""

    expanded: Expanded
    trace: Trace
    statistics: Mapping[str, Statistics]
    fitted: Sequence[Batch | Call]
    held_out: Sequence[Batch]


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
        fitted, held_out = hold_out(as_images(model, as_batches(data, settings.samples)), HELD_OUT)
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


def with_expansions_in_use(model: nn.Module, plan: Plan) -> nn.Module:
    """The original with those modules expanded in which the plan replaces something."""
    steps = in_use(plan)
    return redo(deepcopy(model), steps) if steps else model
