"""From the dense network downwards, always the step that adds least damage per cost saved."""

from collections.abc import Mapping

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, damage_of, descent
from polyad.menu import Menu


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """The descent along the damage."""
    return descent(menu, limits, damage_of)


ALLOCATORS.register(
    "greedy",
    Allocator("greedy", "from dense downwards, least added damage per cost first", "greedy baseline", select),
)
