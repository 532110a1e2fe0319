"""The second moment as a Kronecker product of one matrix over input channels and one over kernel positions.

Both are partial traces: what varies together among channels whatever the position, and among positions whatever the
channel. Two small matrices instead of a large one, so there is little noise to shrink away.
"""

import torch
from torch import Tensor

from polyad.metrics.base import METRICS, Metric
from polyad.metrics.moments import input_moment, lifted
from polyad.records import Site, Statistics


def modes_norm(site: Site, statistics: Statistics) -> Tensor:
    """C_channels (x) C_kernel / tr C (groups, n, n); the second moment itself of a layer without a kernel."""
    moment = input_moment(site, statistics)
    channels = site.layer.weight_shape[2]
    positions = moment.shape[-1] // channels
    if moment.dim() == 2 or positions == 1:
        return lifted(moment)
    parts = moment.reshape(-1, channels, positions, channels, positions)
    over_channels = torch.einsum("gikjk->gij", parts)
    over_kernel = torch.einsum("gikil->gkl", parts)
    total = torch.einsum("gikik->g", parts).clamp_min(torch.finfo(parts.dtype).tiny)
    product = torch.einsum("gij,gkl->gikjl", over_channels, over_kernel / total.view(-1, 1, 1))
    return lifted(product.reshape(moment.shape))


METRICS.register(
    "inputs_modes",
    Metric(
        name="inputs_modes",
        summary="a Kronecker product of it over input channels and kernel positions",
        needs_inputs=True,
        matrix=modes_norm,
        source="Van Loan and Pitsianis, 1993 (Kronecker approximation)",
    ),
)
