"""The same share for every layer: what a person without an allocator would do."""

from bisect import bisect_right
from collections.abc import Mapping

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, within
from polyad.records import Candidate, Menu, Site


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """Every site keeps at most the same share of its own cost: the share that does least damage within the limits.

    At a share each site takes its least damaging candidate within it, or its smallest one where none is. With several
    limits a larger share need not cost more of each, so all of the candidates' own shares are tried, and beside them
    the smallest candidate of every site by each cost alone.
    """
    dense = {site.name: site for site in menu.sites}
    shares = {site: [_share(c, dense[site], limits) for c in options] for site, options in menu.candidates.items()}
    ladders = {site: _ladder(options, shares[site]) for site, options in menu.candidates.items()}
    tries = [
        {site: _at(ladder, share) for site, ladder in ladders.items()}
        for share in sorted({share for found in shares.values() for share in found})
    ]
    tries += [_smallest(menu, unit) for unit in limits]
    allowed = [selection for selection in tries if within(selection, limits)]
    return min(allowed, key=lambda s: sum(c.damage for c in s.values()), default=None)


def _smallest(menu: Menu, unit: str) -> Selection:
    """The candidate of every site that costs least of one unit."""
    return {site: min(options, key=lambda c: (getattr(c, unit), *_key(c))) for site, options in menu.candidates.items()}


def _ladder(options: tuple[Candidate, ...], shares: list[float]) -> list[tuple[float, Candidate]]:
    """Share -> the least damaging candidate within it, at rising shares."""
    rungs: list[tuple[float, Candidate]] = []
    for share, option in sorted(zip(shares, options, strict=True), key=lambda pair: (pair[0], *_key(pair[1]))):
        if not rungs or _key(option) < _key(rungs[-1][1]):
            rungs.append((share, option))
    return rungs


def _at(ladder: list[tuple[float, Candidate]], share: float) -> Candidate:
    """The rung within a share, or the lowest one."""
    found = bisect_right(ladder, share, key=lambda rung: rung[0])
    return ladder[max(found - 1, 0)][1]


def _key(candidate: Candidate) -> tuple[float, str, tuple[int, ...]]:
    """Least damage first; the rest only settles ties."""
    return candidate.damage, candidate.form, candidate.rank


def _share(candidate: Candidate, dense: Site, limits: Mapping[str, int]) -> float:
    """The share kept, of the cost that is kept most."""
    return max(getattr(candidate, unit) / max(getattr(dense, unit), 1) for unit in limits)


ALLOCATORS.register("uniform", Allocator("uniform", "the same share for every layer", "baseline", select))
