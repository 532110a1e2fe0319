"""The same share for every layer: what a person without an allocator would do."""

from bisect import bisect_right
from collections.abc import Mapping

from polyad.allocators.base import (
    ALLOCATORS,
    Allocator,
    Selection,
    by_damage,
    share,
    smallest,
    total_damage,
    within,
)
from polyad.menu import Candidate, Menu


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """Every site keeps at most the same share of its own cost: the share that does least damage within the limits.

    At a share each site takes its least damaging candidate within it, or its smallest one where none is. With several
    limits a larger share need not cost more of each, so all of the candidates' own shares are tried, and beside them
    the smallest candidate of every site by each cost alone.
    """
    dense = {site.name: site for site in menu.sites}
    shares = {site: [share(c, dense[site], limits) for c in options] for site, options in menu.candidates.items()}
    ladders = {site: _ladder(options, shares[site]) for site, options in menu.candidates.items()}
    tries = [
        {site: _at(ladder, level) for site, ladder in ladders.items()}
        for level in sorted({level for found in shares.values() for level in found})
    ]
    tries += [smallest(menu, unit) for unit in limits]
    allowed = [selection for selection in tries if within(selection, limits)]
    return min(allowed, key=total_damage, default=None)


def _ladder(options: tuple[Candidate, ...], shares: list[float]) -> list[tuple[float, Candidate]]:
    """Share -> the least damaging candidate within it, at rising shares."""
    rungs: list[tuple[float, Candidate]] = []
    for level, option in sorted(zip(shares, options, strict=True), key=lambda pair: (pair[0], *by_damage(pair[1]))):
        if not rungs or by_damage(option) < by_damage(rungs[-1][1]):
            rungs.append((level, option))
    return rungs


def _at(ladder: list[tuple[float, Candidate]], level: float) -> Candidate:
    """The rung within a share, or the lowest one."""
    found = bisect_right(ladder, level, key=lambda rung: rung[0])
    return ladder[max(found - 1, 0)][1]


ALLOCATORS.register("uniform", Allocator("uniform", "the same share for every layer", "baseline", select))
