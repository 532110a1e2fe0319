"""What replacing the site does to the network's outputs, measured at heavy truncation and carried over by the error.

Each site alone is replaced by its best candidate at about 10 % of its parameters, and the divergence of the network's
outputs from the original's is read. Every candidate of the site, of whatever form, is priced in proportion:

    damage(candidate) = divergence(probe) * error(candidate) / error(probe).

At mid rank a measurement misleads: alone in an otherwise whole network a small error does almost nothing (divergence
rises nearly as the square of the relative error), while in a plan it comes on top of those of all other layers. With a
second probe at 35 % of the parameters, and the curve through both, plans were worse (benchmarks/damages.py).
"""

from collections.abc import Mapping, Sequence

from polyad.damages.base import DAMAGES, Damage, Ground, Price
from polyad.damages.probes import Probe, probe
from polyad.records import Candidate, Menu

TINY = 1e-12
"""Error and divergence that count as none."""


def sensitivities(probes: Mapping[str, Sequence[Probe]]) -> dict[str, float]:
    """Divergence per relative error of every site, from its first probe."""
    return {name: max(found[0].divergence, TINY) / max(found[0].error, TINY) for name, found in probes.items()}


def price(menu: Menu, ground: Ground) -> Price:
    """The error of a candidate times what an error of its site does."""
    found = sensitivities(probe(menu, ground))

    def of(candidate: Candidate) -> float:
        return found[candidate.site] * candidate.unseen_error

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
