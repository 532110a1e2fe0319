"""What candidates do to the latency of a network, from a few timings of single layers, and networks against the clock.

The time of a network is taken to be that of the original, with what each replaced layer alone takes more or less than
the dense layer alone: what lies between the layers, and what it costs to call a runtime at all, cancels.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from polyad.bare import Pick, Place
from polyad.batches import Batch
from polyad.bench import Bench, Timed
from polyad.budget import Budget
from polyad.correction import corrected
from polyad.decompositions.base import FORMS
from polyad.errors import DataError
from polyad.menu import Candidate, Menu
from polyad.outcome import Latency
from polyad.progress import Progress, silent
from polyad.records import DENSE, Plan, Rank, Site
from polyad.settings import Settings
from polyad.splits import Call
from polyad.timetable import Timetable
from polyad.timing import bench_of, clocked, low

Decide = Callable[[Menu, Budget], Plan]
"""A priced menu and a budget -> a plan."""

SAMPLED = 4
"""Ranks of a form that are timed for a layer, of those that are multiples of `STEP`, and of the others."""

STEP = 8
"""Kernels compute so many channels at once, or a multiple: a rank in between takes as long as the next one, or longer,
so times are not interpolated from one kind of rank to the other."""

REFINED = 6
"""So often what was chosen is timed itself, where it was interpolated, and chosen again."""

SECONDS = 10.0
"""For networks, where their fastest runs do not agree sooner."""

TOLERANCE = 0.05
"""A network that takes so much more than it may is said to."""

NANO = 1_000_000_000


@dataclass(frozen=True)
class Clock:
    """The latency of networks, as nanoseconds of one pass."""

    bench: Bench
    model: nn.Module
    batch: Batch

    @classmethod
    def on(cls, bench: Bench, model: nn.Module, batches: Iterable[Batch | Call]) -> "Clock":
        """A clock that gives networks the first inputs of some data.

        Raises:
            DataError: there are no batches, or the first has fewer samples than the bench takes at once.
        """
        first = next(iter(batches))
        if not isinstance(first, Batch):
            raise DataError("A budget of latency needs inputs, not a function that runs the model: give batches.")
        if first.size < bench.batch:
            raise DataError(f"Latency for {bench.batch} samples at once needs a batch of so many; it has {first.size}.")
        return cls(bench, model, first.take(bench.batch))

    def against(self, student: nn.Module) -> tuple[int, int]:
        """The original and another network, in turn."""
        found = clocked(
            self.bench, {"whole": (self.model, self.batch), "student": (student, self.batch)}, seconds=SECONDS
        )
        return round(low(found["whole"]) * NANO), round(low(found["student"]) * NANO)

    def beside(self, places: Iterable[Place]) -> tuple[int, dict[Place, float]]:
        """The original, and dense layers alone, in turn."""
        layers = {place: (place.module(DENSE, ()), Batch((place.inputs(self.bench.batch),))) for place in places}
        found = clocked(self.bench, {None: (self.model, self.batch), **layers}, seconds=SECONDS)
        times = {place: low(runs) * NANO for place, runs in found.items()}
        return round(times.pop(None)), times  # type: ignore[arg-type, return-value]


class Latencies:
    """The latencies of a menu.

    Args:
        clock: for the original network.
        menu: from `propose`, or an outline of it.
        table: timings that are known.

    Raises:
        ExportError: the runtime cannot run the network or a layer in one of the forms.
    """

    def __init__(self, clock: Clock, menu: Menu, table: Timetable, progress: Progress = silent) -> None:
        self.clock, self.raw, self.table = clock, menu, table
        self._places = {site.name: {Place.of(site, run): run.times for run in site.runs} for site in menu.sites}
        ranks: dict[Place, dict[Pick, None]] = {}
        for site in menu.sites:
            for place in self._places[site.name]:
                picks = ranks.setdefault(place, {})
                picks |= dict.fromkeys((c.form, c.rank) for c in menu.candidates[site.name] if c.form != DENSE)
        self.before, self._dense = clock.beside(ranks)
        self._picks = ranks
        for place, picks in progress(ranks.items(), "time", len(ranks)):
            table.time(place, [pick for form in _forms(picks) for pick in _sparse(place, form, picks)])

    @classmethod
    def of(
        cls,
        model: nn.Module,
        menu: Menu,
        settings: Settings,
        batches: Iterable[Batch | Call],
        progress: Progress = silent,
    ) -> "Latencies":
        """The same, on this machine with the runtime of the settings and the table of the user's cache."""
        bench = bench_of(settings.runtime, settings.threads, settings.latency_batch)
        return cls(Clock.on(bench, model, batches), menu, Timetable(bench), progress)

    def menu(self) -> Menu:
        """The menu with the latency of every candidate, without those that are not faster than the dense layer."""
        curves = {place: _Curves(place, self.table.known(place, picks)) for place, picks in self._picks.items()}
        candidates, sites = {}, []
        for site in self.raw.sites:
            dense = self._time(site, {place: 1.0 for place in self._places[site.name]})
            sites.append(site.model_copy(update={"latency": dense}))
            candidates[site.name] = self._priced(site, dense, curves)
        return replace(self.raw, sites=tuple(sites), candidates=candidates, latency=self.before)

    def solved(self, decide: Decide, budget: Budget) -> Plan:
        """The plan that `decide` makes of the menu, when all that it chooses has been timed itself."""
        for _ in range(REFINED):
            plan = decide(self.menu(), budget)
            chosen: dict[Place, set[Pick]] = defaultdict(set)
            for choice in plan.choices:
                for place in () if choice.dense else self._places[choice.site.name]:
                    chosen[place].add((choice.form, choice.rank))
            if all(len(self.table.known(place, picks)) == len(picks) for place, picks in chosen.items()):
                return self._noted(plan)
            for place, picks in chosen.items():
                self.table.time(place, sorted(picks))
        return self._noted(decide(self.menu(), budget))

    def _noted(self, plan: Plan) -> Plan:
        return plan.model_copy(update={"timed": Timed(bench=self.clock.bench, before=self.before)})

    def _priced(self, site: Site, dense: int, curves: Mapping[Place, "_Curves"]) -> tuple[Candidate, ...]:
        found = []
        for candidate in self.raw.candidates[site.name]:
            multiples = {place: curves[place].at(candidate.form, candidate.rank) for place in self._places[site.name]}
            found.append(candidate.model_copy(update={"latency": self._time(site, multiples)}))
        given = len(found) == 1
        return tuple(c for c in found if given or c.form == DENSE or c.latency < dense)

    def _time(self, site: Site, multiples: Mapping[Place, float]) -> int:
        """Nanoseconds of all runs of a site."""
        places = self._places[site.name]
        return round(sum(times * self._dense[place] * multiples[place] for place, times in places.items()))


def keep(latencies: Latencies, budget: Budget, decide: Decide, make: Callable[[Plan], nn.Module]) -> Plan:
    """The plan whose network keeps the latency of a budget when it is measured.

    Args:
        decide: a priced menu and a budget -> a plan.
        make: a plan -> a network of its shape; its weights do not matter.

    Raises:
        BudgetError: the budget cannot be reached.
    """
    (limit,) = budget.limits({"latency": latencies.before}).values()

    def at(asked: int) -> Plan:
        return latencies.solved(decide, budget.model_copy(update={"latency": asked}))

    def measure(plan: Plan) -> int:
        before, after = latencies.clock.against(make(plan))
        return round(latencies.before * after / before)  # what the machine does beside it slows down both

    plan, rounds = corrected(limit, latencies.before, at, measure)
    timed = Timed(bench=latencies.clock.bench, before=latencies.before, rounds=rounds)
    return plan.model_copy(update={"budget": str(budget), "timed": timed})


def latency_of(
    model: nn.Module, student: nn.Module, plan: Plan, settings: Settings, batches: Iterable[Batch | Call]
) -> tuple[Latency | None, tuple[str, ...]]:
    """The latency before and after where a plan's budget names it, and a note where it is above the limit.

    A plan that says where it was timed is timed there again, as far as this machine is the same.
    """
    if "latency=" not in plan.budget:
        return None, ()
    said = plan.timed.bench if plan.timed else None
    bench = bench_of(
        said.runtime if said else settings.runtime,
        said.threads if said else settings.threads,
        said.batch if said else settings.latency_batch,
    )
    before, after = Clock.on(bench, model, batches).against(student)
    timed = plan.timed if plan.timed is not None and plan.timed.bench == bench else None
    found = Latency(
        before=before,
        after=after,
        predicted=None if timed is None else plan.latency / timed.before,
        bench=bench,
        rounds=() if timed is None else timed.rounds,
    )
    whole = before if timed is None else timed.before
    (limit,) = Budget.parse(plan.budget).limits({"latency": whole}).values()
    if found.kept * whole <= limit * (1 + TOLERANCE):
        return found, ()
    return found, (
        f"latency: the network takes {found.kept:.1%} of the original's time where {limit / whole:.1%} was asked for;"
        " ask for a little less, or measure on a machine that does nothing else",
    )


class _Curves:
    """Multiples of the dense layer's time over the MACs of a form, interpolated between those that were timed.

    More MACs never count as less time: where timings say so it is rank steps of a kernel, or noise.
    """

    def __init__(self, place: Place, known: Mapping[Pick, float]) -> None:
        self.place, self.known = place, known
        self._lines: dict[tuple[str, bool], tuple[np.ndarray, np.ndarray]] = {}
        kinds: dict[tuple[str, bool], list[tuple[int, float]]] = {}
        for (form, rank), multiple in known.items():
            kinds.setdefault((form, _stepped(rank)), []).append((_macs(place, form, rank), multiple))
        for kind, points in kinds.items():
            macs, multiples = np.array(sorted(points), dtype=float).T
            self._lines[kind] = macs, np.maximum.accumulate(multiples)

    def at(self, form: str, rank: Rank) -> float:
        if form == DENSE:
            return 1.0
        if (form, rank) in self.known:
            return self.known[form, rank]
        line = self._lines.get((form, _stepped(rank))) or self._lines[form, not _stepped(rank)]
        return float(np.interp(_macs(self.place, form, rank), *line))


def _sparse(place: Place, form: str, picks: Iterable[Pick]) -> list[Pick]:
    """A few ranks of a form, from the smallest to the largest, of each kind."""
    ranks = [rank for name, rank in picks if name == form]
    found = []
    for kind in (False, True):
        ladder = sorted((r for r in ranks if _stepped(r) is kind), key=lambda r: (_macs(place, form, r), r))
        at = np.linspace(0, len(ladder) - 1, min(SAMPLED, len(ladder))).round().astype(int)
        found += [(form, ladder[i]) for i in dict.fromkeys(at.tolist())]
    return found


def _forms(picks: Iterable[Pick]) -> list[str]:
    return list(dict.fromkeys(form for form, _ in picks))


def _stepped(rank: Rank) -> bool:
    return all(r % STEP == 0 for r in rank)


def _macs(place: Place, form: str, rank: Rank) -> int:
    return FORMS[form].macs(place.layer, rank, place.size)
