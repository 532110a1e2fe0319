"""Stage 3: for every site the forms that can carry it, at many ranks: what each costs and how far it errs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan, nan

import numpy as np
import torch
from torch import Tensor, nn

from polyad.cost import site_bytes, site_macs, site_params
from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import DataError, ModelError
from polyad.menu import Candidate, Menu
from polyad.metrics import METRICS, Metric
from polyad.overrides import check_fixed
from polyad.progress import Progress, silent
from polyad.records import DENSE, Rank, Site, Statistics, Trace
from polyad.settings import Settings
from polyad.sites import weight_of
from polyad.solvers import Problem, best_variant, fit_path, identity, problems, ranks_within
from polyad.threads import side_by_side
from polyad.work import NOTHING_KEPT, Piece, Work, key_of

SHARES = (0.05, 0.1, 0.15, 0.22, 0.3, 0.42, 0.58, 0.75)
"""Shares of a layer's parameters at which every form is fitted."""

BETWEEN = 3
"""Further shares between two of those, their errors interpolated: a fine menu spends a budget to its end."""

ERRORS = ("error", "held_out", "nats")
"""What is told of a candidate, the last two where they are known."""

DEFAULTS = Settings()

TINY = 1e-12
"""Error that counts as none where logarithms are taken."""

MENU_STEPS = 20
"""L-BFGS iterations of one entry: the menu compares, `rebuild` refines what is chosen."""


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

    def options(site: Site) -> tuple[Candidate, ...]:
        norms = Norms.of(site, weight_of(model, site), norm, statistics.get(site.name))
        return tuple(_options(site, norms, settings, work))

    largest_first = sorted(trace.sites, key=lambda site: -site.params)  # so that all threads end at about the same time
    found = progress(side_by_side(options, largest_first), "propose", len(trace.sites))
    candidates = {site.name: own for site, own in zip(largest_first, found, strict=True)}
    menu = {site.name: candidates[site.name] for site in trace.sites}
    _check_something(trace, menu, settings)
    return _menu(trace, menu, norm.name)


@dataclass(frozen=True)
class Norms:
    """In which norms the errors of one site are told: of the fit, on held-out inputs, of the network's outputs."""

    fit: Problem
    held_out: Problem | None
    outputs: Problem | None

    @classmethod
    def of(cls, site: Site, weight: Tensor, norm: Metric, statistics: Statistics | None) -> "Norms":
        fit, held_out = problems(site, weight, norm, statistics)
        if statistics is None or statistics.curvature is None:
            return cls(fit, held_out, None)
        near, unseen = problems(site, weight, METRICS["curvature"], statistics, fair=False)
        return cls(fit, held_out, unseen or near)

    @property
    def digests(self) -> tuple[str | None, ...]:
        return tuple(problem and problem.digest for problem in (self.fit, self.held_out, self.outputs))

    def errors(self, approximation: Tensor, error: float) -> dict[str, float]:
        """The errors of a candidate: `nats` are half the squared norm of the change of the network's outputs."""
        found = {"error": error}
        if self.held_out is not None:
            found["held_out"] = self.held_out.nearly(approximation)
        if self.outputs is not None:
            found["nats"] = float(self.outputs.squared_norm(self.outputs.weight - approximation)) / 2
        return found


def _options(site: Site, norms: Norms, settings: Settings, work: Work) -> list[Candidate]:
    """All candidates of one site, the dense one first; the given one alone where the choice is given."""
    if site.name in settings.fixed:
        name, rank = settings.fixed[site.name]
        if name == DENSE:
            return [dense_candidate(site)]
        make = partial(_candidates, site, FORMS[name], norms, [rank])
        return _remembered(work, site, norms, (FORMS[name], rank), make)
    families = FORMS.menu(settings.forms)
    ladders: dict[str, list[Candidate]] = {}
    for family in sorted(families, key=lambda family: family.view):  # those of one view share its whitening
        make = partial(_ladder, site, family, norms, settings.round_to)
        found = _remembered(work, site, norms, (family, settings.round_to, SHARES, BETWEEN), make)
        ladders[family.name] = [c for c in found if c.params < site.params or c.macs < site.macs]
    return [dense_candidate(site), *(candidate for family in families for candidate in ladders[family.name])]


def _ladder(site: Site, family: Decomposition, norms: Norms, round_to: int) -> list[Candidate]:
    """Candidates of one form in its best arrangement, fitted at the shares and interpolated between them."""
    form = best_variant(family, site.layer, norms.fit)
    if form is None:
        return []
    ranks = _ranks(site, form, norms.fit, SHARES, round_to)
    fitted = _candidates(site, form, norms, ranks)
    finer = _ranks(site, form, norms.fit, _finer(SHARES), round_to)
    return fitted + _interpolated(site, form, fitted, set(finer) - set(ranks))


def _remembered(
    work: Work, site: Site, norms: Norms, asked: tuple, make: Callable[[], list[Candidate]]
) -> list[Candidate]:
    """Candidates of one form, from the folder of the run where they are there.

    Ranks and errors are kept, not the factors: a whole menu of those is several times as large as the network,
    and what is chosen is fitted again with more steps.
    """
    if work.folder is None:
        return make()
    form, *how = asked
    key = key_of("menu", norms.digests, site.layer.model_dump_json(), identity(form), MENU_STEPS, *how)
    piece = work.remember(key, lambda: _piece(make()))
    ranks, table = piece.tensors["rank"].tolist(), piece.tensors["errors"].tolist()
    return [
        priced(site, piece.text, tuple(rank), **_known(dict(zip(ERRORS, row, strict=True))))
        for rank, row in zip(ranks, table, strict=True)
    ]


def _known(errors: Mapping[str, float]) -> dict[str, float]:
    """Those that are numbers."""
    return {name: error for name, error in errors.items() if not isnan(error)}


def _piece(candidates: Sequence[Candidate]) -> Piece:
    """Candidates of one form as tensors, and its arrangement; costs follow from the site."""
    rows = [[nan if (error := getattr(c, name)) is None else error for name in ERRORS] for c in candidates]
    columns = {
        "rank": torch.tensor([c.rank for c in candidates], dtype=torch.int64),
        "errors": torch.tensor(rows, dtype=torch.float64),
    }
    return Piece(columns, candidates[0].form if candidates else "")


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
        ladders = {form.name: _ranks(site, form, problem, SHARES, settings.round_to) for form in carriers}
        smallest = [priced(site, name, ranks[0]) for name, ranks in ladders.items() if ranks]
        smaller = [c for c in smallest if c.params < site.params or c.macs < site.macs]
        menu[site.name] = (dense_candidate(site), *smaller)
    _check_something(trace, menu, settings)
    return _menu(trace, menu, "weights")


def _menu(trace: Trace, candidates: Mapping[str, tuple[Candidate, ...]], metric: str) -> Menu:
    return Menu(trace.sites, candidates, params=trace.params, macs=trace.macs, bytes=trace.bytes, metric=metric)


def priced(
    site: Site,
    form: str,
    rank: Rank,
    *,
    error: float = 0.0,
    held_out: float | None = None,
    nats: float | None = None,
) -> Candidate:
    """A candidate with the costs of its form and rank."""
    return Candidate(
        site=site.name,
        form=form,
        rank=rank,
        params=site_params(site, form, rank),
        macs=site_macs(site, form, rank),
        bytes=site_bytes(site, form, rank),
        error=error,
        damage=(error if held_out is None else held_out) * len(site.modules),
        held_out=held_out,
        nats=nats,
    )


def dense_candidate(site: Site) -> Candidate:
    """The layer as it is."""
    return priced(site, DENSE, ())


def _candidates(site: Site, form: Decomposition, norms: Norms, ranks: Sequence[Rank]) -> list[Candidate]:
    found = []
    for fitted in fit_path(form, site.layer, norms.fit, ranks, steps=MENU_STEPS, brief=True):
        approximation = form.reconstruct(fitted.factors).reshape(norms.fit.weight.shape)
        found.append(priced(site, form.name, fitted.rank, **norms.errors(approximation, fitted.error)))
    return found


def _interpolated(
    site: Site, form: Decomposition, fitted: Sequence[Candidate], ranks: Collection[Rank]
) -> list[Candidate]:
    """Candidates between the fitted ones: the logarithms of errors run straight over the parameters."""
    known = np.array([c.params for c in fitted], dtype=float)
    order = np.argsort(known)
    known_errors = [name for name in ERRORS if fitted and getattr(fitted[0], name) is not None]

    def at(params: int, name: str) -> float:
        logs = np.log(np.maximum([getattr(c, name) for c in fitted], TINY))
        return float(np.exp(np.interp(params, known[order], logs[order])))

    found = []
    for rank in sorted(ranks):
        params = site_params(site, form.name, rank)
        if known.min() < params < known.max():
            found.append(priced(site, form.name, rank, **{name: at(params, name) for name in known_errors}))
    return found


def _finer(shares: Sequence[float]) -> list[float]:
    """The shares with `BETWEEN` more between every two."""
    steps = len(shares) * (BETWEEN + 1) - BETWEEN
    return np.interp(np.linspace(0, len(shares) - 1, steps), np.arange(len(shares)), shares).tolist()


def _ranks(site: Site, form: Decomposition, problem: Problem, shares: Sequence[float], round_to: int) -> list[Rank]:
    ranks = ranks_within(form, site.layer, problem, shares)
    rounded = {tuple(max(r // round_to, 1) * round_to if r > round_to else r for r in rank) for rank in ranks}
    return sorted(rounded, key=lambda rank: (form.params(site.layer, rank), rank))


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
