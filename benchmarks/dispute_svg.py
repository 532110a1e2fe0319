"""The picture of the dispute: what each number predicts of whole networks against what was measured, by network."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

from dispute_statistics import correlation

WIDTH, HEIGHT, LEFT, TOP, GAP = 190, 150, 76, 78, 44
COLOURS = {"weights": "#8a8a8a", "inputs_diagonal": "#d9822b", "inputs": "#3d8fd1", "curvature": "#c0504d"}
"""By the norm of the fit."""
TEXT = "#8a8a8a"
TINY = 1e-6


def picture(rows: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> str:
    """A row of panels per network, a column per number; both axes are logarithmic, colours tell the fit."""
    width = LEFT + len(COLOURS) * (WIDTH + GAP)
    height = TOP + len(rows) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="11" fill="{TEXT}">',
        f"<title>{escape(title)}</title>",
        f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="36">fitted in</text>',
    ]
    for at, (name, colour) in enumerate(COLOURS.items()):
        x = LEFT + 70 + 130 * at
        parts.append(f'<circle cx="{x}" cy="32" r="4" fill="{colour}"/><text x="{x + 9}" y="36">{name}</text>')
    for line, (network, own) in enumerate(rows.items()):
        y = TOP + line * (HEIGHT + GAP)
        middle = y + HEIGHT / 2
        parts.append(
            f'<text transform="translate(14,{middle}) rotate(-90)" text-anchor="middle" font-weight="bold">'
            f"{escape(network)}</text>"
        )
        for column, number in enumerate(COLOURS):
            place = f"translate({LEFT + column * (WIDTH + GAP)},{y})"
            parts += [f'<g transform="{place}">', *_panel(own, number), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(rows: Sequence[Mapping[str, Any]], number: str) -> list[str]:
    xs = [log10(max(row["before"]["predicted"][number], TINY)) for row in rows]
    ys = [log10(max(row["before"]["divergence"], TINY)) for row in rows]
    across, up = _range(xs), _range(ys)
    found = correlation(rows, number, "before")
    parts = [
        f'<text x="0" y="-8">{number}: {found.value:.2f}</text>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="{TEXT}" stroke-opacity="0.4"/>',
    ]
    for tick in range(ceil(across[0]), floor(across[1]) + 1):
        x = WIDTH * (tick - across[0]) / (across[1] - across[0])
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT + 14}" text-anchor="middle">{10.0**tick:g}</text>')
    for tick in range(ceil(up[0]), floor(up[1]) + 1):
        y = HEIGHT * (up[1] - tick) / (up[1] - up[0])
        parts.append(f'<line x1="0" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}" stroke="{TEXT}" stroke-opacity="0.2"/>')
        parts.append(f'<text x="-5" y="{y + 4:.1f}" text-anchor="end">{10.0**tick:g}</text>')
    for row, x, y in zip(rows, xs, ys):
        cx, cy = WIDTH * (x - across[0]) / (across[1] - across[0]), HEIGHT * (up[1] - y) / (up[1] - up[0])
        colour = COLOURS[row["norm"]]
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="2.4" fill="{colour}" fill-opacity="0.75"/>')
    return parts


def _range(logs: Sequence[float]) -> tuple[float, float]:
    room = 0.05 * max(max(logs) - min(logs), 0.1)
    return min(logs) - room, max(logs) + room
