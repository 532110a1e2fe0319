"""Which sites are fitted together: those of one layer shape, in forms that allow it.

The rule looks at the network and the settings alone, never at what is there already or at the number of threads, so
that a run that goes on where it was interrupted fits the same layers together as one that was not. Layers whose choice
is given are fitted alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.records import DENSE, Rank, Site
from polyad.solvers import goes_abreast

MOST = 18
"""Sites that are fitted together at most: more of them gain little more, and leave other threads without work."""

ROOM = 64 << 20
"""Bytes of norms that are held for them at a time."""

HELD = 6 * 8
"""Bytes for each entry of a norm: itself, that of held-out inputs, its views and their copies in float32."""


@dataclass(frozen=True)
class Task:
    """Sites of one layer shape, and the forms that all of them are fitted in together."""

    sites: tuple[Site, ...]
    forms: tuple[Decomposition, ...]


def tasks(
    sites: Sequence[Site], families: Sequence[Decomposition], fixed: Mapping[str, tuple[str, Rank]]
) -> list[Task]:
    """Every site in every form, or in the one that is given, exactly once; the largest first.

    Args:
        sites: in the order of the network.
        families: the forms of the menu.
        fixed: given choices by the names of sites.
    """
    free: dict[LayerSpec, list[Site]] = {}
    for site in sites:
        if site.name not in fixed:
            free.setdefault(site.layer, []).append(site)
    found = [task for layer, own in free.items() for task in _of_one_shape(layer, own, tuple(families))]
    given = [(site, fixed[site.name][0]) for site in sites if site.name in fixed]
    found += [Task((site,), (FORMS[name],)) for site, name in given if name != DENSE]
    whole = [_by_view(task) for task in found if task.forms]
    return sorted(whole, key=lambda task: -sum(site.params for site in task.sites))  # all threads end at about one time


def _of_one_shape(layer: LayerSpec, sites: Sequence[Site], families: tuple[Decomposition, ...]) -> list[Task]:
    joint = tuple(form for form in families if goes_abreast(form, layer))
    parts = _parts(sites, most(layer)) if joint else []
    alone = tuple(form for form in families if not parts or form not in joint)
    return [Task(part, joint) for part in parts] + [Task((site,), alone) for site in sites]


def most(layer: LayerSpec) -> int:
    """How many sites of a shape are fitted together at most: none but themselves where norms are wide."""
    groups, _, *inputs = layer.weight_shape
    return max(1, min(MOST, ROOM // (HELD * groups * prod(inputs) ** 2)))


def _parts(sites: Sequence[Site], largest: int) -> list[tuple[Site, ...]]:
    """Parts of nearly equal size; none where each would be one site."""
    count = -(-len(sites) // largest)
    if count == len(sites):
        return []
    ends = [round(len(sites) * at / count) for at in range(count + 1)]
    return [tuple(sites[start:end]) for start, end in zip(ends, ends[1:])]


def _by_view(task: Task) -> Task:
    """Forms of one view after each other: they share its whitening."""
    return Task(task.sites, tuple(sorted(task.forms, key=lambda form: form.view)))
