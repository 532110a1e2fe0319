"""What each replacement of a plan does among the others, and the menu priced by it.

Damages are measured with one site replaced at a time, and deep. How much of a plan's divergence is due to a replacement
shows when it alone is taken back:

    contribution = divergence(plan) - divergence(plan without it).

Where that is more or less than its share of the damage says, the damages of all candidates of its site (or narrowings
of its reader) go up or down with it, by no more than `MOST`, and not all the way: a contribution is the difference of
two figures on few inputs.
"""

from collections.abc import Callable, Mapping

from torch import nn

from polyad.menu import Candidate, Menu
from polyad.naming import put
from polyad.records import DENSE, NARROW, Plan

MOST = 10.0
"""Damages are multiplied or divided by at most so much ..."""

TRUST = 0.7
"""... to this power."""

TINY = 1e-12
"""Stands for a damage of nothing."""

Part = tuple[str, str]
"""A replacement: the site whose candidate carries the damage, and NARROW or an empty text."""


def _part(site: str, form: str) -> Part:
    """That of a choice or candidate."""
    return site, NARROW if form == NARROW else ""


def parts(plan: Plan) -> dict[Part, set[str]]:
    """The replacements of a plan that can be taken back one by one, with the modules that each changes."""
    sites = {choice.site.name: choice.site for choice in plan.choices}
    found = {(one.hidden.reader, NARROW): set(one.hidden.layers) for one in plan.narrowed}
    found |= {(choice.site.name, ""): set(choice.site.modules) for choice in plan.choices if not choice.dense}
    for (site, _), modules in found.items():
        modules |= {norm for name in (site, *modules) if name in sites and (norm := sites[name].norm_behind)}
        modules |= set(sites[site].aliases)
    return found


def contributions(
    student: nn.Module, original: nn.Module, plan: Plan, apart: Callable[[nn.Module], float]
) -> dict[Part, float]:
    """How much closer the network of a plan is with each replacement taken back.

    Args:
        student: of the plan; it is as before in the end.
        original: with the expansions that the plan uses.
        apart: a network -> its divergence from the original.
    """
    whole, found = apart(student), {}
    for part, names in parts(plan).items():
        before = {name: student.get_submodule(name) for name in names}
        for name in names:
            put(student, name, original.get_submodule(name))
        found[part] = whole - apart(student)
        for name, module in before.items():
            put(student, name, module)
    return found


def remeasured(menu: Menu, plan: Plan, found: Mapping[Part, float]) -> Menu:
    """The menu with the damages of what a plan replaces corrected by contributions."""
    damage = {_part(c.site.name, c.form): max(c.damage, TINY) for c in plan.choices}
    gained = {part: max(contribution, 0.0) for part, contribution in found.items()}
    unit = sum(gained.values()) / sum(damage[part] for part in found) if found else 0.0
    if not unit > 0:
        return menu
    factor = {part: min(max(gained[part] / (unit * damage[part]), 1 / MOST), MOST) ** TRUST for part in found}

    def corrected(candidate: Candidate) -> Candidate:
        by = factor.get(_part(candidate.site, candidate.form), 1.0)
        return candidate if candidate.form == DENSE else candidate.model_copy(update={"damage": candidate.damage * by})

    return menu.mapped(corrected)
