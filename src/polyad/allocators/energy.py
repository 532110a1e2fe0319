"""The same share of its energy for every layer, as large as the budget allows."""

from collections.abc import Mapping

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, least_ceiling
from polyad.menu import Candidate, Menu


def lost(candidate: Candidate) -> float:
    """The share of a site's energy that a candidate leaves out, in the norm of the fits."""
    return candidate.error


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """Every site takes its cheapest candidate above a threshold; the highest one that the budget allows."""
    return least_ceiling(menu, limits, lost)


def objective(menu: Menu, selection: Selection) -> float:
    """The largest share that a site leaves out."""
    return max(map(lost, selection.values()))


def tell(menu: Menu, limits: Mapping[str, int], selection: Selection) -> str:
    return f"every site keeps at least {1 - objective(menu, selection):.2%} of its energy"


ALLOCATORS.register(
    "energy",
    Allocator(
        "energy",
        "the same share of energy kept in every layer",
        "energy threshold, the common rule for the SVD",
        select,
        objective=objective,
        optimal=1,
        tell=tell,
    ),
)
