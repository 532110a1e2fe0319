"""Tables and numbers of the page of forms."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

BAR = "\\|"
"""A bar inside a cell of a table."""


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A Markdown table, its first columns to the left."""
    lines = [heads, [*["---"] * left, *["---:"] * (len(heads) - left)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def wrapped(page: str, width: int = 120) -> str:
    """The paragraphs and list items of a page filled anew, for figures put into them change their lines."""
    blocks: list[list[str]] = []
    for line in page.splitlines():
        if _stands_alone(line) or line.startswith("- ") or not blocks or _stands_alone(blocks[-1][0]):
            blocks.append([])
        blocks[-1].append(line)
    return "\n".join(_filled(block, width) for block in blocks) + "\n"


def _stands_alone(line: str) -> bool:
    """Whether it is empty, a row of a table, a heading, a picture or code."""
    return not line or line.startswith(("|", "#", "!", "    "))


def _filled(block: Sequence[str], width: int) -> str:
    if _stands_alone(block[0]):
        return block[0]
    indent = "  " if block[0].startswith("- ") else ""
    text = " ".join(line.strip() for line in block)
    return fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def short(error: float | None) -> str:
    """An error as .043, .43 or 1.3; what would read as none is <.001."""
    if error is None:
        return "-"
    if error < 0.0005:
        return "<.001"
    digits = 3 if error < 0.1 else 2
    return f"{error:.{digits}f}".removeprefix("0") if error < 1 else f"{error:.1f}"


def ratio(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
