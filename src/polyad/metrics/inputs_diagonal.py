"""Only how much each entry of a patch varies, not what varies together: two numbers per entry, hardly any noise."""

from torch import Tensor

from polyad.metrics.base import METRICS, Metric
from polyad.metrics.moments import input_moment, lifted
from polyad.records import Site, Statistics


def diagonal_norm(site: Site, statistics: Statistics) -> Tensor:
    """The diagonal (groups, n) of the second moment."""
    moment = input_moment(site, statistics)
    return lifted(moment if moment.dim() == 2 else moment.diagonal(dim1=-2, dim2=-1))


METRICS.register(
    "inputs_diagonal",
    Metric(
        name="inputs_diagonal",
        summary="the diagonal of it alone: how much each input varies",
        needs_inputs=True,
        matrix=diagonal_norm,
        source="Hsu et al., ICLR 2022 (weighted SVD)",
    ),
)
