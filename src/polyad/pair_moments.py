"""What a site sees in a compressed network beside what the original did, as moments."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Moments of what a site sees in a compressed network, and of what the original layer lacks on it, per group.

    Attributes:
        count: number of patches (rows).
        mean: (groups, n) float64, E[x] of what it sees there.
        moment: (groups, n, n), E[x x'].
        lack: (groups, out), E[e], e what is wanted of its output less what the original layer makes of x.
        cross: (groups, out, n), E[e x'].
        energy: (groups, out), E[e^2]; noise: as in `Statistics`.
    """

    count: int
    mean: Tensor
    moment: Tensor
    lack: Tensor
    cross: Tensor
    energy: Tensor
    noise: Tensor | None = None
