"""`polyad forms | allocators | metrics | zoo`: what there is, one line each."""

from rich.table import Table

from polyad.allocators.base import ALLOCATORS
from polyad.cli.console import console, print_json
from polyad.decompositions.base import FORMS
from polyad.metrics import METRICS
from polyad.zoo.base import ZOO


def _rows(what: str) -> list[dict[str, str]]:
    if what == "forms":
        forms = [FORMS[name] for name in FORMS]
        return [
            {"name": form.name, "equation": form.equation, "summary": form.summary, "source": form.source}
            for form in forms
        ]
    if what == "allocators":
        found = [ALLOCATORS[name] for name in ALLOCATORS]
        return [{"name": one.name, "summary": one.summary, "source": one.source} for one in found]
    if what == "metrics":
        norms = [METRICS[name] for name in METRICS]
        return [{"name": one.name, "summary": one.summary, "source": one.source} for one in norms]
    return [{"name": name, "summary": ZOO[name].summary, "source": ZOO[name].source} for name in ZOO]


def run(what: str, as_json: bool) -> None:
    rows = _rows(what)
    if as_json:
        print_json(rows)
        return
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
