"""How far the error moves the network's prediction by its curvature: tr(G D C D') / 2 nats, whatever the fit's norm.

G and C are those of the curvature norm (metrics/curvature.py): one backward pass, labels drawn from the prediction.
"""

from polyad.damages.base import DAMAGES, Damage, Ground, Price
from polyad.menu import Candidate, Menu


def price(menu: Menu, ground: Ground) -> Price:
    """The nats that `propose` has noted."""

    def of(candidate: Candidate) -> float:
        return candidate.nats or 0.0

    return of


DAMAGES.register(
    "curvature",
    Damage(
        name="curvature",
        summary="divergence of the network's prediction that its curvature predicts; one backward pass, no labels",
        source="Martens and Grosse, 2015; Grosse and Martens, 2016",
        price=price,
        needs_curvature=True,
    ),
)
