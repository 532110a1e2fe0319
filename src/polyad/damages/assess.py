"""Between the menu and the plan: every candidate gets the damage that allocators add up."""

from dataclasses import replace

from polyad.damages.base import DAMAGES, Ground
from polyad.errors import DataError
from polyad.menu import Candidate, Menu
from polyad.records import DENSE

DEFAULT, WITHOUT_BATCHES = "measured", "relative"
"""Where nothing is asked for; a function that runs the model itself gives no batches to measure on."""


def assess(menu: Menu, damage: str | None, ground: Ground) -> Menu:
    """The same menu with the damages of one kind; that of a dense layer is 0.

    Args:
        menu: from `propose`.
        damage: a registered name; None for `measured`, or where there are no batches `relative`.
        ground: what it may look at.

    Raises:
        DataError: there are no batches to run the network on, or no gradients, and it needs them.
        UnknownNameError: no such damage.
    """
    damage = damage or (DEFAULT if ground.batches else WITHOUT_BATCHES)
    chosen = DAMAGES[damage]
    if chosen.needs_batches and not ground.batches:
        raise DataError(
            f"The {damage} damage runs the network on batches of inputs, which a function that runs the model itself"
            " does not give: give batches, or take damage='relative'."
        )
    candidates = [candidate for found in menu.candidates.values() for candidate in found]
    if chosen.needs_curvature and any(c.nats is None for c in candidates if c.form != DENSE):
        raise DataError(f"The {damage} damage needs gradients at the outputs: observe them too.")
    price = chosen.price(menu, ground)

    def priced(candidate: Candidate) -> Candidate:
        return candidate.model_copy(update={"damage": 0.0 if candidate.form == DENSE else price(candidate)})

    return replace(menu.mapped(priced), damage=damage)
