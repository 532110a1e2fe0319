"""What is wanted of a layer in front of a ReLU: where the ReLU is to give zero, anything negative will do.

Behind a layer (a batch norm, a shortcut) stands r(v) = min(max(v, 0), ceiling) of v = y + k, with k for each entry.
With g what r is to give, the error of a negative v counts nothing where g = 0, and that of a v beyond the ceiling
nothing where g is the ceiling:

    loss = E sum of (v - z)^2,    z = min(v, 0) where g = 0,  max(v, ceiling) where g = ceiling,  g elsewhere.

It is convex in v and no less than (g - r(v))^2. Given z, W^ is a refit to z - k; given W^, z is what stands above;
each step can only lower the loss. (The alternation is that of Zhang et al., TPAMI 2016, section 3.2, whose z may also
give up an entry with g > 0; here none is.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, prod

import torch
from torch import Tensor

from polyad.layers import LayerSpec
from polyad.pair_moments import Pairs
from polyad.pairs import ROWS, output_rows, spacing
from polyad.patches import sampled_blocks

ELEMENTS = 1 << 26
"""Of the patches that are held: 256 MiB of float32."""


@dataclass(frozen=True)
class Gated:
    """Rows of a layer in front of a ReLU, in units of the layer's output.

    Attributes:
        patches: (groups, n, rows) what it sees.
        given: (groups, out, rows) g.
        beside: (groups, out, rows) k.
        sign: (groups, out, 1) -1 where the batch norm between turns the sign, so that v = sign y + k.
        ceiling: (groups, out, 1).
    """

    patches: Tensor
    given: Tensor
    beside: Tensor
    sign: Tensor
    ceiling: Tensor

    def before(self, weight: Tensor, bias: Tensor) -> Tensor:
        """v of a weight (groups, out, n) and bias (groups, out), float64 or not."""
        y = weight.to(self.patches) @ self.patches + bias.to(self.patches).unsqueeze(-1)
        return self.sign * y + self.beside

    def target(self, before: Tensor) -> Tensor:
        """z."""
        low = torch.where(self.given <= 0, before.clamp_max(0), self.given)
        return torch.where(self.given >= self.ceiling, torch.maximum(before, self.ceiling), low)

    def loss(self, weight: Tensor, bias: Tensor) -> float:
        """E of the sum over outputs."""
        before = self.before(weight, bias)
        return float((before - self.target(before)).square().sum(dtype=torch.float64) / self.given.shape[-1])

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """E||g - r(v)||^2."""
        passed = torch.minimum(self.before(weight, bias).clamp_min(0), self.ceiling)
        return float((self.given - passed).square().sum(dtype=torch.float64) / self.given.shape[-1])

    def pairs(self, moments: Pairs, dense: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> Pairs:
        """Moments with the z of a present weight and bias as what is wanted.

        Args:
            moments: of the inputs; what is wanted in them does not matter.
            dense: weight and bias of the original layer.
            now: the present ones.
        """
        count, before = self.patches.shape[-1], self.before(*now)
        change = self.sign * (self.target(before) - before)  # of the present output; that differs from the original by
        weight, bias = now[0] - dense[0], (now[1] - dense[1]).unsqueeze(-1)
        mean = moments.mean.unsqueeze(-1)
        rest, crossed = weight @ mean + bias, weight @ moments.moment + bias * mean.mT
        lack = change.sum(-1, dtype=torch.float64) / count
        cross = (change @ self.patches.mT).double() / count
        energy = change.square().sum(-1, dtype=torch.float64) / count + 2 * (cross * weight).sum(-1)
        energy += ((2 * lack.unsqueeze(-1) + rest) * bias + (crossed * weight).sum(-1, keepdim=True)).squeeze(-1)
        return replace(moments, lack=lack + rest.squeeze(-1), cross=cross + crossed, energy=energy)


def gated(
    layer: LayerSpec,
    seen: Sequence[Tensor],
    before: Sequence[tuple[Tensor, Tensor]],
    scale: Tensor,
    ceiling: float,
    *,
    limit: int = ROWS,
) -> Gated:
    """Rows of some batches, as many as there is room for, evenly spread.

    Args:
        layer: convolution or linear layer.
        seen: what the layer sees, batch by batch.
        before: likewise what goes into the ReLU in the teacher, and what is added to the layer's own part of it in the
            student, both (samples, channels, *size).
        scale: (out,) what a batch norm in between multiplies the layer's output with.
        ceiling: of the ReLU.
        limit: about so many rows are looked at.
    """
    shape = layer.weight_shape
    every = spacing(layer, [y for y, _ in before], min(limit, ELEMENTS // (shape[0] * prod(shape[2:]))))
    dtype = torch.promote_types(before[0][0].dtype, torch.float32)
    size = scale.abs().reshape(*shape[:2], 1).to("cpu", dtype)
    patches, given, beside = [], [], []
    for x, (theirs, added) in zip(seen, before, strict=True):
        patches += [block.to("cpu", dtype) for block in sampled_blocks(layer, x, every)]
        given.append(output_rows(layer, theirs)[..., ::every].to("cpu", dtype).clamp(0, ceiling) / size)
        beside.append(output_rows(layer, added)[..., ::every].to("cpu", dtype) / size)
    end = torch.full_like(size, inf) if ceiling == inf else ceiling / size
    sign = scale.sign().reshape(*shape[:2], 1).to(size)
    return Gated(torch.cat(patches, -1), torch.cat(given, -1), torch.cat(beside, -1), sign, end)
