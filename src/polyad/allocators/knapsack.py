"""The least summed damage within all limits: a multiple-choice knapsack, solved as a mixed-integer program.

One candidate per site, "keep dense" among them, or for several sites together a narrowing of the channels between them.
HiGHS (Huangfu and Hall, Math. Prog. Comp. 2018) through scipy finds
the optimum; dominated candidates are taken out first.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, smallest, within
from polyad.budget import UNITS
from polyad.menu import Candidate, Menu
from polyad.native import no_stdout

GAP = 1e-6
"""Relative gap at which the program counts as solved."""

SECONDS = 20
"""After so long the best selection found so far is taken."""


Option = tuple[Candidate, ...]
"""What is chosen or not: one candidate, or those of a narrowing."""

SLACK = (0.0, 2e-6, 2e-5)
"""HiGHS keeps a limit to about 1e-6 of it; where that is not enough the limit is tightened by so much and solved
again."""


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """Least total damage within the limits, or None where there is no such selection."""
    options: list[Option] = [
        (option,) for site in sorted(menu.candidates) for option in undominated(menu.candidates[site], sorted(limits))
    ]
    options += [tuple(narrowing.candidates.values()) for narrowing in menu.narrowings]
    for slack in SLACK:
        selection = _solve(options, {unit: limit * (1 - slack) for unit, limit in limits.items()})
        if selection is not None and within(selection, limits):
            return selection
    edge = smallest(menu, next(iter(limits)))  # exactly at the edge of what is reachable
    return edge if within(edge, limits) else None


def _solve(options: Sequence[Option], limits: Mapping[str, float]) -> Selection | None:
    """The integer program over the options of all sites."""
    sites = {name: row for row, name in enumerate(dict.fromkeys(one.site for option in options for one in option))}
    rows = [sites[one.site] for option in options for one in option]
    columns = [at for at, option in enumerate(options) for _ in option]
    one_each = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(sites), len(options)))
    costs = np.array([[sum(getattr(one, unit) for one in option) for option in options] for unit in limits], float)
    ceilings = np.maximum(np.array(list(limits.values()), dtype=float), 1.0)
    with no_stdout():  # HiGHS writes debugging lines there, whatever its options say
        solution = milp(
            c=np.array([sum(one.damage for one in option) for option in options]),
            integrality=np.ones(len(options)),
            bounds=Bounds(0, 1),
            # Costs are scaled by their limit: HiGHS's feasibility tolerance is absolute.
            constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(costs / ceilings[:, None], -np.inf, 1)],
            options={"mip_rel_gap": GAP, "time_limit": SECONDS},
        )
    if solution.x is None:
        return None
    return {one.site: one for at in np.flatnonzero(solution.x > 0.5).tolist() for one in options[at]}


def undominated(options: Sequence[Candidate], units: Sequence[str]) -> list[Candidate]:
    """The candidates that no other one beats in damage and in every cost; ties keep the first by name."""

    def key(option: Candidate) -> tuple[float, ...]:
        return (option.damage, *(getattr(option, unit) for unit in units))

    kept: list[Candidate] = []
    for option in sorted(options, key=lambda option: (key(option), option.form, option.rank)):
        if not any(all(a <= b for a, b in zip(key(other), key(option), strict=True)) for other in kept):
            kept.append(option)
    return kept


ALLOCATORS.register(
    "knapsack",
    Allocator(
        "knapsack",
        "least summed damage within all limits, by integer programming",
        "HiGHS: Huangfu and Hall, Math. Prog. Comp. 2018",
        select,
        optimal=len(UNITS),
    ),
)
