"""In which norm an error counts.

The damage of an error D = W - W^ of one group is tr(D C D') with C (n, n) over the layer's unfolded input patch,
n = input channels x kernel positions:

    weights    C = I                 data-free
    inputs     C = E[x x'], or the covariance where the bias may move; shrunk towards its diagonal
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad.linalg import symmetric
from polyad.records import Site, Statistics
from polyad.registry import Registry

SHRINKAGE = 0.01
"""Weight of the diagonal: a few hundred images leave noise in the small directions of C."""

FLOOR = 1e-5
"""Share of the mean eigenvalue (of all groups together) that every direction gets, so that dead channels, and groups
that see nothing at all, do not make C singular."""


@dataclass(frozen=True)
class Metric:
    """One norm.

    Attributes:
        name: as on the command line.
        summary: one line.
        needs_inputs: whether it looks at statistics of the inputs; then the bias is moved where it may be.
        matrix: site and statistics -> C (groups, n, n), or None for the identity.
    """

    name: str
    summary: str
    needs_inputs: bool
    matrix: Callable[[Site, Statistics], Tensor] | None


METRICS: Registry[Metric] = Registry("metric", "polyad.metrics")


def input_norm(site: Site, statistics: Statistics) -> Tensor:
    """Second moment of the inputs: centred where the bias may move, shrunk, never singular.

    (groups, n, n), or the diagonal (groups, n) where the statistics hold no more.
    """
    moment = second_moment(site, statistics.moment, statistics.mean, statistics.mean)
    diagonal = moment if moment.dim() == 2 else moment.diagonal(dim1=-2, dim2=-1)
    floor = FLOOR * (diagonal.mean() if diagonal.any() else torch.ones_like(diagonal.mean()))
    if moment.dim() == 2:
        return diagonal + floor
    return (1 - SHRINKAGE) * moment + torch.diag_embed(SHRINKAGE * diagonal + floor)


def held_out_norm(site: Site, statistics: Statistics) -> Tensor | None:
    """The norm of held-out inputs, neither shrunk nor lifted; the bias is the one that the fitted inputs ask for."""
    if statistics.held_out is None or statistics.held_out_mean is None:
        return None
    return second_moment(site, statistics.held_out, statistics.held_out_mean, statistics.mean)


def second_moment(site: Site, moment: Tensor, mean: Tensor, shift: Tensor) -> Tensor:
    """E[(x - shift)(x - shift)'] where a constant error can be absorbed, E[x x'] elsewhere."""
    if moment.dim() == 2:
        return moment  # of one-hot rows: diagonal, and left so
    if site.bias_may_move:
        cross = mean.unsqueeze(-1) * shift.unsqueeze(-2)
        moment = moment - cross - cross.mT + shift.unsqueeze(-1) * shift.unsqueeze(-2)
    return symmetric(moment)


METRICS.register("weights", Metric("weights", "plain norm of the weight error; needs no data", False, None))
METRICS.register(
    "inputs", Metric("inputs", "error of the layer's output on calibration inputs; needs no labels", True, input_norm)
)
