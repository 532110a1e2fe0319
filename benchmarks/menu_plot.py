"""The picture of benchmarks/menu.py, written by hand as SVG: time of a menu against parameters, in depth and in width.

    python benchmarks/menu_plot.py

The colours are of middle lightness, to be read on white and on black.
"""

import json
from math import log10
from pathlib import Path
from typing import Any

from common import HERE

SERIES = {
    "depth: ResNet-20, 56, 110": ("#3d8fd1", ("resnet20", "resnet56", "resnet110")),
    "width: ResNet-20 times 1, 2, 4": ("#d9822b", ("resnet20", "resnet20x2", "resnet20x4")),
}
TEXT, LIMIT = "#8a8a8a", 1.2
WIDTH, HEIGHT, LEFT, TOP = 420, 260, 62, 44


def draw(rows: list[dict[str, Any]]) -> str:
    """The whole picture from the rows of menu.json; the dotted line grows like parameters to the power of `LIMIT`."""
    known = {row["case"]: (log10(row["params"]), log10(row["processor_s"])) for row in rows}
    points = {name: [known[one] for one in own if one in known] for name, (_, own) in SERIES.items()}
    xs, ys = zip(*(point for own in points.values() for point in own), strict=True)
    start, far = min(points["depth: ResNet-20, 56, 110"]), max(xs)
    top = start[1] + LIMIT * (far - start[0])
    low, high = min(ys) - 0.1, max(*ys, top) + 0.1

    def at(point: tuple[float, float]) -> str:
        x = WIDTH * (point[0] - min(xs) + 0.05) / (far - min(xs) + 0.1)
        return f"{x:.1f},{HEIGHT * (high - point[1]) / (high - low):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {TOP + HEIGHT + 48}"'
        f' font-family="sans-serif" font-size="12" fill="{TEXT}">',
        "<title>Processor time of a whole menu against the parameters of the network</title>",
        f'<text transform="translate(14,{TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle">processor seconds</text>',
        f'<g transform="translate({LEFT},{TOP})">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="{TEXT}" stroke-opacity="0.4"/>',
        f'<polyline points="{at(start)} {at((far, top))}" fill="none" stroke="{TEXT}" stroke-dasharray="3 4"/>',
        *_ticks(at, (min(xs), far), (low, high)),
    ]
    for place, (name, (colour, _)) in enumerate(SERIES.items()):
        own = sorted(points[name])
        line = " ".join(at(point) for point in own)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in (p.split(",") for p in line.split())]
        parts.append(f'<text x="{place * 210}" y="-14" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _ticks(at: Any, x_range: tuple[float, float], y_range: tuple[float, float]) -> list[str]:
    parts = []
    for value in (0.3, 0.5, 1, 2, 3, 5):
        if x_range[0] <= log10(value * 1e6) <= x_range[1]:
            x = at((log10(value * 1e6), y_range[0])).split(",")[0]
            parts.append(f'<text x="{x}" y="{HEIGHT + 16}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT + 34}" text-anchor="middle">million parameters</text>')
    for seconds in (5, 10, 20, 50, 100, 200, 500, 1000):
        if y_range[0] <= log10(seconds) <= y_range[1]:
            y = at((x_range[0], log10(seconds))).split(",")[1]
            parts.append(f'<line x1="0" y1="{y}" x2="{WIDTH}" y2="{y}" stroke="{TEXT}" stroke-opacity="0.25"/>')
            parts.append(f'<text x="-6" y="{float(y) + 4:.1f}" text-anchor="end">{seconds}</text>')
    return parts


def main() -> None:
    rows = json.loads((HERE / "results" / "menu.json").read_text(encoding="utf-8"))["rows"]
    (Path(HERE).parent / "docs" / "menu.svg").write_text(draw(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
