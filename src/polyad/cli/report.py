"""`polyad report`: the report of a folder, printed, and its page written again."""

from pathlib import Path

from polyad.cli.console import console, say
from polyad.report import print_report, read_report, write_report


def run(folder: Path) -> None:
    found = read_report(folder)
    write_report(found, folder)
    print_report(found, console)
    say(f"written to {folder / 'report.html'}")
