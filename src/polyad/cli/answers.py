"""What forms say about layers: up to which rank each saves, and why others refuse."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from polyad.cli.console import console, say
from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.records import Rank, Site, rank_text


@dataclass(frozen=True)
class Answer:
    """One form about one layer.

    Attributes:
        refusal: why it cannot carry the layer, or None.
        rank: the largest one with fewer parameters than the dense layer, or None.
        params: the layer's parameters at it.
    """

    form: str
    refusal: str | None = None
    rank: Rank | None = None
    params: int | None = None


def answers(layer: LayerSpec, menu: Sequence[Decomposition]) -> tuple[Answer, ...]:
    """What every form of a menu says about a layer."""
    return tuple(_answer(layer, form) for form in menu)


def as_json_rows(found: Sequence[Answer]) -> dict[str, dict | None]:
    """Of the forms that carry the layer the break-even rank, null where no rank saves."""
    return {
        one.form: None if one.rank is None else {"rank": one.rank, "params": one.params}
        for one in found
        if one.refusal is None
    }


def print_answers(sites: Sequence[Site], menu: Sequence[Decomposition]) -> None:
    """One block for all sites of a kind and shape that get the same answers; reasons of refusal once, at the end."""
    known: dict[LayerSpec, tuple[Answer, ...]] = {}
    blocks: dict[tuple, list[Site]] = {}
    for site in sites:
        if site.layer not in known:
            known[site.layer] = answers(site.layer, menu)
        blocks.setdefault((site.layer.label, site.layer.weight_shape, site.params, known[site.layer]), []).append(site)
    reasons: list[str] = []
    for (*_, found), alike in blocks.items():
        say(_headline(alike))
        console.print(_table(found, reasons), markup=False, highlight=False)
        say("")
    say("A rank is written as --set takes it, and is the largest with fewer parameters than the dense layer.")
    notes = _grid(3)
    for number, reason in enumerate(reasons, 1):
        notes.add_row(f"({number})", reason)
    console.print(notes, markup=False, highlight=False)
    say("")


def _answer(layer: LayerSpec, form: Decomposition) -> Answer:
    if refusal := form.refuses(layer):
        return Answer(form.name, refusal=refusal)
    rank = form.break_even(layer)
    return Answer(form.name) if rank is None else Answer(form.name, rank=rank, params=form.params(layer, rank))


def _headline(alike: Sequence[Site]) -> str:
    first, more = alike[0], len(alike) - 1
    names = first.name + (f" and {more} more" if more else "")
    shape = " ".join(map(str, first.layer.weight_shape))
    return f"{names}: {first.layer.label}, weight {shape}, {first.params:,} parameters{' each' if more else ''}"


def _table(found: Sequence[Answer], reasons: list[str]) -> Table:
    """The answers about one layer; new reasons are added to the list, which numbers them."""
    table = _grid(18)
    saving = [f"{one.form}:{rank_text(one.rank)}" for one in found if one.rank is not None]
    table.add_row("  saves up to rank", "  ".join(saving) or "-")
    idle = [one.form for one in found if one.refusal is None and one.rank is None]
    if idle:
        table.add_row("  no saving", "  ".join(idle))
    refused: dict[str, list[str]] = {}
    for one in found:
        if one.refusal is not None:
            refused.setdefault(one.refusal, []).append(one.form)
    reasons += [reason for reason in refused if reason not in reasons]
    if refused:
        texts = [f"{', '.join(forms)} ({reasons.index(reason) + 1})" for reason, forms in refused.items()]
        table.add_row("  refused", "  ".join(texts))
    return table


def _grid(width: int) -> Table:
    """Two columns, the first one of a given width."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    return table
