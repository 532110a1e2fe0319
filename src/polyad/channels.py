"""Output channels that are to vary as much as they did before."""

import torch
from torch import Tensor

LARGEST_SCALE = 4.0
"""A channel is scaled by at most so much, up or down: one that hardly varies has no variance worth matching."""


def matching_scale(have: Tensor, want: Tensor) -> Tensor:
    """What brings channels of some variances to others, within bounds; of any shape, float64."""
    tiny = torch.finfo(torch.float64).tiny
    return (want.clamp_min(tiny) / have.clamp_min(tiny)).sqrt().clamp(1 / LARGEST_SCALE, LARGEST_SCALE)
