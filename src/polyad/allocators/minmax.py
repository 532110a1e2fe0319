"""The least largest relative error over the layers: ALDS (Liebenwein et al., NeurIPS 2021), equation 3.

With measured damages this is what AIMET's greedy selection does: the same loss, of each layer alone, everywhere.
"""

from collections.abc import Callable, Mapping

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, least_ceiling
from polyad.menu import Candidate, Menu


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """Every site takes its cheapest candidate under a ceiling; the lowest ceiling that the budget allows."""
    return least_ceiling(menu, limits, _per_layer(menu))


def objective(menu: Menu, selection: Selection) -> float:
    """The largest damage of a layer."""
    return max(map(_per_layer(menu), selection.values()))


def _per_layer(menu: Menu) -> Callable[[Candidate], float]:
    """Damage of one layer: a stack has that of all its layers."""
    layers = {site.name: len(site.modules) for site in menu.sites}
    return lambda candidate: candidate.damage / layers[candidate.site]


def tell(menu: Menu, limits: Mapping[str, int], selection: Selection) -> str:
    return f"the largest damage of a layer is {objective(menu, selection):.4g}"


ALLOCATORS.register(
    "minmax",
    Allocator(
        "minmax",
        "the least largest damage of a layer",
        "ALDS: Liebenwein et al., NeurIPS 2021; AIMET documentation, greedy compression ratio selection",
        select,
        objective=objective,
        optimal=1,
        tell=tell,
    ),
)
