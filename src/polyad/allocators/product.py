"""The largest product of the shares of energy that the layers keep, by greedy descent.

Zhang, Zou, He and Sun (TPAMI 2016, section 3.3) see the accuracy follow that product, and take away, one after another,
the components that cost it least for the work that they save.
"""

from collections.abc import Mapping
from math import exp, log

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, descent
from polyad.menu import Candidate, Menu

TINY = 1e-12
"""Energy that counts as all lost where the logarithm is taken."""


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """The descent along minus the logarithm of the energy kept."""
    return descent(menu, limits, _lost)


def objective(menu: Menu, selection: Selection) -> float:
    """Minus the logarithm of the product."""
    return sum(map(_lost, selection.values()))


def _lost(candidate: Candidate) -> float:
    return -log(max(1 - candidate.error, TINY))


def tell(menu: Menu, limits: Mapping[str, int], selection: Selection) -> str:
    return f"product of the energies kept {exp(-objective(menu, selection)):.3g}"


ALLOCATORS.register(
    "product",
    Allocator(
        "product",
        "the largest product of the layers' energies, by greedy descent",
        "Zhang et al., TPAMI 2016, section 3.3",
        select,
        objective=objective,
        tell=tell,
    ),
)
