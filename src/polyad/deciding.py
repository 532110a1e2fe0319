"""Stages 3 and 4 as they are called: from what was observed to the plan of a budget, and the searches in between."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from polyad.allocators.allocate import allocate, with_floor
from polyad.allocators.base import ALLOCATORS
from polyad.batches import Batch
from polyad.budget import Budget
from polyad.damages.assess import assess
from polyad.damages.base import Ground
from polyad.damages.probes import first_samples
from polyad.drop import judge_of, least_share
from polyad.evaluation import divergence, outputs
from polyad.finalists import STEPS, WAYS, best_of, repriced
from polyad.hidden_in import hidden_in
from polyad.latency import Latencies, keep
from polyad.lessons import learn, lesson
from polyad.looking import Observed, with_expansions_in_use
from polyad.making import make
from polyad.menu import Menu, Narrowing
from polyad.naming import inside
from polyad.narrowings import narrowings
from polyad.outcome import CurvePoint
from polyad.peaks import with_peaks
from polyad.progress import Progress, silent
from polyad.propose import propose
from polyad.rebuild import FINAL_STEPS, untrained
from polyad.records import Plan
from polyad.remeasure import contributions, parts, remeasured
from polyad.settings import Settings
from polyad.work import Work

SEARCHED_WITH = "statistics"
"""Recovery of the networks that a search for a drop makes, where any is wanted: the quick one."""


@dataclass(frozen=True)
class Decision:
    """What a plan is decided with.

    Attributes:
        model: the original network.
        seen: what is known of it.
        settings: forms, norm, damage, allocator.
        work: where finished fits and measurements are kept and found.
        progress: shows how far it is.
    """

    model: nn.Module
    seen: Observed
    settings: Settings
    work: Work
    progress: Progress

    def plan(self, budget: Budget, validation: Any) -> tuple[Plan, tuple[CurvePoint, ...]]:
        """The plan of a budget; with a drop the one that a search finds, and what it measured on validation data."""
        judge = None if budget.drop is None else judge_of(self.model, validation, self._recovered, self.work)
        menu = self._menu(budget)
        if budget.latency is not None:
            times = Latencies.of(self.model, menu, self.settings, self.seen.fitted, self.progress)
            if judge is None:
                return keep(times, budget, self._allocated, self._shape), ()
            return least_share(times.menu(), budget, partial(times.solved, self._allocated), judge)
        if judge is not None:
            return least_share(menu, budget, partial(self._allocated, menu), judge)
        return self._closest(menu, budget), ()

    @property
    def _batches(self) -> Sequence[Batch]:
        """Calibration inputs, those first that no fit has seen; none where the data is a function."""
        return [batch for batch in (*self.seen.held_out, *self.seen.fitted) if isinstance(batch, Batch)]

    def _menu(self, budget: Budget) -> Menu:
        """Fitted, and priced in all that the allocator and the budget ask for."""
        model, settings = self.seen.expanded.model, self.settings
        menu = propose(model, self.seen.trace, self.seen.statistics, settings, progress=self.progress, work=self.work)
        menu = replace(menu, narrowings=self._narrowings(budget))
        unseen = sum(batch.size for batch in self.seen.held_out)
        ground = Ground(model, self.seen.statistics, self._batches, unseen, self.work, self.progress)
        menu = assess(menu, settings.damage, ground)
        menu = ALLOCATORS[settings.allocator].prepare(model, with_floor(menu, settings.floor))
        return menu if budget.memory is None else with_peaks(model, menu, self.seen.fitted[0])

    def _narrowings(self, budget: Budget) -> tuple[Narrowing, ...]:
        """Where they are asked for: not under limits on single layers, nor inside modules that were expanded."""
        model, settings, sites = self.seen.expanded.model, self.settings, self.seen.trace.sites
        example = self.seen.fitted[0]
        if not settings.narrow or not isinstance(example, Batch) or budget.latency or budget.memory:
            return ()
        outside = [site for site in sites if not any(inside(site.name, name) for name in self.seen.expanded.names)]
        found = hidden_in(model, outside, example.take(1))
        return narrowings(model, found, sites, self.seen.statistics, settings, self.progress)

    def _allocated(self, menu: Menu, budget: Budget) -> Plan:
        found = allocate(menu, budget, allocator=self.settings.allocator, refused=self.seen.trace.refused)
        return found.model_copy(update={"expanded": dict(self.seen.expanded.names)})

    def _closest(self, menu: Menu, budget: Budget) -> Plan:
        """Of the finalists, the plan whose network is closest to the original, or a better one that it leads to."""
        if self.settings.finalists < 2 or not self._batches:
            return self._allocated(menu, budget)
        known = [part for part in (self.seen.held_out, self.seen.fitted) if part and isinstance(part[0], Batch)]
        wanted = [outputs(self.model, part) for part in known]

        def apart(student: nn.Module) -> float:
            found = [divergence(one, outputs(student, part)) for one, part in zip(wanted, known, strict=True)]
            return sum(found) / len(found)

        menus = [repriced(menu, way) for way in WAYS[: self.settings.finalists]]
        plans = [self._allocated(one, budget) for one in menus]
        best = best_of(plans, lambda plan: apart(self._made(plan, STEPS, silent)), self.progress)
        menu = next(one for one, plan in zip(menus, plans, strict=True) if plan.choices == best.choices)
        return self._corrected(menu, budget, best, apart)

    def _corrected(self, menu: Menu, budget: Budget, best: Plan, apart: Callable[[nn.Module], float]) -> Plan:
        """The plan of a menu, or that of the menu corrected by what each replacement does among the others.

        Args:
            menu: that the plan was made from.
            apart: the network of a plan -> its divergence from the original.
        """
        few = first_samples(self.seen.held_out or self._batches, menu, len(parts(best)))
        wanted, student = outputs(self.model, few), self._made(best, STEPS, silent)
        original = self.seen.expanded.model
        found = contributions(student, original, best, lambda network: divergence(wanted, outputs(network, few)))
        plan = self._allocated(remeasured(menu, best, found), budget)
        closest, other = apart(student), apart(self._made(plan, STEPS, silent))
        if not other < closest:
            return best
        said = f"weighed again by what each replacement does among the others: divergence {other:.3g}"
        return plan.model_copy(update={"rule": f"{best.rule}; {said}"})

    def _made(self, plan: Plan, steps: int, progress: Progress) -> nn.Module:
        """The network of a plan, not recovered."""
        return make(self.model, plan, self.seen, steps=steps, progress=progress, work=self.work).student

    def _recovered(self, plan: Plan) -> nn.Module:
        """The network of a plan that a search for a drop measures."""
        student = self._made(plan, FINAL_STEPS, self.progress)
        calibration = (self.seen.fitted, self.seen.held_out)
        given = lesson(student, self.seen.expanded.model, plan, calibration, progress=silent)
        learn(given, "none" if self.settings.recover == "none" else SEARCHED_WITH)
        return student

    def _shape(self, plan: Plan) -> nn.Module:
        """A network that takes as long as that of the plan."""
        return untrained(with_expansions_in_use(self.model, plan), plan)
