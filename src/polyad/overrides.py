"""A person's own say over single layers: leave some alone, give others their form and rank."""

import re
from collections.abc import Mapping, Sequence

from polyad.cost import check_rank
from polyad.decompositions.base import FORMS
from polyad.errors import PlanError
from polyad.naming import matches
from polyad.records import DENSE, Choice, Plan, Rank, Refusal, Trace


def ignoring(trace: Trace, patterns: Sequence[str]) -> Trace:
    """The trace with the sites that match a pattern refused.

    Args:
        patterns: names, wildcards such as `layer1.*`, or regular expressions such as `re:.*downsample.*`.

    Raises:
        PlanError: a pattern that matches no site, or no regular expression.
    """
    refused = {}
    for pattern in patterns:
        matched = [site for site in trace.sites if matches(pattern, site.name, "--ignore")]
        if not matched:
            names = ", ".join(site.name for site in trace.sites[:5])
            raise PlanError(f"--ignore {pattern!r} matches no layer; there are {names}, ...")
        refused |= {site.name: (site, pattern) for site in matched}
    rows = [
        Refusal(
            name=site.name,
            label=site.layer.label,
            params=site.params,
            macs=site.macs,
            reason=f"ignored on request ({pattern})",
        )
        for site, pattern in refused.values()
    ]
    sites = tuple(site for site in trace.sites if site.name not in refused)
    return trace.model_copy(update={"sites": sites, "refused": (*trace.refused, *rows)})


def parse_fixed(texts: Sequence[str]) -> dict[str, tuple[str, Rank]]:
    """`layer1.0.conv1=dense`, `layer2.0.conv1=cp:12`, `layer3.0.conv1=tucker2:24x16` -> name to (form, rank).

    Raises:
        PlanError: a text that is none of these.
        UnknownNameError: an unknown form.
    """
    fixed = {}
    for text in texts:
        name, _, choice = text.partition("=")
        form, _, rank = choice.partition(":")
        if form == DENSE and not rank:
            fixed[name] = (DENSE, ())
            continue
        if not re.fullmatch(r"\d+(x\d+)*", rank):
            raise PlanError(
                f"--set {text!r} is not understood: write LAYER=dense or LAYER=FORM:RANK, such as conv1=cp:12."
            )
        fixed[name] = (FORMS[form].name, tuple(int(r) for r in rank.split("x")))
    return fixed


def check_fixed(trace: Trace, fixed: Mapping[str, tuple[str, Rank]]) -> None:
    """Raise PlanError for a layer that is no site, FormError for a form or rank that it cannot take."""
    known = {site.name: site for site in trace.sites}
    refused = {refusal.name: refusal.reason for refusal in trace.refused}
    for name, (form, rank) in fixed.items():
        if name not in known:
            why = f"it is refused: {refused[name]}" if name in refused else "there is no such layer"
            raise PlanError(f"--set names {name}, but {why}. Sites: {', '.join(sorted(known)[:5])}, ...")
        check_rank(known[name], form, rank)


def replayed(plan: Plan, trace: Trace) -> Plan:
    """The plan with the sizes and totals of the network that it is to be carried out on.

    Raises:
        PlanError: the network is not the one that the plan was made for, or refuses a layer that the plan replaces.
    """
    sites = {site.name: site for site in trace.sites}
    refused = {refusal.name: refusal.reason for refusal in trace.refused}
    made_for = f"The plan was made for another network ({plan.model or 'of one of your own classes'}):"

    def on_this(choice: Choice) -> Choice:
        name = choice.site.name
        if name in refused:
            if choice.form == DENSE:
                return choice
            raise PlanError(f"The plan replaces {name}, but here it is refused: {refused[name]}.")
        if name not in sites:
            raise PlanError(
                f"{made_for} there is no layer {name} here; the first one is {next(iter(sites), 'missing')}."
            )
        here, there = sites[name].layer, choice.site.layer
        if here != there:
            shapes = f"{there.label} {there.weight_shape} in the plan, {here.label} {here.weight_shape} here"
            raise PlanError(f"{made_for} {name} differs ({shapes}).")
        site = sites[name].model_copy(update={"latency": choice.site.latency})  # measured, not traced
        return choice.model_copy(update={"site": site})

    choices = tuple(map(on_this, plan.choices))
    if plan.params_before != trace.params:
        raise PlanError(f"{made_for} that one has {plan.params_before:,} parameters, this one {trace.params:,}.")
    totals = {"macs_before": trace.macs, "bytes_before": trace.bytes}
    return plan.model_copy(update={"choices": choices, "refused": trace.refused, **totals})
