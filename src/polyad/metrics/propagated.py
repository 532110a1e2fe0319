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
from polyad.pair_moments import Pairs
from polyad.records import Site

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried, as shares of the mean eigenvalue of C."""


def propagated_norm(site: Site, pairs: Pairs) -> Tensor:
    """C (groups, n, n) of the inputs in the compressed network, shrunk as in `inputs`."""
    moment = second_moment(site, pairs.moment, pairs.mean, pairs.mean)
    return shrunk(moment, shrinkage(moment, pairs.noise))


@dataclass(frozen=True)
class Regression:
    """What is wanted of a site regressed on what it sees, for one set of inputs.

    Attributes:
        site: the site.
        values, vectors: eigenvalues (groups, n) and eigenvectors of their C.
    """

    site: Site
    values: Tensor
    vectors: Tensor

    @classmethod
    def on(cls, site: Site, pairs: Pairs) -> "Regression":
        """Prepare it, for whatever is going to be wanted."""
        return cls(site, *eigh_descending(lifted(second_moment(site, pairs.moment, pairs.mean, pairs.mean))))

    def step(self, pairs: Pairs, ridge: float) -> Tensor:
        """W* - W (groups, out, n).

        Args:
            pairs: moments over the inputs that it was prepared for.
            ridge: as a share of the mean eigenvalue of C.
        """
        cross, _ = _about(self.site, pairs, pairs)
        raised = self.values + ridge * self.values.mean(-1, keepdim=True)
        return (cross @ self.vectors / raised.unsqueeze(-2)) @ self.vectors.mT

    def best(self, fitted: Pairs, unseen: Pairs) -> tuple[float, float]:
        """The ridge, and the share of the step with it, that leave the least error on held-out inputs."""
        cross, moment = _about(self.site, unseen, fitted)
        best, found = 0.0, (RIDGES[-1], 0.0)
        for ridge in RIDGES:
            step = self.step(fitted, ridge)
            overlap, length = float((step * cross).sum()), float((step @ moment * step).sum())
            share = min(max(overlap / length, 0.0), 1.0) if length > 0 else 0.0
            gain = 2 * share * overlap - share**2 * length
            if gain > best:
                best, found = gain, (ridge, share)
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
    squares = pairs.energy + ((difference @ pairs.moment + 2 * pairs.cross) * difference).sum(-1)
    return float((squares - 2 * shift * average + shift.square()).sum())


def _about(site: Site, pairs: Pairs, centre: Pairs) -> tuple[Tensor, Tensor]:
    """E[e x'] and E[x x'] about the means of some pairs where the bias may move, else about zero."""
    moment = second_moment(site, pairs.moment, pairs.mean, centre.mean)
    if not site.bias_may_move:
        return pairs.cross, moment
    x, x_centre = pairs.mean.unsqueeze(-2), centre.mean.unsqueeze(-2)
    e, e_centre = pairs.lack.unsqueeze(-1), centre.lack.unsqueeze(-1)
    return pairs.cross - e * x_centre - e_centre * x + e_centre * x_centre, moment
