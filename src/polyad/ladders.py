"""Candidates of layers in one form: fitted at shares of their parameters, interpolated between them.

Several sites are given where they are fitted together (alike.py): all of one layer shape, and so of one set of ranks.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import torch
from torch import Tensor

from polyad.cost import site_bytes, site_macs, site_params
from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.menu import Candidate
from polyad.metrics import METRICS, Metric
from polyad.records import DENSE, Rank, Site, Statistics
from polyad.solvers import Fit, Problem, best_variant, compare, identity, problems, ranks_within
from polyad.work import Piece, Work, key_of

SHARES = (0.05, 0.1, 0.15, 0.22, 0.3, 0.42, 0.58, 0.75)
"""Shares of a layer's parameters at which every form is fitted."""

BETWEEN = 3
"""Further shares between two of those, their errors interpolated: a fine menu spends a budget to its end."""

ERRORS = ("error", "held_out", "nats")
"""What is told of a candidate, the last two where they are known."""

TINY = 1e-12
"""Error that counts as none where logarithms are taken."""

MENU_STEPS = 20
"""L-BFGS iterations of one entry: the menu compares, `rebuild` refines what is chosen."""


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


def ladder(
    sites: Sequence[Site], family: Decomposition, norms: Sequence[Norms], round_to: int
) -> list[list[Candidate]]:
    """For every site candidates of one form in its best arrangement, fitted at the shares, interpolated between."""
    layer, first = sites[0].layer, norms[0].fit
    form = best_variant(family, layer, first)
    if form is None:
        return [[] for _ in sites]
    ranks = ranks_of(form, layer, first, SHARES, round_to)
    finer = set(ranks_of(form, layer, first, _finer(SHARES), round_to)) - set(ranks)
    found = fitted(sites, form, norms, ranks)
    return [own + _interpolated(site, form, own, finer) for site, own in zip(sites, found, strict=True)]


def fitted(
    sites: Sequence[Site], form: Decomposition, norms: Sequence[Norms], ranks: Sequence[Rank]
) -> list[list[Candidate]]:
    """For every site a candidate at each rank."""

    def told(at: int, fit: Fit) -> Candidate:
        approximation = form.reconstruct(fit.factors).reshape(norms[at].fit.weight.shape)
        return priced(sites[at], form.name, fit.rank, **norms[at].errors(approximation, fit.error))

    return compare(form, sites[0].layer, [own.fit for own in norms], ranks, told, steps=MENU_STEPS)


def remembered(
    work: Work, sites: Sequence[Site], norms: Sequence[Norms], asked: tuple, make: Callable[[], list[list[Candidate]]]
) -> list[list[Candidate]]:
    """For every site candidates of one form, from the folder of the run where they are there.

    Ranks and errors are kept, not the factors: a whole menu of those is several times as large as the network,
    and what is chosen is fitted again with more steps. Sites that are fitted together are one piece of work, so that
    what comes out does not depend on where a run was interrupted.
    """
    if work.folder is None:
        return make()
    form, *how = asked
    layers, digests = [site.layer.model_dump_json() for site in sites], [own.digests for own in norms]
    piece = work.remember(key_of("menu", digests, layers, identity(form), MENU_STEPS, *how), lambda: _piece(make()))
    ranks, tables = piece.tensors["rank"].tolist(), piece.tensors["errors"].unflatten(0, (len(sites), -1)).tolist()
    return [
        [
            priced(site, piece.text, tuple(rank), **_known(dict(zip(ERRORS, row, strict=True))))
            for rank, row in zip(ranks, table, strict=True)
        ]
        for site, table in zip(sites, tables, strict=True)
    ]


def _known(errors: Mapping[str, float]) -> dict[str, float]:
    """Those that are numbers."""
    return {name: error for name, error in errors.items() if not isnan(error)}


def _piece(found: Sequence[Sequence[Candidate]]) -> Piece:
    """Candidates of one form as tensors, and its arrangement; costs follow from the sites, which share their ranks."""
    rows = [[nan if (error := getattr(c, name)) is None else error for name in ERRORS] for own in found for c in own]
    columns = {
        "rank": torch.tensor([c.rank for c in found[0]], dtype=torch.int64),
        "errors": torch.tensor(rows, dtype=torch.float64),
    }
    return Piece(columns, found[0][0].form if found[0] else "")


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


def ranks_of(
    form: Decomposition, layer: LayerSpec, problem: Problem, shares: Sequence[float], round_to: int
) -> list[Rank]:
    """The ranks of a form within shares of the parameters, rising, rounded."""
    ranks = ranks_within(form, layer, problem, shares)
    rounded = {tuple(max(r // round_to, 1) * round_to if r > round_to else r for r in rank) for rank in ranks}
    return sorted(rounded, key=lambda rank: (form.params(layer, rank), rank))
