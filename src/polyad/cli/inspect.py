"""`polyad inspect`: which layers can be replaced, what they cost, what is refused and why."""

from pathlib import Path

from rich.table import Table

from polyad.cli.console import console, print_json, say
from polyad.cli.opening import example, open_network
from polyad.decompositions.base import FORMS
from polyad.records import Amount, Trace
from polyad.trace import trace


def run(model: str, weights: Path | None, input_size: str | None, as_json: bool) -> None:
    source = open_network(model, weights)
    found = trace(source.module, example(source, input_size))
    if as_json:
        print_json(_as_json(model, found))
    else:
        _print(found)


def _as_json(model: str, found: Trace) -> dict:
    def amount(value: int) -> dict:
        return Amount(before=value, after=value).model_dump() | {"kept": 1.0}

    return {
        "model": model,
        "params": amount(found.params),
        "macs": amount(found.macs),
        "bytes": amount(found.bytes),
        "sites": [
            {
                "name": site.name,
                "layer": site.layer.model_dump(),
                "dtype": site.dtype,
                "params": site.params,
                "macs": site.macs,
                "calls": site.calls,
                "aliases": site.aliases,
                "norm_behind": site.norm_behind,
                "forms": {name: FORMS[name].refuses(site.layer) or "carries it" for name in FORMS},
            }
            for site in found.sites
        ],
        "refused": [refusal.model_dump() for refusal in found.refused],
    }


def _print(found: Trace) -> None:
    table = Table(
        "site", "layer", "weight (groups, out, in, kernel)", "params", "MACs", "forms", box=None, pad_edge=False
    )
    for column in (3, 4):
        table.columns[column].justify = "right"
    for site in found.sites:
        forms = " ".join(name for name in FORMS if FORMS[name].refuses(site.layer) is None)
        shape = " ".join(map(str, site.layer.weight_shape))
        table.add_row(site.name, site.layer.label, shape, f"{site.params:,}", f"{site.macs:,}", forms or "none")
    console.print(table)
    for refusal in found.refused:
        say(f"refused: {refusal.name} ({refusal.label}, {refusal.params:,} parameters): {refusal.reason}")
    say(
        f"{len(found.sites)} sites, {len(found.refused)} refused;"
        f" {found.params:,} parameters, {found.macs:,} MACs per sample,"
        f" {found.bytes:,} bytes"
    )
