"""The figure of the table of forms: median output error against the share kept, a panel per network and norm.

Written by hand as SVG: a page of docs shows it as a picture, in the light or dark colours of the reader's system.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

from forms_file import NORMS, SHARES
from forms_summary import MENU, Summary

WIDTH, HEIGHT, LEFT, TOP, GAP, LABELS = 300, 270, 58, 64, 40, 96
"""Of a panel and around it, in pixels; `LABELS` is room for the names at the ends of the lines."""

FAMILIES = {
    "svd": ("#3b82c4", ("svd", "spatial_svd", "group_svd", "tucker1")),
    "cp": ("#d9542b", ("cp", "cp4", "tucker2_cp", "coupled_cp", "filter_cp")),
    "tucker": ("#2a9d6f", ("tucker2", "tucker", "ht")),
    "block": ("#d1478f", ("block_term",)),
    "train": ("#8a63c9", ("tt", "tr", "tt_matrix", "tr_matrix")),
    "product": ("#b58900", ("kronecker",)),
}
"""Colour and members; within a family lines differ by their dashes."""

DASHES = ("", "7 3", "2 3", "8 3 2 3", "1 2")

STYLE = """
 text { font: 11px system-ui, sans-serif; fill: #24292f }
 .title { font-size: 13px; font-weight: 600 }
 .quiet { fill: #59636e }
 .back { fill: #ffffff }
 .grid { stroke: #d8dee4; stroke-width: 1 }
 .line { fill: none; stroke-width: 1.3; stroke-linejoin: round }
 .menu { stroke-width: 2.6 }
 .lead { stroke-width: .7; opacity: .6 }
 @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .back { fill: #0d1117 } .grid { stroke: #30363d }
 }
"""

NORM_TITLES = {"weights": "fitted in the weight norm", "inputs": "fitted in the input norm"}


def figure(summaries: Mapping[str, Summary], titles: Mapping[str, str]) -> str:
    """The whole figure.

    Args:
        summaries: by name, one row of panels each.
        titles: of the rows.
    """
    pitch = LEFT + WIDTH + LABELS
    width, height = 2 * pitch, TOP + len(summaries) * (HEIGHT + GAP + 16)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Median relative output error of every form against the share of parameters kept</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="back" width="{width}" height="{height}" rx="6"/>',
        _text(16, 24, "Relative output error on held-out inputs, median over layers", "title"),
        _text(16, 42, "against the share of a layer's parameters that is kept; thick: forms on the menu then", "quiet"),
    ]
    for row, (name, summary) in enumerate(summaries.items()):
        curves = {norm: _curves(summary, norm) for norm in NORMS}
        lowest = min(value for lines in curves.values() for line in lines.values() for value in line)
        for column, norm in enumerate(NORMS):
            x, y = LEFT + column * pitch, TOP + 24 + row * (HEIGHT + GAP + 16)
            layers = f"{len(summary.layers)} layers"
            parts.append(_text(x, y - 8, f"{titles[name]}, {layers}, {NORM_TITLES[norm]}", "title"))
            parts += _panel(x, y, curves[norm], Scale(lowest))
    return "\n".join([*parts, "</svg>", ""])


class Scale:
    """Where a share and an error stand in a panel, both logarithmic.

    Args:
        lowest: error at the bottom.
    """

    def __init__(self, lowest: float) -> None:
        self.low = floor(log10(lowest) * 4) / 4

    def x(self, share: float) -> float:
        return WIDTH * (log10(share) - log10(SHARES[-1])) / (log10(SHARES[0]) - log10(SHARES[-1]))

    def y(self, error: float) -> float:
        return HEIGHT * log10(max(min(error, 1.0), 10**self.low)) / self.low

    def ticks(self) -> list[float]:
        steps = [factor * 10**power for power in range(ceil(-self.low) * -1 - 1, 1) for factor in (1, 2, 5)]
        return [step for step in steps if 10**self.low <= step <= 1]


def _curves(summary: Summary, norm: str) -> dict[str, list[float]]:
    """Form -> its median error at each share."""
    return {form: [summary.error(form, norm, share) for share in SHARES] for form in summary.forms}


def _panel(x: float, y: float, curves: Mapping[str, Sequence[float]], scale: Scale) -> list[str]:
    parts = [f'<g transform="translate({x} {y})">']
    for tick in scale.ticks():
        parts.append(f'<path class="grid" d="M0 {scale.y(tick):.1f}H{WIDTH}"/>')
        parts.append(_text(-6, scale.y(tick) + 4, f"{tick:.3g}", "quiet", "end"))
    for share in SHARES:
        parts.append(_text(scale.x(share), HEIGHT + 16, f"{share:.0%}".replace("%", " %"), "quiet", "middle"))
    ends = _spread({form: scale.y(errors[0]) for form, errors in curves.items()})
    for form in sorted(curves, key=lambda form: form in MENU):
        parts += _line(form, curves[form], scale, ends[form])
    return [*parts, "</g>"]


def _line(form: str, errors: Sequence[float], scale: Scale, label: float) -> list[str]:
    """The line, and its name beside its end."""
    colour, dash = _look(form)
    points = " ".join(f"{scale.x(s):.1f},{scale.y(error):.1f}" for s, error in zip(SHARES, errors))
    kind = "line menu" if form in MENU else "line"
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    lead = f"M{WIDTH + 1} {scale.y(errors[0]):.1f}L{WIDTH + 12} {label:.1f}"
    weight = ' font-weight="600"' if form in MENU else ""
    return [
        f'<polyline class="{kind}" stroke="{colour}"{dashes} points="{points}"/>',
        f'<path class="lead" stroke="{colour}" d="{lead}"/>',
        f'<text x="{WIDTH + 15}" y="{label + 3.5:.1f}" style="fill: {colour}"{weight}>{escape(form)}</text>',
    ]


def _look(form: str) -> tuple[str, str]:
    """Colour and dashes."""
    for colour, members in FAMILIES.values():
        if form in members:
            return colour, DASHES[members.index(form)]
    return "#808080", ""


def _spread(wanted: Mapping[str, float], apart: float = 12.5) -> dict[str, float]:
    """Heights of labels as near to the wanted ones as they can be without touching."""
    order = sorted(wanted, key=lambda form: wanted[form])
    heights = [wanted[form] for form in order]
    for _ in range(200):
        for at in range(len(heights) - 1):
            if (overlap := apart - (heights[at + 1] - heights[at])) > 0.01:
                heights[at] -= overlap / 2
                heights[at + 1] += overlap / 2
    lift = max(0.0, heights[-1] - HEIGHT) if heights else 0.0  # below stand the shares
    return {form: height - lift for form, height in zip(order, heights)}


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
