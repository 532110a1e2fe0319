"""`polyad inspect`: which layers can be replaced, what they cost, what is refused and why."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from polyad.cli.answers import answers, as_json_rows, print_answers
from polyad.cli.console import console, print_json, say
from polyad.cli.opening import example, form_names, open_network
from polyad.decompositions.base import FORMS, Decomposition
from polyad.expand import Expanded, expand, parse_split
from polyad.looking import trace_expanded
from polyad.naming import inside
from polyad.outcome import Amount
from polyad.records import Site, Trace
from polyad.sites import stacked


def run(
    model: str,
    weights: Path | None,
    input_size: str | None,
    split: list[str] | None,
    stack: list[str] | None,
    forms: str | None,
    as_json: bool,
) -> None:
    menu, parts = FORMS.menu(form_names(forms)), parse_split(split or ())
    source = open_network(model, weights)
    batch = example(source, input_size)
    expanded = expand(source.module, batch, parts)
    found = stacked(trace_expanded(expanded, batch), stack or ())
    if as_json:
        print_json(_as_json(model, found, expanded, menu, closely=forms is not None))
        return
    if forms is None:
        _print(found, menu)
    else:
        print_answers(found.sites, menu)
    _print_rest(found, expanded)


def _as_json(model: str, found: Trace, expanded: Expanded, menu: Sequence[Decomposition], closely: bool) -> dict:
    def amount(value: int) -> dict:
        return Amount(before=value, after=value).model_dump() | {"kept": 1.0}

    return {
        "model": model,
        "params": amount(found.params),
        "macs": amount(found.macs),
        "bytes": amount(found.bytes),
        "sites": [_site(site, menu, closely) for site in found.sites],
        "expanded": {name: step.model_dump() for name, step in expanded.names.items()},
        "refused": [refusal.model_dump() for refusal in found.refused],
    }


def _site(site: Site, menu: Sequence[Decomposition], closely: bool) -> dict:
    """One site; with the break-even ranks of the forms that carry it where forms are named."""
    found = {
        "name": site.name,
        "layer": site.layer.model_dump(),
        "dtype": site.dtype,
        "params": site.params,
        "macs": site.macs,
        "calls": site.calls,
        "aliases": site.aliases,
        "members": site.members,
        "norm_behind": site.norm_behind,
        "forms": {form.name: form.refuses(site.layer) or "carries it" for form in menu},
    }
    return found | {"break_even": as_json_rows(answers(site.layer, menu))} if closely else found


def _print(found: Trace, menu: Sequence[Decomposition]) -> None:
    table = Table(
        "site", "layer", "weight (groups, out, in, kernel)", "params", "MACs", "forms", box=None, pad_edge=False
    )
    for column in (3, 4):
        table.columns[column].justify = "right"
    for site in found.sites:
        forms = " ".join(form.name for form in menu if form.refuses(site.layer) is None)
        shape = " ".join(map(str, site.layer.weight_shape))
        table.add_row(site.name, site.layer.label, shape, f"{site.params:,}", f"{site.macs:,}", forms or "none")
    console.print(table)


def _print_rest(found: Trace, expanded: Expanded) -> None:
    for name, step in expanded.names.items():
        layers = sum(inside(site.name, name) for site in found.sites)
        say(f"expanded: {name or 'the network'} ({step.kind}), {layers} sites inside")
    for refusal in found.refused:
        say(f"refused: {refusal.name} ({refusal.label}, {refusal.params:,} parameters): {refusal.reason}")
    say(
        f"{len(found.sites)} sites, {len(found.refused)} refused;"
        f" {found.params:,} parameters, {found.macs:,} MACs per sample,"
        f" {found.bytes:,} bytes"
    )
