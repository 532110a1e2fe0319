"""What people see while they wait, and what they read at the end."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

WIDTH = 120
"""Columns of a table where there is no terminal to ask, as in a pipe or a log."""

console = Console()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDTH
errors = Console(stderr=True)


def bars(quiet: bool):  # noqa: ANN201
    """A `Progress` for the stages: bars with the time left on standard error when it is a terminal."""

    def show(items: Iterable[T], label: object, total: int | None = None) -> Iterable[T]:
        if quiet or not errors.is_terminal:
            return items
        return _bar(items, label, total)

    return show


def _bar(items: Iterable[T], label: object, total: int | None) -> Iterator[T]:
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        task = progress.add_task(str(label), total=total)
        for item in items:
            yield item
            progress.update(task, advance=1, description=str(label))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def note(text: str, quiet: bool = False) -> None:
    """What people should know about a run before they rely on it; on standard error, so that results stay clean."""
    if not quiet:
        errors.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)


def say(text: str, quiet: bool = False) -> None:
    """A line for people; where it is broken is left to the terminal, so that a pipe gets whole lines."""
    if not quiet:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
