"""What replacing the site does to the network's outputs, measured at heavy truncation and carried over by the error.

At about 10 % and 35 % of its parameters each site is replaced alone, and the divergence of the network's outputs is
read: two points (relative error, divergence). Every candidate of the site, of whatever form, gets the divergence that
belongs to its error: between the points the logarithms run straight, beyond them damage is proportional to the error.
At mid rank alone a measurement misleads: it is small and noisy there, and what matters is where the budget cuts deep.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

from polyad.damages.base import DAMAGES, Damage, Ground, Price
from polyad.damages.probes import Probe, probe
from polyad.records import Candidate, Menu

TINY = 1e-12
"""Error and divergence that count as none where logarithms are taken."""

FLATTEST = 0.1
"""Points between which damage rises more slowly than error to this power say nothing about how it rises: they are
joined to one."""


@dataclass(frozen=True)
class Curve:
    """Damage as a function of the error: logarithms of errors, rising, and of divergences at them."""

    errors: tuple[float, ...]
    divergences: tuple[float, ...]

    @classmethod
    def through(cls, probes: Sequence[Probe]) -> "Curve":
        points = sorted((log(max(one.error, TINY)), log(max(one.divergence, TINY))) for one in probes)
        first, last = points[0], points[-1]
        if last[1] - first[1] > FLATTEST * (last[0] - first[0]) > 0:
            return cls((first[0], last[0]), (first[1], last[1]))
        middle = tuple(sum(column) / len(points) for column in zip(*points, strict=True))
        return cls((middle[0],), (middle[1],))

    def at(self, error: float) -> float:
        """Damage at a relative error."""
        at = log(max(error, TINY))
        if at <= self.errors[0]:
            return exp(self.divergences[0] + at - self.errors[0])
        if at >= self.errors[-1]:
            return exp(self.divergences[-1] + at - self.errors[-1])
        share = (at - self.errors[0]) / (self.errors[-1] - self.errors[0])
        return exp(self.divergences[0] + share * (self.divergences[-1] - self.divergences[0]))


def curves(probes: Mapping[str, Sequence[Probe]]) -> dict[str, Curve]:
    """The curve of every site."""
    return {name: Curve.through(found) for name, found in probes.items()}


def price(menu: Menu, ground: Ground) -> Price:
    """The divergence that belongs to the error of a candidate."""
    found = curves(probe(menu, ground))

    def of(candidate: Candidate) -> float:
        return found[candidate.site].at(candidate.unseen_error)

    return of


DAMAGES.register(
    "measured",
    Damage(
        name="measured",
        summary="divergence of the network's outputs with this site alone replaced, measured at 10 and 35 % of it",
        source="sensitivity at heavy truncation: LEMS, ICML 2026",
        price=price,
        needs_batches=True,
    ),
)
