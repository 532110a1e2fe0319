"""The picture of benchmarks/recovery.py, written by hand as SVG: what is lost against the time of recovery, by level.

    python benchmarks/recovery_plot.py

A panel for each case of recovery_cases.py with results; a dot is the mean over seeds, a ring one of a graphics card,
where seconds are others. A line joins dots of the same seeds: those of others are no further point of it. The colours
are of middle lightness, to be read on white and on black.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import log10
from statistics import mean
from typing import Any

from common import HERE, rows_at
from recovery_cases import CASES

COLOURS = {
    "none": "#8a8a8a",
    "statistics": "#d9822b",
    "refit": "#3f9b5f",
    "reconstruction": "#c0504d",
    "distillation": "#3d8fd1",
}
TEXT = "#8a8a8a"
WIDTH, HEIGHT, LEFT, TOP, GAP, COLUMNS = 250, 180, 56, 54, 56, 3
SHORTEST = 5.0
"""Seconds at the left edge, where what takes less stands as well."""

Points = Mapping[tuple[str, str, tuple[int, ...]], Sequence[tuple[float, float]]]
"""Level, device and seeds -> seconds, loss."""


def points_of(rows: Sequence[dict]) -> Points:
    """Means over seeds of the first test of each row."""
    found: dict[tuple[Any, ...], list[tuple[int, float, float]]] = defaultdict(list)
    for row in rows:
        first = next(iter(row["tests"].values()))
        kind = (row["level"], row.get("device", "cpu"), row["minutes"], row.get("epochs"))
        found[kind].append((row["seed"], row["seconds"], first["lost"]))
    lines: dict[tuple[str, str, tuple[int, ...]], list[tuple[float, float]]] = defaultdict(list)
    for (level, device, *_), own in found.items():
        seeds, seconds, losses = zip(*sorted(own))
        lines[level, device, seeds].append((mean(seconds), mean(losses)))
    return lines


def panel(points: Points, title: str, unit: str) -> list[str]:
    """One case."""
    losses = [y for own in points.values() for _, y in own]
    low, high = min(0.0, *losses), max(losses)
    high += 0.05 * (high - low) or 1
    far = log10(max(max(x for own in points.values() for x, _ in own), 10 * SHORTEST) / SHORTEST)

    def at(seconds: float, loss: float) -> tuple[float, float]:
        return WIDTH * log10(max(seconds / SHORTEST, 1)) / far, HEIGHT * (high - loss) / (high - low)

    parts = [f'<text x="0" y="-10" font-weight="bold">{title}</text>']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="{TEXT}" stroke-opacity="0.4"/>')
    for tick in (low + (high - low) * part / 4 for part in range(5)):
        _, y = at(SHORTEST, tick)
        parts.append(f'<line x1="0" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}" stroke="{TEXT}" stroke-opacity="0.2"/>')
        parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{tick:.2g}</text>')
    for seconds in (10, 60, 300, 1200, 3600):
        x, _ = at(seconds, 0)
        if x <= WIDTH:
            said = f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT + 16}" text-anchor="middle">{said}</text>')
    parts.append(f'<text transform="translate(-42,{HEIGHT / 2}) rotate(-90)" text-anchor="middle">{unit}</text>')
    for (level, device, _), own in points.items():
        places, colour = [at(*point) for point in sorted(own)], COLOURS[level]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        fill = f'fill="{colour}"' if device == "cpu" else f'fill="none" stroke="{colour}" stroke-width="2"'
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {fill}/>' for x, y in places]
    return parts


def draw(cases: Mapping[str, Sequence[dict]]) -> str:
    """The whole picture from the rows of each case."""
    lines = -(-len(cases) // COLUMNS)
    size = f"{LEFT + COLUMNS * (WIDTH + GAP)} {TOP + lines * (HEIGHT + GAP)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12"'
        f' fill="{TEXT}">',
        "<title>Lost against the original over the time of recovery</title>",
    ]
    for at, (level, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{LEFT + 110 * at}" y="20" fill="{colour}">● {level}</text>')
    parts.append(f'<text x="{LEFT + 110 * len(COLOURS)}" y="20">○ on a graphics card</text>')
    for at, (name, rows) in enumerate(cases.items()):
        x, y = LEFT + at % COLUMNS * (WIDTH + GAP), TOP + at // COLUMNS * (HEIGHT + GAP)
        unit = next(iter(rows[0]["tests"].values()))["unit"]
        parts += [f'<g transform="translate({x},{y})">', *panel(points_of(rows), name, f"{unit} lost"), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    found = {name: rows_at(HERE / "results" / f"recovery_{name}.json") for name in CASES}
    cases = {name: rows for name, rows in found.items() if rows}
    (HERE.parent / "docs" / "recovery.svg").write_text(draw(cases), encoding="utf-8")


if __name__ == "__main__":
    main()
