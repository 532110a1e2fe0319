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
from polyad.runtimes.base import RUNTIMES
from polyad.zoo.base import ZOO

FORMS_NOTE = (
    "● on the menu where --forms is not given; --forms all takes every form; `polyad forms NAME` shows a form's page,"
    " with its variants"
)


def _rows(what: str) -> list[dict[str, Any]]:
    if what == "forms":
        forms = sorted((FORMS[name] for name in FORMS), key=lambda form: not form.default)
        return [
            {
                "name": form.name,
                "default": form.default,
                "equation": form.equation,
                "summary": form.summary,
                "source": form.source,
            }
            for form in forms
        ]
    if what == "allocators":
        found = [ALLOCATORS[name] for name in ALLOCATORS]
        return [{"name": one.name, "summary": one.summary, "source": one.source} for one in found]
    if what == "presets":
        methods = [PRESETS[name] for name in PRESETS]
        return [{"name": one.name, "summary": one.summary, "source": one.source} for one in methods]
    if what == "metrics":
        norms = [METRICS[name] for name in METRICS]
        return [{"name": one.name, "summary": one.summary, "source": one.source} for one in norms]
    if what == "damages":
        judged = [DAMAGES[name] for name in DAMAGES]
        return [{"name": one.name, "summary": one.summary, "source": one.source} for one in judged]
    if what == "runtimes":
        ways = [RUNTIMES[name] for name in RUNTIMES]
        return [{"name": one.name, "here": one.lacks() or one.version(), "summary": one.summary} for one in ways]
    if what == "formats":
        formats = [EXPORTERS[name] for name in EXPORTERS]
        return [{"name": one.name, "suffix": one.suffix, "summary": one.summary} for one in formats]
    return [{"name": name, "summary": ZOO[name].summary, "source": ZOO[name].source} for name in ZOO]


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
