"""Second moments as the norms use them: centred where the bias may move, shrunk, never singular.

How far to shrink: few samples leave noise in C, and the less a direction varies the larger its share. The patches of
one image depend on each other, so what counts is nearer to the number of images than to that of patches. Images are
therefore parted into two halves; how far the moments of the two are apart says how far their mean is off. The weight of
the diagonal target that makes the expected squared error least is, on the scale of correlations r (Ledoit and Wolf, J.
Multivariate Analysis 2004; Schaefer and Strimmer, Stat. Appl. Genet. Mol. Biol. 2005, target D),

    sum of Var(r_ij) / sum of r_ij^2    over i != j.
"""

import torch
from torch import Tensor

from polyad.linalg import symmetric
from polyad.records import Site, Statistics

UNKNOWN = 0.1
"""Weight of the diagonal where a single sample leaves no halves to compare."""

FLOOR = 1e-5
"""Share of the mean eigenvalue (of all groups together) that every direction gets, so that dead channels, and groups
that see nothing at all, do not make C singular."""


def input_moment(site: Site, statistics: Statistics) -> Tensor:
    """The second moment (groups, n, n) of the fitted inputs, or its diagonal (groups, n); neither shrunk nor lifted."""
    return second_moment(site, statistics.moment, statistics.mean, statistics.mean)


def input_norm(site: Site, statistics: Statistics) -> Tensor:
    """The same, shrunk towards its diagonal as far as it is uncertain, and never singular."""
    moment = input_moment(site, statistics)
    return lifted(moment) if moment.dim() == 2 else shrunk(moment, shrinkage(moment, statistics.noise))


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
        half = mean - shift / 2  # m s' + s m' - s s' = half s' + s half', of which two copies at a time are enough
        moment = moment - half.unsqueeze(-1) * shift.unsqueeze(-2)
        moment.sub_(shift.unsqueeze(-1) * half.unsqueeze(-2))
    return symmetric(moment)


def noise_between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Sum over i != j of the squared error that their weighted mean is expected to have, as correlations (groups,).

    Args:
        first: moment (groups, n, n) of one half of the samples.
        second: of the other half.
        share: of all samples in the first half.
    """
    return share * (1 - share) * _off_diagonal(first - second, _scale(share * first + (1 - share) * second))


def shrinkage(moment: Tensor, noise: Tensor | None) -> Tensor:
    """Weight (groups,) of the diagonal, from 0 to 1, for a moment (groups, n, n) with that noise."""
    if noise is None:
        return moment.new_full(moment.shape[:1], UNKNOWN)
    energy = _off_diagonal(moment, _scale(moment))
    return torch.where(energy > 0, noise / energy.clamp_min(torch.finfo(energy.dtype).tiny), 0.0).clamp(0, 1)


def shrunk(moment: Tensor, weight: Tensor) -> Tensor:
    """A moment (groups, n, n) or diagonal (groups, n), its off-diagonal times 1 - weight (groups,), lifted."""
    if moment.dim() == 2:
        return moment + _lift(moment)
    diagonal = moment.diagonal(dim1=-2, dim2=-1)
    found = (1 - weight).view(-1, 1, 1) * moment
    found.diagonal(dim1=-2, dim2=-1).add_(weight.unsqueeze(-1) * diagonal + _lift(diagonal))
    return found


def lifted(moment: Tensor) -> Tensor:
    """A moment with the floor under all of its directions."""
    return shrunk(moment, moment.new_zeros(len(moment)))


def _lift(diagonal: Tensor) -> Tensor:
    return FLOOR * (diagonal.mean() if diagonal.any() else torch.ones_like(diagonal.mean()))


def _scale(moment: Tensor) -> Tensor:
    """What makes correlations of the rows and columns of a moment, (groups, n); 0 for what is always zero."""
    diagonal = moment.diagonal(dim1=-2, dim2=-1)
    return torch.where(diagonal > FLOOR * diagonal.mean(-1, keepdim=True), diagonal, torch.inf).rsqrt()


def _off_diagonal(matrix: Tensor, scale: Tensor) -> Tensor:
    """Sum of squares (groups,) off the diagonal of (groups, n, n), its rows and columns scaled by (groups, n)."""
    squares = (matrix * scale.unsqueeze(-1)).mul_(scale.unsqueeze(-2)).square_()
    return squares.sum((-2, -1)) - squares.diagonal(dim1=-2, dim2=-1).sum(-1)
