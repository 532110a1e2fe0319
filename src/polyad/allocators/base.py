"""What an allocator is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from polyad.records import Candidate, Menu
from polyad.registry import Registry

Selection = dict[str, Candidate]
"""One candidate per site."""


@dataclass(frozen=True)
class Allocator:
    """One way to spend a budget.

    Attributes:
        name: as on the command line.
        summary: one line.
        source: the paper.
        select: menu and limits on the candidates' summed costs ({"params": ..., "macs": ...}) -> one candidate per
            site, or None where this allocator finds none within the limits.
    """

    name: str
    summary: str
    source: str
    select: Callable[[Menu, Mapping[str, int]], Selection | None]


ALLOCATORS: Registry[Allocator] = Registry("allocator", "polyad.allocators")


def total(selection: Selection, unit: str) -> int:
    """Summed cost of a selection."""
    return sum(getattr(candidate, unit) for candidate in selection.values())


def within(selection: Selection, limits: Mapping[str, int]) -> bool:
    """Whether a selection keeps all limits."""
    return all(total(selection, unit) <= limit for unit, limit in limits.items())
