"""`polyad forms`, `polyad allocators` and their like: what there is of one kind, one line each."""

from typing import Any

from rich.table import Table

from polyad.allocators.base import ALLOCATORS
from polyad.cli.console import console, print_json, say
from polyad.damages.base import DAMAGES
from polyad.decompositions.base import FORMS
from polyad.exporters.base import EXPORTERS
from polyad.metrics import METRICS
from polyad.presets import PRESETS
from polyad.registry import Registry
from polyad.runtimes.base import RUNTIMES
from polyad.zoo.base import ZOO

FORMS_NOTE = (
    "● on the menu where --forms is not given; --forms all takes every form; `polyad forms NAME` shows a form's page,"
    " with its variants"
)


COLUMNS: dict[str, tuple[Registry[Any], tuple[str, ...]]] = {
    "forms": (FORMS, ("default", "equation", "summary", "source")),
    "allocators": (ALLOCATORS, ("summary", "source")),
    "presets": (PRESETS, ("summary", "source")),
    "metrics": (METRICS, ("summary", "source")),
    "damages": (DAMAGES, ("summary", "source")),
    "runtimes": (RUNTIMES, ("here", "summary")),
    "formats": (EXPORTERS, ("suffix", "summary")),
    "zoo": (ZOO, ("summary", "source")),
}
"""What can be listed: where it is registered, and what is shown of it beside the name."""


def _rows(what: str) -> list[dict[str, Any]]:
    registry, columns = COLUMNS[what]
    rows = [{"name": name} | {column: _shown(registry[name], column) for column in columns} for name in registry]
    return sorted(rows, key=lambda row: not row.get("default"))


def _shown(one: Any, column: str) -> Any:
    """An attribute; of a runtime also what is missing here, or its version."""
    return one.lacks() or one.version() if column == "here" else getattr(one, column)


def run(what: str, as_json: bool) -> None:
    rows = _rows(what)
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    columns = ("name", "menu", "equation", "summary") if what == "forms" else tuple(rows[0])
    for column in columns:
        table.add_column(column, no_wrap=column in ("name", "menu", "equation"))
    for row in rows:
        cells = row | {"menu": "●" if row.get("default") else ""}
        table.add_row(*(cells[column] for column in columns))
    console.print(table, markup=False)
    if what == "forms":
        say(FORMS_NOTE)
