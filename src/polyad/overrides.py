"""A person's own say over single layers: leave some alone, give others their form and rank."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from polyad.decompositions.base import FORMS
from polyad.errors import PlanError
from polyad.records import DENSE, Rank, Refusal, Trace


def ignoring(trace: Trace, patterns: Sequence[str]) -> Trace:
    """The trace with the sites that match a pattern refused.

    Args:
        patterns: names, wildcards such as `layer1.*`, or regular expressions such as `re:.*downsample.*`.

    Raises:
        PlanError: a pattern that matches no site, or no regular expression.
    """
    refused = {}
    for pattern in patterns:
        matched = [site for site in trace.sites if _matches(pattern, site.name)]
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
    """Raise PlanError for a layer that is no site."""
    known = {site.name for site in trace.sites}
    refused = {refusal.name: refusal.reason for refusal in trace.refused}
    for name in fixed:
        if name not in known:
            why = f"it is refused: {refused[name]}" if name in refused else "there is no such layer"
            raise PlanError(f"--set names {name}, but {why}. Sites: {', '.join(sorted(known)[:5])}, ...")


def _matches(pattern: str, name: str) -> bool:
    if not pattern.startswith("re:"):
        return fnmatchcase(name, pattern)
    try:
        return re.fullmatch(pattern[3:], name) is not None
    except re.error as error:
        raise PlanError(f"--ignore {pattern!r} is no regular expression: {error}.") from None
