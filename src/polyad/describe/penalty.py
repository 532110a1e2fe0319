"""How bad a drawing of a network is: what the layout minimises.

A drawing has its nodes on a grid (a line of good length is `LINE` cells) and each open leg in one of eight directions.
The weights say what a reader minds: crossings and overlaps most, then bends, long lines, disorder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt

from polyad.describe.graph import Network

LINE = 4
Point = tuple[float, float]
Segment = tuple[Point, Point]

DIRECTIONS: tuple[Point, ...] = ((0, 2.5), (0, -2.5), (-2.5, 0), (2.5, 0), (-2, 2), (2, 2), (-2, -2), (2, -2))
"""Legs from a node's centre, y downwards; down comes first, so that it wins a tie."""

CROSSING, OVERLAP, NARROW = 40.0, 60.0, 3.0


@dataclass
class Drawing:
    """Grid points of the nodes, direction of each leg."""

    nodes: list[tuple[int, int]]
    legs: list[int]


def penalty(network: Network, drawing: Drawing, limit: float = inf) -> float:
    """The sum of all that is wrong with a drawing, or of as much as exceeds the limit."""
    nodes = drawing.nodes
    lines = [(nodes[link.ends[0]], nodes[link.ends[1]]) for link in network.links]
    tips = [_moved(nodes[leg.node], DIRECTIONS[way]) for leg, way in zip(network.legs, drawing.legs, strict=True)]
    legs = [(nodes[leg.node], tip) for leg, tip in zip(network.legs, tips, strict=True)]
    total = _order(network, drawing, tips)  # the one term that may be negative comes first
    rest = (
        lambda: _spacing(network, nodes),
        lambda: _lengths(network, lines),
        lambda: _asymmetry(network, nodes, tips),
        lambda: _tips(network, tips, nodes, lines),
        lambda: _angles(network, lines, legs),
        lambda: _crossings(network, lines, legs, nodes),
    )
    for term in rest:
        if total > limit:
            break
        total += term()
    return round(total, 6)  # so that ties are ties whatever adds up the last digit


def _moved(point: Point, by: Point) -> Point:
    return point[0] + by[0], point[1] + by[1]


def _distance(a: Point, b: Point) -> float:
    dx, dy = a[0] - b[0], a[1] - b[1]
    return sqrt(dx * dx + dy * dy)


def _spacing(network: Network, nodes: Sequence[Point]) -> float:
    """Nodes apart, the whole compact and rather wide than high."""
    total = 0.0
    for a, b in combinations(range(network.size), 2):
        room = 2.8 if network.is_dot(a) or network.is_dot(b) else LINE
        missing = room - _distance(nodes[a], nodes[b])
        if missing > 0:
            total += OVERLAP * (0.3 + missing)
    xs, ys = [x for x, _ in nodes], [y for _, y in nodes]
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    return total + 0.1 * (width + 2 * height) + 0.3 * max(height - width, 0)


def _lengths(network: Network, lines: Sequence[Segment]) -> float:
    """Lines of one length along the axes; spokes of a dot may be longer and diagonal."""
    total = 0.0
    for link, ((ax, ay), (bx, by)) in zip(network.links, lines, strict=True):
        dx, dy = abs(ax - bx), abs(ay - by)
        stretch = max(sqrt(dx * dx + dy * dy) - LINE, 0) / 2
        crooked = 0 if 0 in (dx, dy) else 0.7 if dx == dy else 1.0
        total += stretch + 0.6 * crooked if link.letter is None else 4 * stretch * stretch + 2 * crooked
    return total


def _cross(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def to_segment(point: Point, segment: Segment) -> float:
    """Distance of a point from a segment."""
    (ax, ay), (bx, by) = segment
    dx, dy = bx - ax, by - ay
    share = ((point[0] - ax) * dx + (point[1] - ay) * dy) / ((dx * dx + dy * dy) or 1)
    share = min(max(share, 0.0), 1.0)
    return _distance(point, (ax + share * dx, ay + share * dy))


def _meet(one: Segment, other: Segment) -> bool:
    """Whether two segments without a common end cross or touch."""
    (a, b), (c, d) = one, other
    apart = any(
        max(a[axis], b[axis]) < min(c[axis], d[axis]) or max(c[axis], d[axis]) < min(a[axis], b[axis])
        for axis in (0, 1)
    )
    return not apart and _cross(a, b, c) * _cross(a, b, d) <= 0 and _cross(c, d, a) * _cross(c, d, b) <= 0


def _crossings(network: Network, lines: Sequence[Segment], legs: Sequence[Segment], nodes: Sequence[Point]) -> float:
    """Lines that cross, and lines that run through a node."""
    ends = [set(link.ends) for link in network.links] + [{leg.node} for leg in network.legs]
    segments = [*lines, *legs]
    total = 0.0
    for one, other in combinations(range(len(segments)), 2):
        if not ends[one] & ends[other] and _meet(segments[one], segments[other]):
            total += CROSSING
    for segment, at in zip(segments, ends, strict=True):
        for node in range(network.size):
            room = 1.0 if network.is_dot(node) else 1.7
            if node not in at and to_segment(nodes[node], segment) < room:
                total += CROSSING
    return total


def _tips(network: Network, tips: Sequence[Point], nodes: Sequence[Point], lines: Sequence[Segment]) -> float:
    """Room for the letters at the ends of the legs."""
    total = sum(CROSSING / 2 for a, b in combinations(tips, 2) if _distance(a, b) < 2)
    for leg, tip in zip(network.legs, tips, strict=True):
        total += sum(NARROW for node in range(network.size) if node != leg.node and _distance(tip, nodes[node]) < 2.6)
        total += sum(NARROW for line in lines if to_segment(tip, line) < 1.3)
    return total


def _angles(network: Network, lines: Sequence[Segment], legs: Sequence[Segment]) -> float:
    """What leaves a node spreads out; a chain goes straight on. Twin lines are bent apart later."""
    around: list[list[tuple[Point, int, bool]]] = [[] for _ in range(network.size)]
    for link, (a, b) in zip(network.links, lines, strict=True):
        away, chain = (b[0] - a[0], b[1] - a[1]), link.letter is not None
        around[link.ends[0]].append((away, link.ends[1], chain))
        around[link.ends[1]].append(((-away[0], -away[1]), link.ends[0], chain))
    for leg, (a, b) in zip(network.legs, legs, strict=True):
        around[leg.node].append(((b[0] - a[0], b[1] - a[1]), -1, False))
    total = 0.0
    for rays in around:
        for (u, to, chain), (v, too, chained) in combinations(rays, 2):
            if to == too >= 0:
                continue
            cosine = (u[0] * v[0] + u[1] * v[1]) / (_distance(u, (0, 0)) * _distance(v, (0, 0)) or 1)
            total += (1.8 if chain and chained else 0.6) * (1 + cosine)
            total += (NARROW if cosine > 0.75 else 0) + (CROSSING if cosine > 0.9 else 0)
    return total


def _order(network: Network, drawing: Drawing, tips: Sequence[Point]) -> float:
    """Factors from left to right, out and in on two sides, dots above, legs downwards and along the axes."""
    nodes = drawing.nodes
    total = 0.0
    for a, b in combinations(range(len(network.factors)), 2):
        total += 0.3 if nodes[a][0] > nodes[b][0] else 0.1 if nodes[a][0] == nodes[b][0] and a > b else 0
    lowest = max(y for _, y in nodes[: len(network.factors)])
    total += sum(0.4 for _, y in nodes[len(network.factors) :] if y > lowest)
    for (one, tip), (other, below) in combinations(zip(network.legs, tips, strict=True), 2):
        if one.node == other.node and (tip[1], tip[0]) > (below[1], below[0]):
            total += 0.1
    sides = [tip[0] for leg, tip in zip(network.legs, tips, strict=True) if leg.letter in "oin"]
    total -= 0.1 * (max(sides) - min(sides)) if sides else 0
    return total + sum(0.8 if way > 3 else 0.1 if way == 1 else 0 for way in drawing.legs)


def _asymmetry(network: Network, nodes: Sequence[Point], tips: Sequence[Point]) -> float:
    """What has no mirror image, left and right, above and below."""
    xs, ys = [x for x, _ in nodes], [y for _, y in nodes]
    across, down = min(xs) + max(xs), min(ys) + max(ys)
    marks = {(network.is_dot(at), *point) for at, point in enumerate(nodes)} | {(2, *tip) for tip in tips}
    sideways = sum((kind, across - x, y) not in marks for kind, x, y in marks)
    upright = sum((kind, x, down - y) not in marks for kind, x, y in marks)
    return 0.6 * sideways + 0.1 * upright
