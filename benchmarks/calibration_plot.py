"""The picture of benchmarks/calibration.py, written by hand as SVG: a row per network, a panel per form.

    python benchmarks/calibration_plot.py

The colours are of middle lightness, to be read on white and on black.
"""

import json
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

from common import HERE

COLOURS = {
    "weights": ("#8a8a8a", "weights (no data)"),
    "inputs_diagonal": ("#d9822b", "diagonal"),
    "inputs_modes": ("#3f9b5f", "mode-wise"),
    "inputs_full": ("#c0504d", "full"),
    "inputs": ("#3d8fd1", "full, shrunk (default)"),
}
TEXT = "#8a8a8a"
WIDTH, HEIGHT, LEFT, TOP, GAP = 250, 190, 62, 64, 52
TICKS = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8)


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """The whole picture from the rows of calibration.json."""
    rows = [row for row in rows if "norm" in row]
    networks, forms = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "form"))
    width = LEFT + len(forms) * (WIDTH + GAP)
    height = TOP + len(networks) * (HEIGHT + GAP + 10)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="12" fill="{TEXT}">',
        "<title>Held-out output error against the number of calibration images</title>",
        *_legend(),
        f'<text transform="translate(14,{height / 2}) rotate(-90)" text-anchor="middle">relative output error on 1,000'
        " held-out images (log)</text>",
    ]
    for line, network in enumerate(networks):
        for column, form in enumerate(forms):
            own = [row for row in rows if (row["network"], row["form"]) == (network, form)]
            x, y = LEFT + column * (WIDTH + GAP), TOP + line * (HEIGHT + GAP + 10)
            parts += [f'<g transform="translate({x},{y})">', *_panel(own, f"{network}, {form}"), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> list[str]:
    parts, x = [], LEFT
    for colour, name in COLOURS.values():
        parts.append(f'<line x1="{x}" y1="20" x2="{x + 22}" y2="20" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 28}" y="24">{name}</text>')
        x += 60 + 7 * len(name)
    return parts


def _panel(rows: Sequence[dict[str, Any]], title: str) -> list[str]:
    sizes = sorted({row["images"] for row in rows})
    errors = [row["held_out_error"] for row in rows]
    low, high = log(min(errors)) - 0.05, log(max(errors)) + 0.05

    def at(size: int, error: float) -> str:
        x = WIDTH * log(size / sizes[0]) / log(sizes[-1] / sizes[0])
        return f"{x:.1f},{HEIGHT * (high - log(error)) / (high - low):.1f}"

    parts = [f'<text x="0" y="-10" font-weight="bold">{title}</text>']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="{TEXT}" stroke-opacity="0.4"/>')
    for tick in (tick for tick in TICKS if low < log(tick) < high):
        y = at(sizes[0], tick).split(",")[1]
        parts.append(f'<line x1="0" y1="{y}" x2="{WIDTH}" y2="{y}" stroke="{TEXT}" stroke-opacity="0.25"/>')
        parts.append(f'<text x="-6" y="{float(y) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for size in sizes:
        x = at(size, errors[0]).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT + 16}" text-anchor="middle">{size}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT + 32}" text-anchor="middle">calibration images</text>')
    for norm, (colour, _) in COLOURS.items():
        found = {row["images"]: row["held_out_error"] for row in rows if row["norm"] == norm}
        known = dict.fromkeys(sizes, next(iter(found.values()))) if len(found) == 1 else found
        points = " ".join(at(size, error) for size, error in sorted(known.items()))
        dashes = ' stroke-dasharray="5 4"' if len(found) == 1 else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        for point in points.split() if len(found) > 1 else []:
            x, y = point.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>')
    return parts


def main() -> None:
    rows = json.loads((HERE / "results" / "calibration.json").read_text(encoding="utf-8"))["rows"]
    (Path(HERE).parent / "docs" / "calibration.svg").write_text(draw(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
