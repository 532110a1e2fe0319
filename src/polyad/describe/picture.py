"""The picture of a form: its tensor network as a small SVG that reads on light and on dark paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import sqrt

from polyad.describe.graph import Link, Network
from polyad.describe.layout import arrange
from polyad.describe.letters import letter_words
from polyad.describe.penalty import Point, Segment, to_segment

CELL, RADIUS, DOT, LINE_WIDTH = 21, 20, 5, 2
MARGIN, BEND, ASIDE = 8, 22, 12
FACTOR, LINE, RANK = "#1f78c1", "#7b7f87", "#c9590c"
"""Each about as far from white as from black."""

STYLE = (
    f".link,.leg{{stroke:{LINE};stroke-width:{LINE_WIDTH};fill:none}}.factor{{fill:{FACTOR}}}.dot{{fill:{RANK}}}"
    "text{font:italic 16px Georgia,'DejaVu Serif',serif;text-anchor:middle}"
    f".name{{fill:#fff}}.long{{font-size:13px}}.rank{{fill:{RANK}}}.open,.word{{fill:{LINE}}}"
    ".word{font:12px system-ui,'DejaVu Sans',sans-serif}"
)


@dataclass(frozen=True)
class Text:
    """A piece of text, centred at a point."""

    at: Point
    kind: str
    text: str

    @property
    def box(self) -> tuple[Point, Point]:
        half = (7 if self.kind == "word" else 9) * len(self.text) / 2
        return (self.at[0] - half, self.at[1] - 9), (self.at[0] + half, self.at[1] + 9)

    @property
    def svg(self) -> str:
        x, y = _whole(self.at)
        return (
            f'<text class="{self.kind}" x="{x}" y="{y + (4 if self.kind == "word" else 5)}">{escape(self.text)}</text>'
        )


def picture(equation: str, words: Mapping[str, str] | None = None) -> str:
    """The tensor network of an equation, as SVG.

    A circle is a factor, a line between two factors a rank, a dot a letter that more factors share, an open line a
    letter of the weight with its word.

    Args:
        equation: an einsum such as `or,ir,kr->oik`.
        words: what open letters mean, by default those of `letter_words`; a letter without a word is shown alone.
    """
    words = letter_words(equation) if words is None else words
    network = Network.of(equation)
    layout = arrange(network)
    nodes = [_scaled(point) for point in layout.nodes]
    tips = [_scaled(point) for point in layout.tips]
    lines = [(nodes[link.ends[0]], nodes[link.ends[1]]) for link in network.links]
    legs = [(nodes[leg.node], tip) for leg, tip in zip(network.legs, tips, strict=True)]
    shapes, texts = _links(network.links, lines, [*lines, *legs])
    shapes += [_path("leg", [start, tip]) for start, tip in legs]
    for node, point in enumerate(nodes):
        dot = network.is_dot(node)
        x, y = _whole(point)
        shapes.append(f'<circle class="{"dot" if dot else "factor"}" cx="{x}" cy="{y}" r="{DOT if dot else RADIUS}"/>')
        if not dot:
            texts.append(Text(point, "name" if len(network.factors[node]) < 4 else "name long", network.factors[node]))
        elif network.dots[node - len(network.factors)] not in [leg.letter for leg in network.legs]:
            texts.append(Text(_free(point, [*lines, *legs]), "rank", network.dots[node - len(network.factors)]))
    for leg, (start, tip) in zip(network.legs, legs, strict=True):
        texts += _leg_texts(start, tip, leg.letter, words.get(leg.letter, ""))
    return _document(equation, shapes, texts, nodes)


def _scaled(point: Point) -> Point:
    return point[0] * CELL, point[1] * CELL


def _whole(point: Point) -> tuple[int, int]:
    """Whole pixels: no last digit of a sine shows. The shift keeps halves away from the edge of rounding."""
    return round(point[0] + 0.01), round(point[1] + 0.01)


def _links(
    links: Sequence[Link], lines: Sequence[Segment], everything: Sequence[Segment]
) -> tuple[list[str], list[Text]]:
    """The lines between nodes, those between the same two bent apart, each with its letter."""
    shapes, texts = [], []
    for at, (link, (start, end)) in enumerate(zip(links, lines, strict=True)):
        mates = [other for other, one in enumerate(links) if set(one.ends) == set(link.ends)]
        bend = (mates.index(at) - (len(mates) - 1) / 2) * BEND
        middle, (across_x, across_y) = _middle(start, end), _across(start, end)
        control = middle[0] + 2 * bend * across_x, middle[1] + 2 * bend * across_y
        shapes.append(_path("link", [start, control, end] if bend else [start, end]))
        if link.letter is None:
            continue
        others = [line for line in everything if line != (start, end)]
        sides = [
            (middle[0] + (bend + side) * across_x, middle[1] + (bend + side) * across_y) for side in (-ASIDE, ASIDE)
        ]
        if bend:
            side = sides[bend > 0]
        else:
            side = max(sides, key=lambda point: min([round(to_segment(point, line)) for line in others] + [3 * ASIDE]))
        texts.append(Text(side, "rank", link.letter))
    return shapes, texts


def _middle(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _across(a: Point, b: Point) -> Point:
    """Unit vector across a line, downwards (to the right of an upright one is forwards)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = sqrt(dx * dx + dy * dy)
    sign = 1 if (dx, -dy) > (0, 0) else -1
    return -sign * dy / length, sign * dx / length


def _free(point: Point, lines: Sequence[Segment]) -> Point:
    """Where the letter of a dot is farthest from all lines."""
    places = []
    for dx, dy in ((1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1), (0, 1), (1, 0), (-1, 0)):
        reach = 14 if dx and dy else 17
        places.append((point[0] + dx * (11 if dx and dy else reach), point[1] + dy * (12 if dx and dy else reach)))
    return max(places, key=lambda place: min(round(to_segment(place, line), 2) for line in lines))


def _leg_texts(start: Point, tip: Point, letter: str, word: str) -> list[Text]:
    """The letter at the end of a leg, and its word beyond it or, beside a level leg, below it."""
    dx, dy = tip[0] - start[0], tip[1] - start[1]
    length = sqrt(dx * dx + dy * dy)
    x, y = tip[0] + 10 * dx / length, tip[1] + 10 * dy / length
    found = [Text((x, y), "open", letter)]
    if word:
        found.append(Text((x, y - 15 if dy < -abs(dx) / 2 else y + 16), "word", word))
    return found


def _path(kind: str, points: Sequence[Point]) -> str:
    pairs = [" ".join(map(str, _whole(point))) for point in points]
    return f'<path class="{kind}" d="M{pairs[0]} {"L" if len(points) == 2 else "Q"}{" ".join(pairs[1:])}"/>'


def _document(equation: str, shapes: Sequence[str], texts: Sequence[Text], nodes: Sequence[Point]) -> str:
    corners = [corner for text in texts for corner in text.box]
    corners += [(x + side, y + side) for x, y in nodes for side in (-RADIUS, RADIUS)]
    left, top = _whole((min(x for x, _ in corners) - MARGIN, min(y for _, y in corners) - MARGIN))
    right, bottom = _whole((max(x for x, _ in corners) + MARGIN, max(y for _, y in corners) + MARGIN))
    width, height = right - left, bottom - top
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="{left} {top} {width} {height}" role="img">'
    )
    body = [f"<title>{escape(equation)}</title>", f"<style>{STYLE}</style>", *shapes, *(text.svg for text in texts)]
    return "\n".join([head, *body, "</svg>"]) + "\n"
