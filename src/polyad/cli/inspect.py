"""`polyad inspect`: which layers can be replaced, what they cost, what is refused and why."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from polyad.cli.answers import answers, as_json_rows, print_answers
from polyad.cli.console import console, print_json, say
from polyad.cli.opening import example, form_names, open_network
from polyad.decompositions.base import FORMS, Decomposition
from polyad.records import Amount, Site, Trace
from polyad.trace import trace


def run(model: str, weights: Path | None, input_size: str | None, forms: str | None, as_json: bool) -> None:
    menu = FORMS.menu(form_names(forms))
    source = open_network(model, weights)
    found = trace(source.module, example(source, input_size))
    if as_json:
        print_json(_as_json(model, found, menu, closely=forms is not None))
        return
    if forms is None:
        _print(found, menu)
    else:
        print_answers(found.sites, menu)
    _print_rest(found)


def _as_json(model: str, found: Trace, menu: Sequence[Decomposition], closely: bool) -> dict:
    def amount(value: int) -> dict:
        return Amount(before=value, after=value).model_dump() | {"kept": 1.0}

    return {
        "model": model,
        "params": amount(found.params),
        "macs": amount(found.macs),
        "bytes": amount(found.bytes),
        "sites": [_site(site, menu, closely) for site in found.sites],
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


def _print_rest(found: Trace) -> None:
    for refusal in found.refused:
        say(f"refused: {refusal.name} ({refusal.label}, {refusal.params:,} parameters): {refusal.reason}")
    say(
        f"{len(found.sites)} sites, {len(found.refused)} refused;"
        f" {found.params:,} parameters, {found.macs:,} MACs per sample,"
        f" {found.bytes:,} bytes"
    )
