"""`polyad presets NAME`: what a preset does, and `--preset NAME`, which puts its settings behind the options."""

from typing import Any

import typer
from rich.table import Table

from polyad.cli.console import console, print_json
from polyad.cli.recipe import as_option
from polyad.presets import PRESETS


def run(name: str, as_json: bool) -> None:
    found = PRESETS[name]
    if as_json:
        print_json(found.model_dump())
        return
    options = " ".join(f"--{key.replace('_', '-')} {as_option(key, value)}" for key, value in found.settings.items())
    rows = {
        "preset": f"{found.name}: {found.title}",
        "summary": found.summary,
        "source": found.source,
        "the same as": options,
        "differs": "\n".join(f"- {text}" for text in found.differs),
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    for title, text in rows.items():
        table.add_row(title, text)
    console.print(table, markup=False, highlight=False)


def defaults(context: typer.Context, name: str | None) -> str | None:
    """Put the settings of a preset where the command looks for what neither it nor a recipe gives."""
    if name is not None:
        context.default_map = values(context, name) | dict(context.default_map or {})
    return name


def values(context: typer.Context, name: str) -> dict[str, Any]:
    """The settings of a preset as options of a command, as far as it has them."""
    known = {parameter.name for parameter in context.command.params}
    return {key: as_option(key, value) for key, value in PRESETS[name].settings.items() if key in known}
