"""Budgets that name a loss: the least share kept at which a network loses no more than so much of its metric.

The share is found by narrowing a bracket between what the forms can reach and the whole network. Each step allocates,
rebuilds, recovers and evaluates, so the loss is measured, not predicted, on data that neither the fits nor the final
figures see. All that was measured is kept as the curve of loss over share.
"""

import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from math import log
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from torch import nn

from polyad.batches import as_batches
from polyad.budget import SUMS, Budget
from polyad.digests import digest
from polyad.errors import BudgetError, DataError
from polyad.evaluation import evaluate
from polyad.fingerprint import hash_of
from polyad.menu import Menu
from polyad.outcome import CurvePoint, Evaluation
from polyad.records import Plan
from polyad.work import Piece, Work, key_of

EVALUATIONS = 12
"""At most so many networks are made."""

CLOSE = 1.02
"""Shares that are so close to each other end the search."""

EDGE = 0.15
"""A new share keeps away from both ends of the bracket by so much of it."""

UNITS_OF_LOSS = {"accuracy": "points of accuracy", "perplexity": "% of perplexity"}


def loss_of(found: Evaluation) -> tuple[float, float | None]:
    """What a network lost of its metric, and the standard error: points of accuracy, per cent of perplexity.

    Raises:
        DataError: the data have neither metric.
    """
    if found.metric not in UNITS_OF_LOSS or found.difference is None:
        raise DataError(
            f"A drop counts {' or '.join(UNITS_OF_LOSS.values())}; the validation data give only the {found.metric}:"
            " give labelled data."
        )
    if found.metric == "accuracy":
        return -found.difference, found.standard_error
    per_cent = 100 / (found.value - found.difference)
    error = found.standard_error
    return per_cent * found.difference, None if error is None else per_cent * error


def least_share(
    menu: Menu, budget: Budget, decide: Callable[[Budget], Plan], judge: Callable[[Plan], Evaluation]
) -> tuple[Plan, tuple[CurvePoint, ...]]:
    """The plan that keeps least within the drop of a budget, and the curve.

    Args:
        menu: with the floor and the peaks that the budget asks for.
        budget: with a drop; its other limits hold too, and the first of them that adds up over the layers is the cost
            whose share is searched (parameters where there is none).
        decide: a budget without a drop -> a plan, or BudgetError.
        judge: a plan -> the network that it makes, measured against the original on validation data.

    Raises:
        BudgetError: no plan that was tried keeps within the drop.
    """
    unit = next((unit for unit in budget.amounts if unit in SUMS), SUMS[0])
    trials, bracket, limit = _Trials(menu, budget, unit, decide, judge), _start(menu, budget, unit), budget.drop or 0.0
    best: tuple[Plan, CurvePoint] | None = None
    share = bracket.high if bracket.high < 1 else bracket.between
    while len(trials.points) < EVALUATIONS and (bracket.open or not trials.points):
        found = trials.at(share)
        if found is not None and found[1].drop <= limit:
            best, bracket = found, bracket.down(min(share, found[1].share), found[1].drop, limit)
        elif share == bracket.high:
            break  # the limit beside the drop is out of reach
        else:
            bracket = bracket.up(share, None if found is None else found[1].drop, limit)
        share = bracket.between
    if best is None:
        raise BudgetError(_out_of_reach(budget, unit, list(trials.points.values())))
    plan, point = best
    said = f"{point.share:.1%} of the {unit}, the least found, loses {point.text} on validation data"
    rule = f"{plan.rule}; {said}" if plan.rule else said
    curve = tuple(sorted(trials.points.values(), key=lambda one: one.share))
    return plan.model_copy(update={"budget": str(budget), "rule": rule}), curve


def _start(menu: Menu, budget: Budget, unit: str) -> "_Bracket":
    """From what the candidates can reach to what the budget allows."""
    whole = getattr(menu, unit)
    smallest = menu.fixed(unit) + sum(min(getattr(c, unit) for c in found) for found in menu.candidates.values())
    return _Bracket(smallest / whole, budget.limits({unit: whole}).get(unit, whole) / whole)


class _Trials:
    """The networks that were measured; the same plan only once."""

    def __init__(
        self,
        menu: Menu,
        budget: Budget,
        unit: str,
        decide: Callable[[Budget], Plan],
        judge: Callable[[Plan], Evaluation],
    ) -> None:
        self.budget, self.unit, self.whole = budget, unit, getattr(menu, unit)
        self.decide, self.judge = decide, judge
        self.points: dict[object, CurvePoint] = {}

    def at(self, share: float) -> tuple[Plan, CurvePoint] | None:
        """The plan at a share and what it loses, or None where the limits leave no plan."""
        try:
            plan = self.decide(self.budget.model_copy(update={"drop": None, self.unit: int(share * self.whole)}))
        except BudgetError:
            return None
        same = tuple((choice.form, choice.rank) for choice in plan.choices)
        if same not in self.points:
            self.points[same] = _point(plan, self.unit, self.whole, self.judge(plan))
        return plan, self.points[same]


@dataclass(frozen=True)
class _Bracket:
    """Two shares: at the lower one too much is lost, or nothing is known; at the higher one not too much.

    Between them the logarithm of the loss (a tenth of the limit added, relative to what that makes of the limit) is
    taken to run straight over the logarithm of the share, and the next share is where it would meet the limit; away
    from both ends, so that the bracket shrinks even where that misleads.
    """

    low: float
    high: float
    loss_low: float | None = None
    loss_high: float = log(0.1 / 1.1)

    @property
    def open(self) -> bool:
        return self.high > self.low * CLOSE

    @property
    def between(self) -> float:
        """The next share."""
        part = 0.5
        if self.loss_low is not None:
            part = min(max(self.loss_high / (self.loss_high - self.loss_low), EDGE), 1 - EDGE)
        return self.high * (self.low / self.high) ** part

    def down(self, share: float, drop: float, limit: float) -> "_Bracket":
        return replace(self, high=share, loss_high=_logarithm(drop, limit))

    def up(self, share: float, drop: float | None, limit: float) -> "_Bracket":
        return replace(self, low=share, loss_low=None if drop is None else _logarithm(drop, limit))


def _logarithm(drop: float, limit: float) -> float:
    """0 at the limit."""
    return log((max(drop, 0.0) + 0.1 * limit) / (1.1 * limit))


def _point(plan: Plan, unit: str, whole: int, found: Evaluation) -> CurvePoint:
    drop, error = loss_of(found)
    return CurvePoint(
        unit=unit,
        share=getattr(plan, unit) / whole,
        drop=drop,
        standard_error=error,
        loss_unit=UNITS_OF_LOSS[found.metric],
        params=plan.params,
        macs=plan.macs,
    )


def _out_of_reach(budget: Budget, unit: str, points: list[CurvePoint]) -> str:
    if not points:
        return f"{budget} cannot be reached: the limits beside the drop leave no plan at any share of the {unit}."
    closest = min(points, key=lambda point: point.drop)
    return (
        f"drop={budget.drop:g} cannot be reached: of {len(points)} networks the best loses {closest.text} at"
        f" {closest.share:.1%} of the {unit}. Allow more, offer more forms, or recover more."
    )


def judge_of(
    model: nn.Module, validation: Any, make: Callable[[Plan], nn.Module], work: Work
) -> Callable[[Plan], Evaluation]:
    """A function that makes the network of a plan and measures it against the original.

    Args:
        model: the original network.
        validation: labelled data, read many times.
        make: a plan -> the network that it makes.
        work: where finished evaluations are kept and found.

    Raises:
        BudgetError: there are no validation data.
        DataError: they have no metric.
    """
    if validation is None:
        raise BudgetError(
            "A budget with a drop needs data to measure it on, neither the calibration inputs nor the test split: give"
            " validation=..., labelled."
        )
    batches = as_batches(validation)
    before = evaluate(model, batches, reference=model)
    loss_of(before)
    seen = (tuple(map(hash_of, batches)), before.model_dump_json())

    def judge(plan: Plan) -> Evaluation:
        student = make(plan)
        key = key_of("trial", digest(dict(chain(student.named_parameters(), student.named_buffers()))), seen)
        found = work.remember(key, lambda: Piece({}, evaluate(student, batches, reference=model).model_dump_json()))
        return Evaluation.model_validate_json(found.text)

    return judge


def work_of(place: Work | str | Path | None, *, searches: bool) -> Work:
    """Where a run keeps what it has finished: a search needs a place, since its networks share most of their fits.

    A folder of its own goes when nobody holds it any more.
    """
    work = Work.at(place)
    if not searches or work.folder is not None:
        return work
    folder = mkdtemp(prefix="polyad-")
    work = Work(folder)
    weakref.finalize(work, shutil.rmtree, folder, ignore_errors=True)
    return work
