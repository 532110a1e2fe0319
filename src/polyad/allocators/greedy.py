"""From the dense network downwards, always the step that adds least damage per cost saved."""

import heapq
from collections.abc import Iterator, Mapping

from polyad.allocators.base import (
    ALLOCATORS,
    Allocator,
    Selection,
    smallest,
    total,
    total_damage,
    undominated,
    within,
)
from polyad.records import Candidate, Menu


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """Steps to the next smaller candidate of a site, until the limits are kept.

    A site's steps go along its candidates that no other one beats in damage and cost. With several limits a cost is
    the sum of the shares of the whole network. The path does not depend on the limits, only where it ends does.
    """
    whole = {unit: max(sum(getattr(site, unit) for site in menu.sites), 1) for unit in limits}

    def cost(candidate: Candidate) -> float:
        return sum(getattr(candidate, unit) / whole[unit] for unit in limits)

    ladders = {site: undominated(options, cost) for site, options in menu.candidates.items()}
    chosen = {site: ladder[0] for site, ladder in ladders.items()}
    spent = {unit: total(chosen, unit) for unit in limits}
    for old, new in _steps(ladders, cost):
        if all(spent[unit] <= limit for unit, limit in limits.items()):
            break
        chosen[new.site] = new
        spent = {unit: spent[unit] + getattr(new, unit) - getattr(old, unit) for unit in limits}
    tries = (chosen, *(smallest(menu, unit) for unit in limits))
    return min((found for found in tries if within(found, limits)), key=total_damage, default=None)


def _steps(ladders: Mapping[str, list[Candidate]], cost) -> Iterator[tuple[Candidate, Candidate]]:
    """All steps (from, to), each time the one of least damage per cost among the sites' next ones."""

    def entry(site: str, at: int) -> tuple[float, str, int]:
        old, new = ladders[site][at - 1 : at + 1]
        return (new.damage - old.damage) / max(cost(old) - cost(new), 1e-300), site, at

    waiting = [entry(site, 1) for site, ladder in ladders.items() if len(ladder) > 1]
    heapq.heapify(waiting)
    while waiting:
        _, site, at = heapq.heappop(waiting)
        yield ladders[site][at - 1], ladders[site][at]
        if at + 1 < len(ladders[site]):
            heapq.heappush(waiting, entry(site, at + 1))


ALLOCATORS.register(
    "greedy",
    Allocator("greedy", "from dense downwards, least added damage per cost first", "greedy baseline", select),
)
