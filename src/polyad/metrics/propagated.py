"""What a replaced layer should give on the inputs that it really sees, once layers before it are replaced too.

With x^ what reaches the layer in the compressed network, y what is wanted of its output and e = y - W x^ - b, the best
W^ of some form minimises E||y - W^ x^ - b^||^2. With the least-squares solution

    W* = W + E[e x^'] C^-1,    C = E[x^ x^'],

that is tr((W* - W^) C (W* - W^)') and a constant: the problem of `inputs` with another target and the C of other inputs
(asymmetric reconstruction: Zhang et al., TPAMI 2016, section 3.3). Where the bias may move both moments are centred.

With few samples W* holds noise, so a ridge draws it towards W and not towards zero: (C + ridge I)^-1 in place of C^-1,
and of the step from W only the share that is best on held-out inputs; ridge and share are chosen there.

This is not a norm to choose for a plan, since before there is a compressed network it is `inputs`; a refit uses it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from polyad.linalg import eigh_descending
from polyad.metrics.moments import lifted, second_moment, shrinkage, shrunk
from polyad.records import Pairs, Site

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried, as shares of the mean eigenvalue of C."""


@dataclass(frozen=True)
class Target:
    """What to approximate instead of the weight.

    Attributes:
        weight: W* (groups, out, n).
        ridge: that was best, as a share of the mean eigenvalue of C.
        share: of the way from W to the solution with that ridge.
    """

    weight: Tensor
    ridge: float
    share: float


def propagated_norm(site: Site, pairs: Pairs) -> Tensor:
    """C (groups, n, n) of the inputs in the compressed network, shrunk as in `inputs`."""
    moment = second_moment(site, pairs.moment, pairs.mean, pairs.mean)
    return shrunk(moment, shrinkage(moment, pairs.noise))


def propagated_target(site: Site, weight: Tensor, fitted: Pairs, unseen: Pairs) -> Target:
    """The target W* for a site.

    Args:
        weight: W (groups, out, n), float64.
        fitted: moments of the inputs that W* is made from.
        unseen: of those that choose how far to go.
    """
    cross, moment = _about(site, fitted, fitted)
    unseen_cross, unseen_moment = _about(site, unseen, fitted)
    values, vectors = eigh_descending(lifted(moment))
    turned, mean = cross @ vectors, values.mean(-1, keepdim=True)
    best, found = 0.0, Target(weight, 0.0, 0.0)
    for ridge in RIDGES:
        step = (turned / (values + ridge * mean).unsqueeze(-2)) @ vectors.mT
        overlap, length = float((step * unseen_cross).sum()), float((step @ unseen_moment * step).sum())
        share = min(max(overlap / length, 0.0), 1.0) if length > 0 else 0.0
        gain = 2 * share * overlap - share**2 * length
        if gain > best:
            best, found = gain, Target(weight + share * step, ridge, share)
    return found


def best_shift(pairs: Pairs, difference: Tensor) -> Tensor:
    """The change (groups, out) of the bias that leaves no error on average, for D = W - W^ (groups, out, n)."""
    return pairs.lack + torch.einsum("gon,gn->go", difference, pairs.mean)


def output_error(pairs: Pairs, difference: Tensor, shift: Tensor) -> float:
    """E||y - W^ x - b^||^2, summed over the groups.

    Args:
        difference: D = W - W^ (groups, out, n).
        shift: b^ - b (groups, out).
    """
    average = best_shift(pairs, difference)
    squares = pairs.energy.sum() + ((difference @ pairs.moment + 2 * pairs.cross) * difference).sum()
    return float(squares - (2 * shift * average).sum() + shift.square().sum())


def _about(site: Site, pairs: Pairs, centre: Pairs) -> tuple[Tensor, Tensor]:
    """E[e x'] and E[x x'] about the means of some pairs where the bias may move, else about zero."""
    moment = second_moment(site, pairs.moment, pairs.mean, centre.mean)
    if not site.bias_may_move:
        return pairs.cross, moment
    x, x_centre = pairs.mean.unsqueeze(-2), centre.mean.unsqueeze(-2)
    e, e_centre = pairs.lack.unsqueeze(-1), centre.lack.unsqueeze(-1)
    return pairs.cross - e * x_centre - e_centre * x + e_centre * x_centre, moment
