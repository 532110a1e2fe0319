"""Stage 3: for every site the forms that can carry it, at many ranks: what each costs and how far it errs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from polyad.alike import Task, tasks
from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import DataError, ModelError
from polyad.ladders import BETWEEN, SHARES, Norms, dense_candidate, fitted, ladder, priced, ranks_of, remembered
from polyad.menu import Candidate, Menu
from polyad.metrics import METRICS, Metric
from polyad.overrides import check_fixed
from polyad.progress import Progress, silent
from polyad.records import DENSE, Site, Statistics, Trace
from polyad.settings import Settings
from polyad.sites import weight_of
from polyad.solvers import problems
from polyad.threads import side_by_side
from polyad.work import NOTHING_KEPT, Work

DEFAULTS = Settings()

Ladders = dict[tuple[str, str], list[Candidate]]
"""By the names of site and form."""


def propose(
    model: nn.Module,
    trace: Trace,
    statistics: Mapping[str, Statistics],
    settings: Settings = DEFAULTS,
    *,
    progress: Progress = silent,
    work: Work = NOTHING_KEPT,
) -> Menu:
    """Fit every form to every site at several ranks.

    The same network, data and settings give the same menu, on any number of threads. Sites of one layer shape may be
    fitted together, and then their errors depend by rounding on which they are: leaving out a site, or giving its
    choice, can change those of others by some per cent, either way.

    Args:
        model: the original network.
        trace: its sites.
        statistics: from `observe`; may be empty for norms that need no inputs.
        settings: forms, metric, rounding of ranks, given choices.
        work: where finished parts of the menu are kept and found.

    Raises:
        ModelError: no form can carry any site with less.
        DataError: the norm needs inputs and a site has no statistics.
        PlanError: a given choice names a layer that is no site.
        UnknownNameError: a form or metric that does not exist.
    """
    norm = METRICS[settings.metric]
    check_fixed(trace, settings.fixed)
    for site in trace.sites:
        if missing := norm.lacks(statistics.get(site.name)):
            raise DataError(
                f"The {norm.name} norm needs {missing} of {site.name}; give data, or take the weights norm."
            )

    families = FORMS.menu(settings.forms)
    whole = tasks(trace.sites, families, settings.fixed)
    found: Ladders = {}
    for part in progress(side_by_side(_Maker(model, statistics, norm, settings, work), whole), "propose", len(whole)):
        found |= part
    menu = {site.name: _options(site, families, found, settings) for site in trace.sites}
    _check_something(trace, menu, settings)
    return _menu(trace, menu, norm.name)


def _options(
    site: Site, families: Sequence[Decomposition], found: Ladders, settings: Settings
) -> tuple[Candidate, ...]:
    """All candidates of one site, the dense one first; the given one alone where the choice is given."""
    if site.name in settings.fixed:
        name, _ = settings.fixed[site.name]
        return (dense_candidate(site),) if name == DENSE else tuple(found[site.name, FORMS[name].name])
    candidates = [candidate for family in families for candidate in found[site.name, family.name]]
    return (dense_candidate(site), *(c for c in candidates if c.params < site.params or c.macs < site.macs))


@dataclass(frozen=True)
class _Maker:
    """Makes parts of a menu."""

    model: nn.Module
    statistics: Mapping[str, Statistics]
    norm: Metric
    settings: Settings
    work: Work

    def __call__(self, task: Task) -> Ladders:
        """All that a task asks for."""
        sites, found = task.sites, {}
        norms = [Norms.of(s, weight_of(self.model, s), self.norm, self.statistics.get(s.name)) for s in sites]
        for form in task.forms:
            given = sites[0].name in self.settings.fixed
            own = self._given(sites[0], form, norms) if given else self._ladder(sites, form, norms)
            found |= {(site.name, form.name): candidates for site, candidates in zip(sites, own, strict=True)}
        return found

    def _ladder(self, sites: Sequence[Site], form: Decomposition, norms: Sequence[Norms]) -> list[list[Candidate]]:
        rounding = self.settings.round_to
        make = partial(ladder, sites, form, norms, rounding)
        return remembered(self.work, sites, norms, (form, rounding, SHARES, BETWEEN), make)

    def _given(self, site: Site, form: Decomposition, norms: Sequence[Norms]) -> list[list[Candidate]]:
        _, rank = self.settings.fixed[site.name]
        return remembered(self.work, [site], norms, (form, rank), partial(fitted, [site], form, norms, [rank]))


def outline(model: nn.Module, trace: Trace, settings: Settings = DEFAULTS) -> Menu:
    """The smallest candidate of every form, not fitted: what a budget can reach, known before any work.

    Forms with several ranks choose them by the plain norm here, so their costs may differ a little from the menu's.

    Raises:
        ModelError: no form can carry any site with less.
    """
    menu = {}
    for site in trace.sites:
        problem, _ = problems(site, weight_of(model, site), METRICS["weights"], None)
        if site.name in settings.fixed:
            menu[site.name] = (priced(site, *settings.fixed[site.name]),)
            continue
        carriers = [form for form in FORMS.menu(settings.forms) if form.refuses(site.layer) is None]
        ladders = {form.name: ranks_of(form, site.layer, problem, SHARES, settings.round_to) for form in carriers}
        smallest = [priced(site, name, ranks[0]) for name, ranks in ladders.items() if ranks]
        smaller = [c for c in smallest if c.params < site.params or c.macs < site.macs]
        menu[site.name] = (dense_candidate(site), *smaller)
    _check_something(trace, menu, settings)
    return _menu(trace, menu, "weights")


def _menu(trace: Trace, candidates: Mapping[str, tuple[Candidate, ...]], metric: str) -> Menu:
    return Menu(trace.sites, candidates, params=trace.params, macs=trace.macs, bytes=trace.bytes, metric=metric)


def _check_something(trace: Trace, menu: Mapping[str, tuple[Candidate, ...]], settings: Settings) -> None:
    """Raise ModelError where every site can only stay as it is."""
    if all(candidates == (dense_candidate(trace.site(name)),) for name, candidates in menu.items()):
        raise ModelError(_nothing(trace, FORMS.menu(settings.forms)))


def _nothing(trace: Trace, forms: Sequence[Decomposition]) -> str:
    names = ", ".join(form.name for form in forms)
    if not trace.sites:
        reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in trace.refused[:3])
        return f"Nothing to compress: every layer is refused ({reasons})."
    reasons = []
    for site in trace.sites[:3]:
        refused = {form.refuses(site.layer) or "no rank of it is smaller than the layer" for form in forms}
        reasons.append(f"{site.name}: {'; '.join(sorted(refused))}")
    return f"Nothing to compress with the forms {names} ({'. '.join(reasons)})."
