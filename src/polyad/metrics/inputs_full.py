"""The second moment of the inputs as it is, for comparison: on few inputs it fits their noise."""

from torch import Tensor

from polyad.metrics.base import METRICS, Metric
from polyad.metrics.moments import input_moment, lifted
from polyad.records import Site, Statistics


def full_norm(site: Site, statistics: Statistics) -> Tensor:
    """C (groups, n, n), only lifted so far that it is not singular; (groups, n) where it is diagonal."""
    return lifted(input_moment(site, statistics))


METRICS.register(
    "inputs_full",
    Metric(
        "inputs_full",
        "the norm of inputs without its shrinkage, for comparison",
        True,
        full_norm,
        source="Zhang et al., 2016",
    ),
)
