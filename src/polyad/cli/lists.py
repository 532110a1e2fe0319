"""The commands that list what there is of one kind."""

from collections.abc import Callable

import typer

from polyad.cli import options as o

LISTS = {
    "allocators": "The ways to spend a budget.",
    "metrics": "The norms in which an error can count.",
    "damages": "What makes the errors of different layers comparable, so that they can be added up.",
    "runtimes": "What can run a network where its latency counts, and whether it is there.",
    "formats": "The formats of files that `polyad export` writes.",
    "zoo": "The reference networks that come along.",
}


def add_lists(app: typer.Typer, answer: Callable[..., None]) -> None:
    """Add them to the command line."""
    for what, summary in LISTS.items():
        _add(app, answer, what, summary)


def _add(app: typer.Typer, answer: Callable[..., None], what: str, summary: str) -> None:
    def run(as_json: o.Json = False) -> None:
        answer("listing", what=what, as_json=as_json)

    app.command(what, help=summary)(run)
