"""Stage 5: the same network, its layers replaced by the standard layers of their factors."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.bare import seeded
from polyad.cost import check_rank
from polyad.decompositions.base import FORMS
from polyad.errors import PlanError
from polyad.layers import LayerSpec, is_layer
from polyad.metrics import METRICS, Metric
from polyad.naming import put
from polyad.progress import Progress, silent
from polyad.records import Choice, Plan, Site, Statistics
from polyad.sites import weight_of
from polyad.slim import slim
from polyad.solvers import fit_once, problems
from polyad.threads import side_by_side
from polyad.work import NOTHING_KEPT, Work

FINAL_STEPS = 600
"""L-BFGS iterations that a chosen rank may take; most forms end by themselves long before."""


@dataclass(frozen=True)
class Factorised:
    """A fitted site.

    Attributes:
        choice: what the plan says.
        factors: (groups, ...) each, float64.
        error: relative, in the norm of the fit.
        held_out_error: the same on held-out inputs, or None.
        weight_error: relative, in the plain norm.
        shift: (out,) of each layer of the site, one after another: what the output lacks on average and a bias or batch
            norm has to give back, or None.
    """

    choice: Choice
    factors: tuple[Tensor, ...]
    error: float
    held_out_error: float | None
    weight_error: float
    shift: Tensor | None


def factorise(
    model: nn.Module,
    plan: Plan,
    statistics: Mapping[str, Statistics],
    *,
    steps: int = FINAL_STEPS,
    progress: Progress = silent,
    work: Work = NOTHING_KEPT,
) -> list[Factorised]:
    """Fit the factors that a plan asks for.

    Args:
        model: the original network.
        plan: from `allocate`, or edited by hand.
        statistics: from `observe`; may be empty where the plan's norm needs no inputs.
        steps: at most so many L-BFGS iterations.
        work: where finished fits are kept and found.

    Raises:
        PlanError: the plan names a layer that the network does not have or that differs from it.
        FormError: a form or rank that a layer cannot take.
    """
    norm = METRICS[plan.metric]
    chosen = [choice for choice in plan.choices if not choice.dense]
    for choice in chosen:
        check_fits(model, choice)
        check_rank(choice.site, choice.form, choice.rank)
        if missing := norm.lacks(statistics.get(choice.site.name)):
            raise PlanError(
                f"The plan fits in the {norm.name} norm, which needs {missing} of {choice.site.name}: give calibration"
                " data."
            )

    def one(choice: Choice) -> Factorised:
        return _factorise_one(model, choice, norm, statistics.get(choice.site.name), steps, work)

    return list(progress(side_by_side(one, chosen), "fit", len(chosen)))


def rebuild(model: nn.Module, fitted: Sequence[Factorised]) -> nn.Module:
    """A copy of the network with the fitted sites replaced; the original is untouched and shares no storage."""
    student = deepcopy(model)
    with torch.no_grad():
        for site in fitted:
            _replace(student, site)
    return student


def swap(model: nn.Module, choices: Sequence[Choice]) -> None:
    """Put empty factorised layers where a plan wants them, in place: the skeleton that saved weights fill."""
    for choice in choices:
        if not choice.dense:
            check_fits(model, choice)
            for name, module in zip(choice.site.modules, _skeletons(model, choice), strict=True):
                _put(model, choice, name, module)


def untrained(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the network in the shape of a plan, with weights of no meaning in what is replaced: enough to time."""
    student = deepcopy(model)
    swap(student, plan.choices)
    slim(student, plan.narrowed)
    for choice in plan.choices:
        for name in () if choice.dense else choice.site.modules:
            seeded(student.get_submodule(name))
    return student


def check_fits(model: nn.Module, choice: Choice) -> None:
    """Raise PlanError where the network's layer is not the one that the plan was made for."""
    for name in choice.site.modules:
        _check_fits(model, choice, name)


def _check_fits(model: nn.Module, choice: Choice, name: str) -> None:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise PlanError(f"The plan replaces {name}, which {type(model).__name__} does not have.") from None
    if not is_layer(module):
        raise PlanError(
            f"The plan replaces {name}, which is a {type(module).__name__}, not a {choice.site.layer.label}."
        )
    if (found := LayerSpec.of(module)) != (there := choice.site.layer.member):
        raise PlanError(f"The plan was made for another {name}: {there} there, {found} in this network.")


def _factorise_one(
    model: nn.Module, choice: Choice, norm: Metric, statistics: Statistics | None, steps: int, work: Work
) -> Factorised:
    site, form = choice.site, FORMS[choice.form]
    problem, unseen = problems(site, weight_of(model, site), norm, statistics)
    found = fit_once(form, site.layer, problem, choice.rank, steps=steps, work=work)
    approximation = form.reconstruct(found.factors).reshape(problem.weight.shape)
    difference = problem.weight - approximation
    shift = None
    if norm.needs_inputs and statistics is not None and site.bias_may_move:
        shift = torch.einsum("gon,gn->go", difference, statistics.mean).flatten()
    plain = problem.weight.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    return Factorised(
        choice=choice,
        factors=found.factors,
        error=found.error,
        held_out_error=None if unseen is None else unseen.relative(approximation),
        weight_error=float(difference.square().sum() / plain),
        shift=shift,
    )


def _skeletons(model: nn.Module, choice: Choice) -> list[nn.Sequential]:
    """One per module of the site, not yet filled; the layers of a stack hold the factors they share as one tensor."""
    form, layer = FORMS[choice.form], choice.site.layer
    weights = [model.get_submodule(name).weight for name in choice.site.modules]
    parts = [form.skeleton(layer, choice.rank, weight.dtype, weight.device) for weight in weights]  # type: ignore[arg-type]
    first = parts[0]
    for name in form.shared_parameters(layer, choice.rank):
        for part in parts[1:]:
            put(part, name, first.get_parameter(name))
    return parts


def _replace(student: nn.Module, fitted: Factorised) -> None:
    choice, site, form = fitted.choice, fitted.choice.site, FORMS[fitted.choice.form]
    groups, member = site.layer.groups, site.layer.member
    shifts = [None] * len(site.modules) if fitted.shift is None else fitted.shift.chunk(len(site.modules))
    for at, (name, module) in enumerate(zip(site.modules, _skeletons(student, choice), strict=True)):
        old = student.get_submodule(name)
        bias = moved(student, site, getattr(old, "bias", None), shifts[at])
        own = [factor if len(factor) == 1 else factor[at * groups : (at + 1) * groups] for factor in fitted.factors]
        form.load(module, member, own, bias)
        module.train(old.training)
        _put(student, choice, name, module)


def moved(student: nn.Module, site: Site, bias: Tensor | None, shift: Tensor | None) -> Tensor | None:
    """The bias with what the output lacks on average; where there is none the batch norm behind takes it."""
    if shift is None:
        return bias
    if bias is not None:
        return bias + shift.to(bias)
    if site.norm_behind is not None:
        mean = student.get_submodule(site.norm_behind).running_mean
        mean.sub_(shift.to(mean))  # type: ignore[operator, union-attr, arg-type]
    return None


def _put(model: nn.Module, choice: Choice, name: str, module: nn.Module) -> None:
    """Replace a layer under all of its names."""
    for alias in (name, *choice.site.aliases):
        put(model, alias, module)
