"""The part of stage 5 that leaves out channels: those that stay make up for the others in the layer that reads them."""

from collections.abc import Mapping

import torch
from torch import nn

from polyad.hidden import Narrowed
from polyad.metrics import METRICS
from polyad.rebuild import Factorised, moved
from polyad.records import Plan, Statistics
from polyad.sites import weight_of
from polyad.slim import slim
from polyad.solvers import problems
from polyad.solvers.channels import making_up


@torch.no_grad()
def narrow(student: nn.Module, plan: Plan, statistics: Mapping[str, Statistics]) -> list[Factorised]:
    """Narrow a network as its plan says, in place; returns how far the readers err.

    Args:
        student: as rebuilt; what gets narrower is in it as in the original.
        statistics: from `observe`; may be empty where the plan's norm needs no inputs.

    Raises:
        PlanError: the network has no such layers or channels.
    """
    found = [_made_up(student, plan, one, statistics) for one in plan.narrowed]
    slim(student, plan.narrowed)
    return found


def _made_up(student: nn.Module, plan: Plan, one: Narrowed, statistics: Mapping[str, Statistics]) -> Factorised:
    """The reader with a weight that needs only the channels that are kept."""
    choice = next(choice for choice in plan.choices if choice.site.name == one.hidden.reader)
    site, norm, seen = choice.site, METRICS[plan.metric], statistics.get(choice.site.name)
    problem, unseen = problems(site, weight_of(student, site), norm, seen)
    weight = making_up(problem, one.hidden.channels, one.kept)
    difference, shift = problem.weight - weight, None
    if norm.needs_inputs and seen is not None and site.bias_may_move:
        shift = torch.einsum("gon,gn->go", difference, seen.mean).flatten()
    layer = student.get_submodule(site.name)
    layer.weight.copy_(site.layer.native(weight))  # type: ignore[operator, union-attr]
    bias = moved(student, site, layer.bias, shift)  # type: ignore[arg-type]
    if bias is not None:
        layer.bias.copy_(bias)  # type: ignore[operator, union-attr]
    plain = problem.weight.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    return Factorised(
        choice=choice,
        factors=(),
        error=problem.relative(weight),
        held_out_error=None if unseen is None else unseen.relative(weight),
        weight_error=float(difference.square().sum() / plain),
        shift=shift,
    )


def narrower_sites(plan: Plan) -> set[str]:
    """Sites whose outputs have fewer channels than the original's."""
    return {name for one in plan.narrowed for name in one.hidden.layers if name != one.hidden.reader}
