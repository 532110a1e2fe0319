"""Gather everything that is known about one compression into a Report."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn

from polyad.decompositions.base import FORMS
from polyad.linalg import eigh_descending, matrix_power
from polyad.metrics import METRICS
from polyad.outcome import Amount, CurvePoint, Evaluation, FormRefusal, Latency, Report, SiteReport
from polyad.rebuild import Factorised
from polyad.records import Choice, Plan, Statistics, Trace
from polyad.settings import Settings
from polyad.sites import weight_of
from polyad.solvers import problems
from polyad.solvers.transform import times
from polyad.storage import saved_bytes


@dataclass(frozen=True)
class Evidence:
    """What the stages left behind."""

    model: nn.Module
    student: nn.Module
    trace: Trace
    plan: Plan
    fitted: Sequence[Factorised]
    statistics: Mapping[str, Statistics]


def collect(
    evidence: Evidence,
    settings: Settings,
    *,
    recovered: tuple[str, ...] = (),
    before: Evaluation | None = None,
    after: Evaluation | None = None,
    seconds: Mapping[str, float] | None = None,
    memory: Amount | None = None,
    latency: Latency | None = None,
    curve: tuple[CurvePoint, ...] = (),
) -> Report:
    """The report of one compression; `bytes` are those of the tensors that are saved, `memory` the peak of the
    activations of one sample and `latency` where they were asked for."""
    plan, fitted = evidence.plan, {site.choice.site.name: site for site in evidence.fitted}
    return Report(
        model=plan.model or type(evidence.model).__name__,
        budget=plan.budget,
        metric=plan.metric,
        damage=plan.damage,
        allocator=plan.allocator,
        rule=plan.rule,
        recovery=settings.recover,
        params=Amount(before=plan.params_before, after=plan.params),
        macs=Amount(before=plan.macs_before, after=plan.macs),
        memory=memory,
        latency=latency,
        curve=curve,
        bytes=Amount(before=saved_bytes(evidence.model), after=saved_bytes(evidence.student)),
        sites=tuple(_row(evidence, choice, fitted.get(choice.site.name)) for choice in plan.choices),
        refused=plan.refused,
        form_refusals=_form_refusals(plan, settings),
        before=before,
        after=after,
        recovered=recovered,
        seconds=dict(seconds or {}),
        provenance=provenance() | {"seed": str(settings.seed), "calibration samples": str(settings.samples)},
    )


def _form_refusals(plan: Plan, settings: Settings) -> tuple[FormRefusal, ...]:
    """Which forms of the menu could not carry which sites, one entry per form and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for form in FORMS.menu(settings.forms):
        for choice in plan.choices:
            if reason := form.refuses(choice.site.layer):
                found.setdefault((form.name, reason), []).append(choice.site.name)
    return tuple(FormRefusal(form=form, reason=reason, sites=tuple(names)) for (form, reason), names in found.items())


def provenance() -> dict[str, str]:
    """Versions and machine."""
    return {
        "polyad": version("polyad"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}, {torch.get_num_threads()} threads",
    }


def _row(evidence: Evidence, choice: Choice, fitted: Factorised | None) -> SiteReport:
    site = choice.site
    return SiteReport(
        name=site.name,
        label=site.layer.label,
        form=choice.form,
        rank=choice.rank,
        params_before=site.params,
        params=choice.params,
        macs_before=site.macs,
        macs=choice.macs,
        weight_error=fitted.weight_error if fitted else 0.0,
        output_error=fitted.error if fitted else 0.0,
        held_out_error=fitted.held_out_error if fitted else 0.0,
        energy=_energy(evidence, choice),
        why=choice.why,
    )


def _energy(evidence: Evidence, choice: Choice) -> tuple[float, ...]:
    """Share of the output energy that the best linear approximation of rank 0, 1, 2 ... leaves out.

    The eigenvalues of G^1/2 W C W' G^1/2 are the energies of the output's principal components.
    """
    site = choice.site
    norm = METRICS[evidence.plan.metric]
    problem, _ = problems(site, weight_of(evidence.model, site), norm, evidence.statistics.get(site.name))
    weight = problem.weight if problem.left is None else matrix_power(problem.left, 0.5) @ problem.weight
    values, _ = eigh_descending(times(weight, problem.matrix) @ weight.mT)
    energy = values.sum(0)
    if not energy.sum() > 0:
        return ()
    left = (energy.sum() - energy.cumsum(0)).clamp_min(0) / energy.sum()
    return (1.0, *(float(f"{share:.4g}") for share in left.tolist()))
