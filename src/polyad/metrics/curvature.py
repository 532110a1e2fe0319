"""How far an error moves the network's own prediction: tr(G D C D') / 2 approximates the divergence in nats.

The Kullback-Leibler divergence of the prediction after a small change from that before is half the change in the Fisher
information. K-FAC writes the Fisher block of one layer as a Kronecker product (Martens and Grosse, ICML 2015; for
convolutions Grosse and Martens, ICML 2016): C = E[x x'] per position, here that of `inputs`, and G = E[g g'], the
gradients g at the layer's output, labels drawn from the network's own prediction, summed over the positions of a sample
(so that damage of layers with many and with few positions adds up).

G is shrunk towards a multiple of the identity with the same trace: it holds for small changes, and errors of a fit, all
of them put where G is small, are not.
"""

import torch
from torch import Tensor

from polyad.errors import DataError
from polyad.linalg import symmetric
from polyad.metrics.base import METRICS, Metric
from polyad.metrics.moments import input_norm
from polyad.records import Site, Statistics

SHRINKAGE = 0.9
"""Weight of the identity, the best of .1, .5, .8, .9 and 1 on ResNet-20 (docs/norms.md): what G adds to the inputs norm
is mostly how much each layer's output matters, and not which of its directions."""

NOTHING = 1e-12
"""Instead of a mean eigenvalue of zero, where the loss does not depend on a group's outputs at all."""


def gradient_norm(site: Site, statistics: Statistics) -> Tensor:
    """G (groups, out, out), shrunk, never singular."""
    if statistics.curvature is None:
        raise DataError(f"The curvature norm needs gradients at the outputs of {site.name}: observe them too.")
    found = symmetric(statistics.curvature)
    level = found.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(NOTHING)
    eye = torch.eye(found.shape[-1], dtype=found.dtype, device=found.device)
    return (1 - SHRINKAGE) * found + SHRINKAGE * level.view(-1, 1, 1) * eye


METRICS.register(
    "curvature",
    Metric(
        name="curvature",
        summary="how far the error moves the network's own prediction (K-FAC); one backward pass, no labels",
        needs_inputs=True,
        matrix=input_norm,
        left=gradient_norm,
        source="Martens and Grosse, 2015; Grosse and Martens, 2016",
    ),
)
