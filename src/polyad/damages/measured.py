"""What replacing the site does to the network's outputs, measured at heavy truncation and carried over by the error.

Each site alone is replaced by its best candidate at about 10 % of its parameters, and the divergence of the network's
outputs from the original's is read: its sensitivity is divergence(probe) / error(probe), with relative errors of its
output. Every candidate of the site, of whatever form, is priced in proportion to its error:

    damage(candidate) = sensitivity^(1 - SHRINKAGE) * error(candidate) * max(1, error(candidate) / error(probe)),

the geometric mean of what the measurement says and of the relative error, which takes every site to be as sensitive as
another. At mid rank a measurement misleads: alone in an otherwise whole network a small error does almost nothing
(divergence rises nearly as the square of the relative error), while in a plan it comes on top of those of all other
layers. For the same reason sensitivities are shrunk: taken as they are, a deep cut is put on many layers that do little
alone, and together they break the network (benchmarks/damages.py). Nothing is known of errors beyond that of the probe,
and divergence rises faster than they do: there the price rises with the square.
"""

from collections.abc import Mapping, Sequence

from polyad.damages.base import DAMAGES, Damage, Ground, Price
from polyad.damages.probes import Probe, probe
from polyad.menu import Candidate, Menu

SHRINKAGE = 0.5
"""0 is the measurement as it is, 1 the relative error."""

TINY = 1e-12
"""Error and divergence that count as none."""


def sensitivities(probes: Mapping[str, Sequence[Probe]]) -> dict[str, float]:
    """Divergence per relative error of every site, from its first probe."""
    return {name: max(found[0].divergence, TINY) / max(found[0].error, TINY) for name, found in probes.items()}


def price(menu: Menu, ground: Ground) -> Price:
    """The error of a candidate times the shrunk sensitivity of its site; a probe of a stack replaces all its layers."""
    probes = probe(menu, ground)
    found = sensitivities(probes)

    def of(candidate: Candidate) -> float:
        error, known = candidate.unseen_error, max(probes[candidate.site][0].error, TINY)
        return found[candidate.site] ** (1 - SHRINKAGE) * error * max(error / known, 1.0)

    return of


DAMAGES.register(
    "measured",
    Damage(
        name="measured",
        summary="relative error times what it does to the network's outputs, measured with a tenth of the site left",
        source="sensitivity at heavy truncation: LEMS, ICML 2026",
        price=price,
        needs_batches=True,
    ),
)
