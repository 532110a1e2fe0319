"""The same share for every layer: what a person without an allocator would do."""

from collections.abc import Mapping

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, within
from polyad.records import Candidate, Menu, Site


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """Every site keeps at most the same share of its own cost, the largest that meets the limits.

    At a share each site takes its least damaging candidate within it, or its smallest one where none is. A larger share
    never does more damage, so the candidates' own shares are searched by bisection.
    """
    dense = {site.name: site for site in menu.sites}
    shares = sorted({_share(c, dense[site], limits) for site, options in menu.candidates.items() for c in options})

    def at(share: float) -> Selection:
        return {site: _best(options, dense[site], limits, share) for site, options in menu.candidates.items()}

    low, high = 0, len(shares)
    while low < high:
        middle = (low + high) // 2
        if within(at(shares[middle]), limits):
            low = middle + 1
        else:
            high = middle
    return at(shares[low - 1]) if low else None


def _share(candidate: Candidate, dense: Site, limits: Mapping[str, int]) -> float:
    """The share kept, of the cost that is kept most."""
    return max(getattr(candidate, unit) / max(getattr(dense, unit), 1) for unit in limits)


def _best(options: tuple[Candidate, ...], dense: Site, limits: Mapping[str, int], share: float) -> Candidate:
    allowed = [option for option in options if _share(option, dense, limits) <= share]
    if allowed:
        return min(allowed, key=lambda c: (c.damage, _share(c, dense, limits), c.form, c.rank))
    return min(options, key=lambda c: (_share(c, dense, limits), c.damage, c.form, c.rank))


ALLOCATORS.register("uniform", Allocator("uniform", "the same share for every layer", "baseline", select))
