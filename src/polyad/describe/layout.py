"""Where the nodes of a network are drawn: computed from the graph, the same on every machine.

A ring goes on a circle. Anything else starts from several spring layouts (Kamada and Kawai, "An algorithm for drawing
general undirected graphs", 1989; by stress majorisation), is put on a grid and improved there move by move. Only
correctly rounded arithmetic in a fixed order is used, so that no machine finds another picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from math import cos, pi, sin, sqrt
from random import Random

from polyad.describe.graph import Network
from polyad.describe.penalty import DIRECTIONS, LINE, Drawing, Point, penalty

STARTS, SPRING_SWEEPS = 6, 60
SHIFTS = [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4) if x or y]


@dataclass(frozen=True)
class Layout:
    """Centres of the nodes and ends of the legs, in cells (`LINE` cells to a line), y downwards."""

    nodes: tuple[Point, ...]
    tips: tuple[Point, ...]


@cache
def arrange(network: Network) -> Layout:
    """The layout of a network."""
    if ring := _ring(network):
        return _circle(network, ring)
    distances = _distances(network)
    found = [_improved(network, start) for start in _starts(network, distances)]
    best = min(found, key=lambda one: one[0])[1]
    tips = [(best.nodes[leg.node], DIRECTIONS[way]) for leg, way in zip(network.legs, best.legs, strict=True)]
    return Layout(tuple(best.nodes), tuple((x + dx, y + dy) for (x, y), (dx, dy) in tips))


def _ring(network: Network) -> list[int]:
    """The nodes of a network that is one ring, in its order; otherwise nothing."""
    near = [
        sorted({sum(link.ends) - node for link in network.links if node in link.ends}) for node in range(network.size)
    ]
    if network.dots or len(network.links) != network.size or any(len(two) != 2 for two in near):
        return []
    walk = [0, near[0][0]]
    while len(walk) <= network.size and walk[-1] != 0:
        walk.append(next(node for node in near[walk[-1]] if node != walk[-2]))
    return walk[:-1] if len(walk) == network.size + 1 else []


def _circle(network: Network, ring: list[int]) -> Layout:
    """A regular polygon with a level edge at the top; legs point outwards, several legs of a node fan out."""
    count = len(ring)
    radius = LINE / (2 * sin(pi / count))
    angles = {node: 2 * pi * (at - 0.5) / count - pi / 2 for at, node in enumerate(ring)}
    nodes = tuple((radius * cos(angles[node]), radius * sin(angles[node])) for node in range(count))
    tips = []
    for at, leg in enumerate(network.legs):
        mates = [other for other, one in enumerate(network.legs) if one.node == leg.node]
        angle = angles[leg.node] + (mates.index(at) - (len(mates) - 1) / 2) * pi / 3
        x, y = nodes[leg.node]
        tips.append((x + 2.5 * cos(angle), y + 2.5 * sin(angle)))
    return Layout(nodes, tuple(tips))


def _distances(network: Network) -> list[list[float]]:
    """Lengths of the shortest paths (Floyd and Warshall); parts that nothing joins stand side by side."""
    size = network.size
    found = [[0.0 if a == b else size + 1.0 for b in range(size)] for a in range(size)]
    for link in network.links:
        a, b = link.ends
        found[a][b] = found[b][a] = 1.0
    for via, a, b in product(range(size), repeat=3):
        found[a][b] = min(found[a][b], found[a][via] + found[via][b])
    return [[min(length, 2.0 * sqrt(size)) for length in row] for row in found]


def _starts(network: Network, distances: list[list[float]]) -> Iterator[Drawing]:
    """The factors in a narrow and in a wide row with the dots above and below; in a very wide one, a dot between two
    neighbours in the row too; then spring layouts. All on the grid."""
    down = [0] * len(network.legs)
    count = len(network.factors)
    for step in (LINE, 6):
        dots = [((count - 1) * step // 4 * 2, LINE if at % 2 else -LINE) for at in range(len(network.dots))]
        yield Drawing([*((step * at, 0) for at in range(count)), *dots], down)
    yield Drawing([*((8 * at, 0) for at in range(count)), *_beside_or_between(network)], down)
    random = Random(0)
    for _ in range(STARTS):
        points = [(random.random() * 4, random.random() * 2) for _ in range(network.size)]
        for _ in range(SPRING_SWEEPS):
            points = _relaxed(points, distances)
        yield Drawing([(2 * round(x * LINE / 2), 2 * round(y * LINE / 2)) for x, y in _level(points)], down)


def _beside_or_between(network: Network) -> Iterator[tuple[int, int]]:
    """Where dots go in a row of factors 8 cells apart."""
    middle, side = (len(network.factors) - 1) * 4, -LINE
    for dot in range(len(network.factors), network.size):
        ends = sorted(link.ends[0] for link in network.links if link.ends[1] == dot)
        if len(ends) == 2 and ends[1] - ends[0] == 1:
            yield 4 * sum(ends), 0
        else:
            yield middle, side
            side = -side


def _relaxed(points: list[Point], distances: list[list[float]]) -> list[Point]:
    """One sweep of stress majorisation: every node goes to the mean of where the others want it."""
    points = list(points)
    for node, (x, y) in enumerate(points):
        sum_x = sum_y = weights = 0.0
        for other, (ox, oy) in enumerate(points):
            if other == node:
                continue
            wanted = distances[node][other]
            length = sqrt((x - ox) * (x - ox) + (y - oy) * (y - oy)) or 1.0
            weight = 1 / (wanted * wanted)
            sum_x += weight * (ox + wanted * (x - ox) / length)
            sum_y += weight * (oy + wanted * (y - oy) / length)
            weights += weight
        if weights:
            points[node] = (sum_x / weights, sum_y / weights)
    return points


def _level(points: list[Point]) -> list[Point]:
    """Turned so that the two nodes that are farthest apart stand level, the first of them on the left."""
    pairs = list(combinations(range(len(points)), 2))
    if not pairs:
        return [(0.0, 0.0)]
    spans = [(points[b][0] - points[a][0], points[b][1] - points[a][1]) for a, b in pairs]
    dx, dy = max(spans, key=lambda span: round(span[0] * span[0] + span[1] * span[1], 3))
    length = sqrt(dx * dx + dy * dy) or 1.0
    return [((x * dx + y * dy) / length, (y * dx - x * dy) / length) for x, y in points]


def _improved(network: Network, drawing: Drawing) -> tuple[float, Drawing]:
    """The best drawing that single moves lead to, and its penalty."""
    branches = _branches(network)
    lowest = penalty(network, drawing)
    better = True
    while better:
        better = False
        for moves in _move_sets(network, drawing, branches):
            value, best = min(((penalty(network, move, lowest), move) for move in moves), key=lambda one: one[0])
            if value < lowest:
                lowest, drawing, better = value, best, True
                break
    return lowest, drawing


def _move_sets(network: Network, drawing: Drawing, branches: list[set[int]]) -> Iterator[list[Drawing]]:
    """Turn a leg, shift a node or a branch, swap two nodes, turn two legs, shift two nodes as in a mirror."""
    for leg in range(len(drawing.legs)):
        yield [Drawing(drawing.nodes, _with(drawing.legs, leg, way)) for way in range(len(DIRECTIONS))]
    for group in branches:
        yield [_shifted(drawing, group, shift) for shift in SHIFTS]
    pairs = list(combinations(range(network.size), 2))
    if pairs:
        yield [_swapped(drawing, a, b) for a, b in pairs]
    if len(drawing.legs) > 1:
        yield [
            Drawing(drawing.nodes, _with(_with(drawing.legs, a, one), b, other))
            for a, b in combinations(range(len(drawing.legs)), 2)
            for one, other in product(range(4), repeat=2)
        ]
    for a, b in pairs:
        yield [_shifted(_shifted(drawing, {a}, (x, y)), {b}, (-x, y)) for x, y in SHIFTS]


def _with(values: list[int], at: int, value: int) -> list[int]:
    return [*values[:at], value, *values[at + 1 :]]


def _shifted(drawing: Drawing, group: set[int], shift: tuple[int, int]) -> Drawing:
    nodes = [(x + shift[0], y + shift[1]) if at in group else (x, y) for at, (x, y) in enumerate(drawing.nodes)]
    return Drawing(nodes, drawing.legs)


def _swapped(drawing: Drawing, a: int, b: int) -> Drawing:
    nodes = list(drawing.nodes)
    nodes[a], nodes[b] = nodes[b], nodes[a]
    return Drawing(nodes, drawing.legs)


def _branches(network: Network) -> list[set[int]]:
    """Every node alone, and both sides of every line whose removal would part the network."""
    found = [{node} for node in range(network.size)]
    for cut in network.links:
        side, grew = {cut.ends[0]}, True
        while grew:
            reached = {node for link in network.links if link != cut and side & set(link.ends) for node in link.ends}
            grew = not reached <= side
            side |= reached
        if cut.ends[1] not in side:
            found += [one for one in (side, set(range(network.size)) - side) if 1 < len(one) < network.size]
    return found
