"""The weights behind a site, and stacks: several layers of one shape that are replaced together and share factors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyad.errors import PlanError
from polyad.layers import LayerSpec
from polyad.naming import matches
from polyad.records import Plan, Run, Site, Trace


def weight_of(model: nn.Module, site: Site) -> Tensor:
    """The canonical weight (groups, out, in, *kernel) of a site; of a stack the groups of all its layers."""
    member = site.layer.member
    weights = [member.canonical(model.get_submodule(name).weight.detach()) for name in site.modules]  # type: ignore[operator, union-attr]
    return weights[0] if len(weights) == 1 else torch.cat(weights)


def stacked(trace: Trace, patterns: Sequence[str]) -> Trace:
    """The trace with the sites that match a pattern joined to one site, which is called like the pattern.

    Args:
        patterns: names, wildcards such as `layers.*.attention.q`, or regular expressions behind `re:`.

    Raises:
        PlanError: a pattern that matches fewer than two sites, or sites of different shapes.
    """
    sites = list(trace.sites)
    for pattern in patterns:
        found = [site for site in sites if matches(pattern, site.name, "--stack")]
        stack = _joined(pattern, found)
        sites[sites.index(found[0])] = stack
        sites = [site for site in sites if site not in found]
    return trace.model_copy(update={"sites": tuple(sites)})


def stacked_as(trace: Trace, plan: Plan) -> Trace:
    """The trace with the stacks of a plan.

    Raises:
        PlanError: a layer of a stack is not there.
    """
    sites = {site.name: site for site in trace.sites}
    for choice in plan.choices:
        members = choice.site.members
        if missing := [name for name in members if name not in sites]:
            raise PlanError(f"The plan stacks {', '.join(members)}, but {missing[0]} cannot be replaced here.")
        if members:
            stack = _joined(choice.site.name, [sites[name] for name in members])
            sites = {name: site for name, site in sites.items() if name not in members} | {stack.name: stack}
    return trace.model_copy(update={"sites": tuple(sites.values())})


def _joined(pattern: str, found: Sequence[Site]) -> Site:
    if len(found) < 2:
        raise PlanError(
            f"--stack {pattern!r} matches {len(found)} layers that can be replaced; a stack needs two or more."
        )
    first = found[0]
    for site in found:
        if site.layer != first.layer or site.dtype != first.dtype or site.members or site.aliases:
            shapes = f"{first.name} is {_shape(first.layer)}, {site.name} is {_shape(site.layer)}"
            raise PlanError(
                f"--stack {pattern!r} needs layers of one kind and shape, each under one name and in no other stack;"
                f" {shapes}."
            )
    runs: dict[tuple[int, ...], int] = {}
    for site in found:
        for run in site.runs:
            runs[run.size] = runs.get(run.size, 0) + run.times
    return Site(
        name=pattern,
        members=tuple(site.name for site in found),
        layer=first.layer.model_copy(update={"stack": len(found)}),
        dtype=first.dtype,
        runs=tuple(Run(size=size, times=times) for size, times in runs.items()),
    )


def _shape(layer: LayerSpec) -> str:
    return f"{layer.label} {'x'.join(map(str, layer.weight_shape))}" + (" with a bias" if layer.bias else "")
