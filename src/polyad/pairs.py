"""Moments of what a layer sees in a compressed network, and of what its output there lacks; streamed.

With x^ the input that reaches the layer, y what is wanted of its output (in the simplest case what it gives in the
original network, y = W x + b) and e = y - W x^ - b what the original layer would lack on that input:

    E[x^ x^'],  E[e x^'],  E[x^],  E[e],  E[e^2]

For the simplest y the second is W (E[x x^'] - E[x^ x^']).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod

import torch
from torch import Tensor, nn

from polyad.layers import LayerSpec
from polyad.metrics.moments import noise_between, second_moment
from polyad.pair_moments import Pairs
from polyad.patches import sampled_blocks
from polyad.records import Site

ROWS = 1 << 16
"""Rows that are looked at by default: the positions of an image are much alike, and products of all of them would take
most of the time where images are large."""


@dataclass
class _Sums:
    """Running sums over rows, float64."""

    count: int
    inputs: Tensor
    products: Tensor
    lacks: Tensor
    crosses: Tensor
    squares: Tensor

    @classmethod
    def zero(cls, layer: LayerSpec) -> "_Sums":
        groups, out, *rest = layer.weight_shape
        n = int(torch.Size(rest).numel())
        shapes = ((groups, n), (groups, n, n), (groups, out), (groups, out, n), (groups, out))
        return cls(0, *(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, layer: LayerSpec, x: Tensor, lack: Tensor, stride: int) -> None:
        """Products in the precision of the input, at least float32, summed in float64 block by block.

        Args:
            stride: one row in so many counts.
        """
        rows, at = output_rows(layer, lack)[..., ::stride], 0
        for block in sampled_blocks(layer, x, stride):
            part = rows[..., at : at + block.shape[-1]]
            at += block.shape[-1]
            self.count += block.shape[-1]
            self.inputs += block.sum(-1).to("cpu", torch.float64)
            self.products += (block @ block.mT).to("cpu", torch.float64)
            self.lacks += part.sum(-1).to("cpu", torch.float64)
            self.crosses += (part @ block.mT).to("cpu", torch.float64)
            self.squares += part.square().sum(-1).to("cpu", torch.float64)

    def joined(self, other: "_Sums") -> "_Sums":
        return _Sums(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def pairs(self, noise: Tensor | None = None) -> Pairs:
        count = max(self.count, 1)
        means = (self.inputs, self.products, self.lacks, self.crosses, self.squares)
        return Pairs(self.count, *(total / count for total in means), noise=noise)


def output_rows(layer: LayerSpec, y: Tensor) -> Tensor:
    """Outputs (samples, channels, *size) as rows (groups, out, rows), in the order of `patch_blocks`."""
    if layer.matrix:
        return y.reshape(-1, y.shape[-1]).t().unsqueeze(0)
    y = y.unsqueeze(0) if y.dim() == layer.dims + 1 else y
    return y.unflatten(1, (layer.groups, -1)).flatten(3).permute(1, 2, 0, 3).flatten(2)


@torch.no_grad()
def pairs_of(
    site: Site,
    dense: nn.Module,
    seen: Sequence[Tensor],
    wanted: Sequence[Tensor],
    *,
    halves: bool = False,
    limit: int = ROWS,
) -> Pairs:
    """Moments over some batches.

    Args:
        site: a single layer that is no embedding.
        dense: the original layer.
        seen: x^, what reaches the layer, batch by batch.
        wanted: y, likewise.
        halves: whether the noise of the moments is wanted, which two halves of the samples tell.
        limit: about so many rows are looked at.
    """
    layer, stride = site.layer, spacing(site.layer, wanted, limit)
    parts = [_Sums.zero(layer) for _ in range(2 if halves else 1)]
    for x, y in zip(seen, wanted, strict=True):
        x, y = x.detach(), y.detach()
        lack = y - dense.forward(x)  # not __call__: hooks of the original network are not meant here
        dtype = torch.promote_types(x.dtype, torch.float32)
        x, lack = x.to(dtype), lack.to(dtype)
        if x.dim() == layer.dims + 1:
            x, lack = x.unsqueeze(0), lack.unsqueeze(0)
        for at, part in enumerate(parts):
            part.add(layer, x[at :: len(parts)], lack[at :: len(parts)], stride)
    if not halves:
        return parts[0].pairs()
    return parts[0].joined(parts[1]).pairs(_noise(site, *parts))


def spacing(layer: LayerSpec, outputs: Sequence[Tensor], limit: int) -> int:
    """One row in how many is looked at, so that about `limit` are; without a divisor in common with the number of
    positions, so that all of them are met alike."""
    rows = sum(y.numel() for y in outputs) // layer.out_features
    positions = prod(outputs[0].shape[-layer.dims :]) if layer.dims else 1
    found = max(1, -(-rows // max(limit, 1)))
    while gcd(found, positions) > 1:
        found += 1
    return found


def _noise(site: Site, first: _Sums, second: _Sums) -> Tensor | None:
    if not (first.count and second.count):
        return None
    one, other = (second_moment(site, part.moment, part.mean, part.mean) for part in (first.pairs(), second.pairs()))
    return noise_between(one, other, first.count / (first.count + second.count))
