"""The rows that a layer multiplies its weight with: unfolded input patches, per group.

For every layer the output at one position is W x with x one row here, in the order of the canonical weight
(in, *kernel). A transposed convolution is an ordinary one of stride 1 over its input with zeros in between.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from polyad.layers import LayerSpec

BLOCK = 1 << 22
"""Elements of one block of patches: what is held at once, 16 MiB in float32."""


def patch_blocks(layer: LayerSpec, x: Tensor) -> Iterator[Tensor]:
    """Blocks (groups, n, rows) of the patches of an input batch, a few samples at a time."""
    if layer.matrix:
        for rows in x.reshape(-1, x.shape[-1]).split(max(1, BLOCK // x.shape[-1])):
            yield rows.t().unsqueeze(0)
        return
    if x.dim() == layer.dims + 1:
        x = x.unsqueeze(0)
    elements = prod(layer.weight_shape[2:]) * layer.groups * prod(layer.output_size(tuple(x.shape[2:])))
    for samples in x.split(max(1, BLOCK // elements)):
        yield _unfold(layer, samples)


def sampled_blocks(layer: LayerSpec, x: Tensor, every: int) -> Iterator[Tensor]:
    """Of all rows that `patch_blocks` gives one in `every`, the first among them; blocks (groups, n, rows)."""
    if every == 1:
        yield from patch_blocks(layer, x)
        return
    if layer.matrix:
        yield from patch_blocks(layer, x.reshape(-1, x.shape[-1])[::every])
        return
    x = x.unsqueeze(0) if x.dim() == layer.dims + 1 else x
    size = layer.output_size(tuple(x.shape[2:]))
    rows = torch.arange(0, len(x) * prod(size), every, device=x.device)
    x, stride = _padded(layer, x)
    pixels, width = x.movedim(1, -1).flatten(0, -2), x.shape[2:]
    for part in rows.split(max(1, BLOCK // (prod(layer.weight_shape[2:]) * layer.groups))):
        found = [pixels.index_select(0, at) for at in _pixels(layer, part, size, width, stride)]
        yield torch.stack(found, -1).unflatten(1, (layer.groups, -1)).flatten(2).permute(1, 2, 0)


def _pixels(
    layer: LayerSpec, rows: Tensor, size: tuple[int, ...], width: Sequence[int], stride: tuple[int, ...]
) -> Iterator[Tensor]:
    """For every offset of the kernel the pixel (of all samples, one after another) that each row has there."""
    corner, left, step = torch.zeros_like(rows), rows, 1
    steps = []
    for length, wide, jump in zip(reversed(size), reversed(width), reversed(stride), strict=True):
        corner = corner + left % length * jump * step
        left = left // length
        steps.insert(0, step)
        step *= wide
    corner = corner + left * step
    for offset in _offsets(layer):
        yield corner + sum(at * d * s for at, d, s in zip(offset, layer.dilation, steps, strict=True))


def _offsets(layer: LayerSpec) -> Iterator[tuple[int, ...]]:
    """The positions of the kernel in its own order; a transposed one meets the input mirrored."""
    for offset in product(*(range(k) for k in layer.kernel)):
        mirrored = tuple(k - 1 - at for k, at in zip(layer.kernel, offset, strict=True))
        yield mirrored if layer.kind == "conv_transpose" else offset


def _unfold(layer: LayerSpec, x: Tensor) -> Tensor:
    """(samples, channels, *size) -> (groups, n, rows)."""
    size = layer.output_size(tuple(x.shape[2:]))
    x, stride = _padded(layer, x)
    windows = []
    for offset in _offsets(layer):
        start = [at * d for at, d in zip(offset, layer.dilation, strict=True)]
        slices = [slice(a, a + (s - 1) * step + 1, step) for a, s, step in zip(start, size, stride, strict=True)]
        windows.append(x[(slice(None), slice(None), *slices)])
    stacked = torch.stack(windows, 2).unflatten(1, (layer.groups, -1))  # (samples, groups, in, kernel, *size)
    return stacked.flatten(4).permute(1, 2, 3, 0, 4).flatten(3).flatten(1, 2)


def _padded(layer: LayerSpec, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input as the kernel meets it, and the stride of the kernel over it."""
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel, strict=True)]
    if layer.kind == "conv_transpose":
        x = _spread(x, layer.stride)
        extra = layer.output_padding or (0,) * layer.dims
        sides = [(r - int(p), r - int(p) + e) for r, p, e in zip(reach, layer.padding, extra, strict=True)]
        return _pad(x, sides, "constant"), (1,) * layer.dims
    if layer.padding == "same":
        sides = [(r // 2, r - r // 2) for r in reach]
    elif layer.padding == "valid":
        sides = [(0, 0)] * layer.dims
    else:
        sides = [(int(p), int(p)) for p in layer.padding]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return _pad(x, sides, mode), layer.stride


def _pad(x: Tensor, sides: list[tuple[int, int]], mode: str) -> Tensor:
    flat = [amount for side in reversed(sides) for amount in side]
    return F.pad(x, flat, mode=mode) if any(flat) else x


def _spread(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Zeros between neighbours, stride - 1 of them along each axis."""
    size = [(length - 1) * step + 1 for length, step in zip(x.shape[2:], stride, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *size)
    wide[(slice(None), slice(None), *(slice(None, None, step) for step in stride))] = x
    return wide
