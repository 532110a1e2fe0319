"""Whole networks compared: plans of one budget that weigh errors differently, each made and measured.

No price on the error of one layer is right for all networks: what errors of several layers do together is not their
sum. So the menu is priced in several ways, each gives a plan within the same budget, and the plan is kept whose network
comes closest to the original's outputs, before any recovery: on the calibration inputs that the fits have seen and on
those that they have not, the mean of both. (The unseen ones alone are too few: over nine networks of ResNet-20 at a
quarter of its parameters, the 200 of them chose one that was not the closest on 1,000 other images, all 1,000 together
chose the closest. Among all together they hardly count, and a layer that few samples tell little of looks harmless: a
classifier of MobileNetV2 cut to a quarter on 205 images.)

A way is a pair (a, q): the damage of a candidate becomes damage^a * error^(q - a), error being the relative one of its
site. As a damage is the error times something that belongs to the site, a says how much of that counts (0 none, 1 all
of it) and q how much worse a large error is than several small ones.
"""

from collections.abc import Callable, Sequence

from polyad.menu import Candidate, Menu
from polyad.progress import Progress, silent
from polyad.records import DENSE, Plan

WAYS = ((1.0, 1.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.5), (0.0, 1.5), (1.5, 1.0), (0.5, 1.5), (2.0, 1.0))
"""(a, q); the first is the damage itself, and so the plan that is made where nothing is compared."""

STEPS = 20
"""L-BFGS iterations of their fits, as in the menu; the plan that is kept is fitted in full."""

TINY = 1e-12
"""Stands for an error of nothing."""


def repriced(menu: Menu, way: tuple[float, float]) -> Menu:
    """The menu, assessed before, with its damages weighed in another way."""
    a, q = way

    def priced(candidate: Candidate) -> Candidate:
        error = max(candidate.unseen_error, TINY)
        damage = max(candidate.damage, TINY) ** a * error ** (q - a)
        return candidate if candidate.form == DENSE else candidate.model_copy(update={"damage": damage})

    return menu.mapped(priced)


def best_of(plans: Sequence[Plan], judge: Callable[[Plan], float], progress: Progress = silent) -> Plan:
    """The plan whose network is closest to the original; its rule says what was compared.

    Args:
        plans: within one budget, the default one first; plans that are the same are made once.
        judge: a plan -> divergence of its network's outputs from the original's.
    """
    different: dict[object, Plan] = {}
    for plan in plans:
        different.setdefault(tuple((choice.form, choice.rank) for choice in plan.choices), plan)
    if len(different) < 2:
        return plans[0]
    measured = [(judge(plan), plan) for plan in progress(different.values(), "compare", len(different))]
    divergence, best = min(measured, key=lambda one: one[0])
    said = (
        f"closest of {len(measured)} networks within the budget: divergence {divergence:.3g}, of the plan by"
        f" damages as they are {measured[0][0]:.3g}"
    )
    return best.model_copy(update={"rule": f"{best.rule}; {said}" if best.rule else said})
