"""One site at a time is replaced in a copy of the network, and the divergence of the outputs is read.

A probe is the best candidate of a site at some share of its parameters, fitted again with few steps. It is put into the
layer as a dense weight, rows scaled and the bias moved so that mean and variance of each output channel stay: what
`statistics` recovery would do, from the second moments and without a run.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.channels import matching_scale
from polyad.damages.base import Ground
from polyad.decompositions.base import FORMS
from polyad.evaluation import divergences, outputs
from polyad.fingerprint import fingerprints
from polyad.menu import Candidate, Menu
from polyad.metrics import METRICS
from polyad.metrics.moments import input_moment, input_norm
from polyad.records import DENSE, Site, Statistics
from polyad.replay import Replay
from polyad.sites import weight_of
from polyad.solvers import Problem, fit, identity, problems
from polyad.solvers.transform import times
from polyad.threads import side_by_side
from polyad.work import Piece, key_of

SHARES = (0.1,)
"""Shares of a site's parameters at which it is probed."""

STEPS = 20
"""L-BFGS iterations of a probe, as many as for an entry of the menu."""

IMAGES = 200
"""Samples on which divergences are read, at most."""

MACS = 1.5e12
"""Multiply-accumulates that all probes together may take; where that is less, samples are fewer, but not below
`FEWEST`. Half a minute to a minute on two cores."""

FEWEST, PART = 16, 50
"""Samples at least, and in one run at most."""

LARGEST = 1e6
"""Stands for the divergence of outputs that are not finite."""


@dataclass(frozen=True)
class Probe:
    """What one replacement of one site did to the same inputs: its relative error and the divergence of the network's
    outputs."""

    error: float
    divergence: float


@dataclass(frozen=True)
class Patch:
    """A replacement that is ready to be put in: weight (groups, out, n) and shift (groups, out) of its outputs."""

    error: float
    weight: Tensor
    shift: Tensor | None


def probe(menu: Menu, ground: Ground, shares: Sequence[float] = SHARES) -> dict[str, tuple[Probe, ...]]:
    """The probes of every site that has candidates; from the folder of the run where they are there.

    Args:
        menu: from `propose`.
        ground: the network and the batches.
        shares: of a site's parameters, one probe each where there are so many candidates.

    Raises:
        DataError: the network refuses a batch.
    """
    asked = {site.name: _chosen(site, menu.candidates[site.name], shares) for site in menu.sites}
    asked = {name: chosen for name, chosen in asked.items() if chosen}
    sites = [site for site in menu.sites if site.name in asked]
    batches = first_samples(ground.batches, menu, sum(map(len, asked.values())))
    fresh = min(ground.unseen / max(sum(batch.size for batch in batches), 1), 1.0)
    seen = fingerprints(ground.model, sites, batches, ()) or {}

    def prepared(site: Site) -> tuple[str, list[Patch] | Piece]:
        problem, unseen = problems(
            site, weight_of(ground.model, site), METRICS[menu.metric], ground.statistics.get(site.name)
        )
        key = key_of("probe", seen[site.name], fresh, *_identity(problem, unseen, asked[site.name]))
        return key, ground.work.find(key) or [
            _patch(site, candidate, (problem, unseen), fresh, ground) for candidate in asked[site.name]
        ]

    found = dict(zip((site.name for site in sites), side_by_side(prepared, sites), strict=True))
    patches = {name: made for name, (_, made) in found.items() if not isinstance(made, Piece)}
    measured = _measured(ground, [site for site in sites if site.name in patches], patches, batches)
    for name, divergence in measured.items():
        errors = torch.tensor([patch.error for patch in patches[name]], dtype=torch.float64)
        ground.work.keep(found[name][0], piece := Piece({"error": errors, "divergence": divergence}))
        found[name] = (found[name][0], piece)
    return {name: _probes(piece) for name, (_, piece) in found.items() if isinstance(piece, Piece)}


def _identity(problem: Problem, unseen: Problem | None, chosen: Sequence[Candidate]) -> tuple[object, ...]:
    forms = [(identity(FORMS[candidate.form]), candidate.rank) for candidate in chosen]
    return problem.digest, unseen and unseen.digest, forms, STEPS


def _probes(piece: Piece) -> tuple[Probe, ...]:
    columns = (piece.tensors[name].tolist() for name in ("error", "divergence"))
    return tuple(Probe(*row) for row in zip(*columns, strict=True))


def _chosen(site: Site, candidates: Sequence[Candidate], shares: Sequence[float]) -> list[Candidate]:
    """At each share the candidate that errs least among those that are as small; the smallest where none is."""
    options = [candidate for candidate in candidates if candidate.form != DENSE]
    found: list[Candidate] = []
    for share in shares:
        small = [c for c in options if c.params <= share * site.params]
        small = small or sorted(options, key=lambda c: (c.params, c.form, c.rank))[:1]
        best = min(small, key=lambda c: (c.unseen_error, c.params, c.form, c.rank), default=None)
        if best is not None and best not in found:
            found.append(best)
    return found


def first_samples(batches: Sequence[Batch], menu: Menu, probes: int) -> list[Batch]:
    """The first samples: as many as so many probes may take. On average half of the network lies behind a site."""
    affordable = int(MACS / max(menu.macs * probes / 2, 1))
    left, found = min(IMAGES, max(FEWEST, affordable)), []
    for batch in batches:
        for start in range(0, min(batch.size, max(left, 0)), PART):
            found.append(batch.part(start, min(start + PART, left, batch.size)))
        left -= batch.size
    return found


def _patch(
    site: Site, candidate: Candidate, norms: tuple[Problem, Problem | None], fresh: float, ground: Ground
) -> Patch:
    """A candidate fitted.

    Args:
        norms: of the fit, and of the inputs that it does not see.
        fresh: share of those among the inputs on which the divergence is read: a fit to few inputs may err ten times as
            much on others, and an error on these is not to be blamed for what it did on those.
    """
    (problem, unseen), form = norms, FORMS[candidate.form]
    fitted = fit(form, site.layer, problem, candidate.rank, steps=STEPS)
    weight = form.reconstruct(fitted.factors).reshape(problem.weight.shape)
    error = fitted.error
    if unseen is not None and not site.members:
        seen = replace(problem, matrix=input_moment(site, ground.statistics[site.name]))
        error = fresh * unseen.relative(weight) + (1 - fresh) * seen.relative(weight)
    statistics, shift = ground.statistics.get(site.name), None
    if statistics is not None and site.bias_may_move:
        if not site.members and site.calls == 1:
            weight = rescaled(site, problem.weight, weight, statistics)
        shift = torch.einsum("gon,gn->go", problem.weight - weight, statistics.mean)
    return Patch(error, weight.to(getattr(torch, site.dtype)), shift)  # held for all sites, so no larger than they are


def rescaled(site: Site, weight: Tensor, approximation: Tensor, statistics: Statistics) -> Tensor:
    """The approximation with rows (of groups) scaled so that each output channel varies as much as before."""
    covariance = input_norm(site, statistics)
    want, have = ((times(rows, covariance) * rows).sum(-1) for rows in (weight, approximation))
    return matching_scale(have, want).unsqueeze(-1) * approximation


def _measured(
    ground: Ground, sites: Sequence[Site], patches: Mapping[str, Sequence[Patch]], batches: Sequence[Batch]
) -> dict[str, Tensor]:
    """Mean divergence (probes,) of every site."""
    if not sites:
        return {}
    student = deepcopy(ground.model)
    replay = Replay(
        student, [name for site in sites for name in site.modules], lambda model, one: outputs(model, [one])
    )
    sums = {site.name: torch.zeros(len(patches[site.name]), dtype=torch.float64) for site in sites}
    rows, steps = 0, iter(ground.progress(range(len(batches) * len(sites)), "probe", len(batches) * len(sites)))
    for batch in batches:
        expected = replay.remember(batch)
        rows += len(expected)
        for site in sites:
            for at, patch in enumerate(patches[site.name]):
                with patched(student, site, patch):
                    sums[site.name][at] += divergences(expected, replay.again(batch, site.modules)).sum()
            next(steps, None)
    next(steps, None)
    return {name: (found / rows).nan_to_num(LARGEST, LARGEST).clamp(0, LARGEST) for name, found in sums.items()}


@contextmanager
def patched(student: nn.Module, site: Site, patch: Patch) -> Iterator[None]:
    """Inside, the layers of a site have the weight and bias of a replacement."""
    modules = [student.get_submodule(name) for name in site.modules]
    before = [(module, module.weight, module._parameters.get("bias")) for module in modules]
    put_patch(student, site, patch)
    try:
        yield
    finally:
        for module, weight, bias in before:
            module.weight = weight
            if "bias" in module._parameters:
                module.bias = bias  # type: ignore[assignment]


def put_patch(student: nn.Module, site: Site, patch: Patch) -> None:
    """Give the layers of a site the weight and bias of a replacement."""
    member, layers = site.layer.member, len(site.modules)
    shifts = [None] * layers if patch.shift is None else patch.shift.chunk(layers)
    for name, weight, shift in zip(site.modules, patch.weight.chunk(layers), shifts, strict=True):
        module = student.get_submodule(name)
        module.weight = _like(module.weight, member.native(weight.reshape(member.weight_shape)))  # type: ignore[arg-type]
        if shift is not None:
            bias = module._parameters.get("bias")
            moved = shift.flatten() if bias is None else bias.detach().double().cpu() + shift.flatten()
            module.bias = _like(module.weight, moved)  # type: ignore[arg-type]


def _like(old: Tensor, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(old).contiguous(), requires_grad=False)
