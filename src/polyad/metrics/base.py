"""What a norm is."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from polyad.records import Site, Statistics
from polyad.registry import Registry

Matrix = Callable[[Site, Statistics], Tensor]


@dataclass(frozen=True)
class Metric:
    """One norm.

    Attributes:
        name: as on the command line.
        summary: one line.
        needs_inputs: whether it looks at statistics of the inputs; then the bias is moved where it may be.
        matrix: site and statistics -> C (groups, n, n), or its diagonal (groups, n); None for the identity.
        left: site and statistics -> G (groups, out, out); None for the identity. Then the norm is that of a change of
            the network's loss, in nats, and allocators add it up as it is; else they add up relative errors.
        source: the paper.
    """

    name: str
    summary: str
    needs_inputs: bool
    matrix: Matrix | None
    left: Matrix | None = None
    source: str = ""

    @property
    def needs_curvature(self) -> bool:
        """Whether it looks at the gradients at the outputs."""
        return self.left is not None

    def lacks(self, statistics: Statistics | None) -> str | None:
        """What it needs and the statistics of a site do not hold, or None."""
        if self.needs_inputs and statistics is None:
            return "inputs"
        if self.needs_curvature and statistics is not None and statistics.curvature is None:
            return "gradients at the outputs"
        return None


METRICS: Registry[Metric] = Registry("metric", "polyad.metrics")
