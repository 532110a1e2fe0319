"""One multiplier for all layers: every layer minimises damage + multiplier x cost.

What the layers then choose lies on the lower convex hull of their candidates, so the whole path is known after sorting
the edges of all hulls by their slopes (Everett, Operations Research 1963; for ranks Budgeted activation-aware low-rank
factorisation, 2025). What the last edge does not fit leaves over is spent greedily.
"""

from collections.abc import Mapping, Sequence

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, smallest, total, undominated
from polyad.menu import Candidate, Menu


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """The hull's selection within the limit, then single better candidates as long as one fits."""
    (unit, limit) = next(iter(limits.items()))
    ladders = {site: undominated(found, lambda c: getattr(c, unit)) for site, found in menu.candidates.items()}
    chosen = {site: ladder[-1] for site, ladder in ladders.items()}
    room = limit - total(chosen, unit)
    if room < 0:
        return None
    for _, old, new in _edges(ladders, unit):
        step = getattr(new, unit) - getattr(old, unit)
        if step > room:
            break
        chosen[new.site] = new
        room -= step
    return _filled(ladders, chosen, unit, room)


def hull(ladder: Sequence[Candidate], unit: str) -> list[Candidate]:
    """The lower convex hull of candidates at falling cost and rising damage, at rising cost."""
    kept: list[Candidate] = []
    for option in reversed(ladder):
        while len(kept) > 1 and _slope(kept[-2], kept[-1], unit) <= _slope(kept[-1], option, unit):
            kept.pop()
        kept.append(option)
    return kept


def _slope(small: Candidate, large: Candidate, unit: str) -> float:
    """Damage saved per cost from one candidate to a larger one."""
    return (small.damage - large.damage) / (getattr(large, unit) - getattr(small, unit))


def _edges(ladders: Mapping[str, list[Candidate]], unit: str) -> list[tuple[float, Candidate, Candidate]]:
    """The edges of all hulls, most damage saved per cost first."""
    hulls = [hull(ladder, unit) for ladder in ladders.values()]
    edges = [(_slope(a, b, unit), a, b) for found in hulls for a, b in zip(found, found[1:], strict=False)]
    return sorted(edges, key=lambda edge: (-edge[0], edge[2].site, getattr(edge[2], unit)))


def _filled(ladders: Mapping[str, list[Candidate]], chosen: Selection, unit: str, room: int) -> Selection:
    """The selection with candidates exchanged for better ones, always the one that saves most damage within the
    room."""
    while True:
        better = [
            (old.damage - option.damage, option)
            for site, old in chosen.items()
            for option in ladders[site]
            if option.damage < old.damage and getattr(option, unit) - getattr(old, unit) <= room
        ]
        if not better:
            return chosen
        _, option = max(better, key=lambda pair: (pair[0], pair[1].site, pair[1].form, pair[1].rank))
        room -= getattr(option, unit) - getattr(chosen[option.site], unit)
        chosen = chosen | {option.site: option}


def multiplier(menu: Menu, limits: Mapping[str, int]) -> float:
    """Damage per unit of cost at the limit: the slope of the first edge that does not fit, 0 where all fit."""
    (unit, limit) = next(iter(limits.items()))
    ladders = {site: undominated(found, lambda c: getattr(c, unit)) for site, found in menu.candidates.items()}
    spent = total(smallest(menu, unit), unit)
    for slope, old, new in _edges(ladders, unit):
        spent += getattr(new, unit) - getattr(old, unit)
        if spent > limit:
            return slope
    return 0.0


def tell(menu: Menu, limits: Mapping[str, int], selection: Selection) -> str:
    return f"multiplier {multiplier(menu, limits):.3g} of damage per {next(iter(limits))}"


ALLOCATORS.register(
    "lagrange",
    Allocator(
        "lagrange",
        "one multiplier over the convex hull of each layer, then a greedy fill; one limit",
        "Everett, 1963; Budgeted activation-aware low-rank factorization, 2025",
        select,
        several=False,
        monotone=False,  # the hull is; a greedy fill of more room may do a little worse
        tell=tell,
    ),
)
