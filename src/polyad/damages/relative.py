"""The relative error of a layer's output, as if an error of a tenth were as bad at every layer."""

from polyad.damages.base import DAMAGES, Damage, Ground, Price
from polyad.menu import Candidate, Menu


def price(menu: Menu, ground: Ground) -> Price:
    """The relative error on held-out inputs; a stack counts as often as it has layers."""
    layers = {site.name: len(site.modules) for site in menu.sites}

    def of(candidate: Candidate) -> float:
        return candidate.unseen_error * layers[candidate.site]

    return of


DAMAGES.register(
    "relative",
    Damage("relative", "relative error of the layer's output, the same at every layer", "Zhang et al., 2016", price),
)
