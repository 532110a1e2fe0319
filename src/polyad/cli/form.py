"""`polyad forms NAME`: the page of one form."""

from dataclasses import asdict

from rich.table import Table

from polyad.cli.console import console, print_json
from polyad.decompositions.base import FORMS
from polyad.describe import FormPage


def run(name: str, as_json: bool) -> None:
    page = FormPage.of(FORMS[name])
    if as_json:
        print_json(asdict(page))
        return
    rows = {
        "form": page.name,
        "summary": page.summary,
        "on the menu": page.menu_text,
        "equation": page.equation,
        "letters": page.letters_text,
        "factors": "\n".join(f"{letters}: {shape}" for letters, shape in page.factors.items()),
        "variants": page.variants_text,
        "parameters": page.params,
        "MACs for one output position": page.macs_text,
        "carries": page.carries_text,
        "refuses": page.refuses_text,
        "good for": page.good_for,
        "source": page.source,
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    for title, text in rows.items():
        table.add_row(title, text)
    console.print(table, markup=False, highlight=False)
