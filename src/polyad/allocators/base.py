"""What an allocator is."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from polyad.menu import Candidate, Menu
from polyad.records import Site
from polyad.registry import Registry

Selection = dict[str, Candidate]
"""One candidate per site."""


def total_damage(selection: Selection) -> float:
    """Summed damage of a selection."""
    return sum(candidate.damage for candidate in selection.values())


def summed(menu: Menu, selection: Selection) -> float:
    """The objective of most allocators."""
    return total_damage(selection)


def unprepared(model: nn.Module, menu: Menu) -> Menu:
    """The menu as it is."""
    return menu


def untold(menu: Menu, limits: Mapping[str, int], selection: Selection) -> str:
    """Nothing to say of a selection."""
    return ""


@dataclass(frozen=True)
class Allocator:
    """One way to spend a budget.

    Attributes:
        name: as on the command line.
        summary: one line.
        source: the paper.
        select: menu and limits on the candidates' summed costs ({"params": ..., "macs": ...}) -> one candidate per
            site, or None where this allocator finds none within the limits.
        objective: what of a selection it makes small.
        several: whether it takes several limits at once.
        optimal: up to how many limits its selection has the least objective of all: 0 where it promises nothing.
        monotone: whether a larger budget never has a larger objective.
        prepare: adds to a menu what the allocator needs to know of the network.
        tell: what its own rule came to, for the plan and the report: menu, limits, selection -> text.
    """

    name: str
    summary: str
    source: str
    select: Callable[[Menu, Mapping[str, int]], Selection | None]
    objective: Callable[[Menu, Selection], float] = summed
    several: bool = True
    optimal: int = 0
    monotone: bool = True
    prepare: Callable[[nn.Module, Menu], Menu] = unprepared
    tell: Callable[[Menu, Mapping[str, int], Selection], str] = untold


ALLOCATORS: Registry[Allocator] = Registry("allocator", "polyad.allocators")


def total(selection: Selection, unit: str) -> int:
    """Summed cost of a selection."""
    return sum(getattr(candidate, unit) for candidate in selection.values())


def within(selection: Selection, limits: Mapping[str, int]) -> bool:
    """Whether a selection keeps all limits."""
    return all(total(selection, unit) <= limit for unit, limit in limits.items())


def by_damage(candidate: Candidate) -> tuple[float, str, tuple[int, ...]]:
    """Least damage first; the rest only settles ties."""
    return candidate.damage, candidate.form, candidate.rank


def share(candidate: Candidate, dense: Site, units: Iterable[str]) -> float:
    """The share of the dense layer that is kept, of the cost that is kept most."""
    return max(getattr(candidate, unit) / max(getattr(dense, unit), 1) for unit in units)


def smallest(menu: Menu, unit: str) -> Selection:
    """The candidate of every site that costs least of one unit."""
    return {
        site: min(options, key=lambda c: (getattr(c, unit), *by_damage(c))) for site, options in menu.candidates.items()
    }


def damage_of(candidate: Candidate) -> float:
    """What most allocators make small."""
    return candidate.damage


def undominated(
    options: Iterable[Candidate],
    cost: Callable[[Candidate], float],
    value: Callable[[Candidate], float] = damage_of,
) -> list[Candidate]:
    """The candidates that no other one beats in value and cost: at falling cost and rising value."""
    kept: list[Candidate] = []
    for option in sorted(options, key=lambda c: (cost(c), value(c), *by_damage(c))):
        if not kept or value(option) < value(kept[-1]):
            kept.append(option)
    return kept[::-1]


def descent(menu: Menu, limits: Mapping[str, int], value: Callable[[Candidate], float]) -> Selection | None:
    """From the dense network downwards: steps to the next smaller candidate of a site, until the limits are kept.

    Each time the site whose step adds least value per cost takes it. A site's steps go along its candidates that no
    other one beats in value and cost. With several limits a cost is the sum of the shares of the whole network. The
    path does not depend on the limits, only where it ends does; beside its end the smallest candidates by each cost are
    tried.
    """
    whole = {unit: max(sum(getattr(site, unit) for site in menu.sites), 1) for unit in limits}

    def cost(candidate: Candidate) -> float:
        return sum(getattr(candidate, unit) / whole[unit] for unit in limits)

    def step(site: str, at: int) -> tuple[float, str, int]:
        old, new = ladders[site][at - 1 : at + 1]
        return (value(new) - value(old)) / max(cost(old) - cost(new), 1e-300), site, at

    ladders = {site: undominated(options, cost, value) for site, options in menu.candidates.items()}
    chosen = {site: ladder[0] for site, ladder in ladders.items()}
    spent = {unit: total(chosen, unit) for unit in limits}
    waiting = [step(site, 1) for site, ladder in ladders.items() if len(ladder) > 1]
    heapq.heapify(waiting)
    while waiting and any(spent[unit] > limit for unit, limit in limits.items()):
        _, site, at = heapq.heappop(waiting)
        old, chosen[site] = chosen[site], ladders[site][at]
        spent = {unit: spent[unit] + getattr(chosen[site], unit) - getattr(old, unit) for unit in limits}
        if at + 1 < len(ladders[site]):
            heapq.heappush(waiting, step(site, at + 1))
    tries = (chosen, *(smallest(menu, unit) for unit in limits))
    return min((s for s in tries if within(s, limits)), key=lambda s: sum(map(value, s.values())), default=None)


def least_ceiling(menu: Menu, limits: Mapping[str, int], value: Callable[[Candidate], float]) -> Selection | None:
    """The least ceiling on `value` under which the limits can be kept: each site takes the cheapest candidate under it.

    Candidates' own values are the only ceilings at which anything changes; they are gone through from below, so under
    one limit the largest value over the sites is the least that any selection has. With several limits the cheapest
    candidate is the one of the least `share`, and beside the ceilings the smallest candidates by each cost are tried.
    """
    dense = {site.name: site for site in menu.sites}
    price = {c: (share(c, dense[site], limits), *by_damage(c)) for site, cs in menu.candidates.items() for c in cs}
    chosen = {site: min(cs, key=lambda c: (value(c), price[c])) for site, cs in menu.candidates.items()}
    spent = {unit: total(chosen, unit) for unit in limits}
    waiting = sorted((c for cs in menu.candidates.values() for c in cs), key=lambda c: (value(c), c.site, price[c]))
    tries = [smallest(menu, unit) for unit in limits]
    at = 0
    while any(spent[unit] > limit for unit, limit in limits.items()) and at < len(waiting):
        ceiling = value(waiting[at])
        while at < len(waiting) and value(waiting[at]) == ceiling:
            option, old = waiting[at], chosen[waiting[at].site]
            if price[option] < price[old]:
                chosen[option.site] = option
                spent = {unit: spent[unit] + getattr(option, unit) - getattr(old, unit) for unit in limits}
            at += 1
    allowed = [selection for selection in (chosen, *tries) if within(selection, limits)]
    return min(allowed, key=lambda s: (max(map(value, s.values())), total_damage(s)), default=None)
