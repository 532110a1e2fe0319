"""A zoo of awkward layers: name -> (layer, shape of one input), built with a fixed seed."""

from collections.abc import Callable

import torch
from torch import nn

Build = Callable[[], tuple[nn.Module, tuple[int, ...]]]

LAYERS: dict[str, Build] = {
    "linear": lambda: (nn.Linear(12, 9), (12,)),
    "linear_no_bias": lambda: (nn.Linear(9, 14, bias=False), (9,)),
    "linear_tokens": lambda: (nn.Linear(8, 6), (5, 8)),
    "linear_prime": lambda: (nn.Linear(7, 5), (7,)),
    "embedding": lambda: (nn.Embedding(24, 12), (5,)),
    "conv1x1": lambda: (nn.Conv2d(8, 10, 1), (8, 6, 6)),
    "conv3x3": lambda: (nn.Conv2d(6, 8, 3, padding=1), (6, 9, 9)),
    "conv_wide": lambda: (nn.Conv2d(16, 16, 3, padding=1), (16, 6, 6)),
    "conv3x3_no_bias": lambda: (nn.Conv2d(6, 8, 3, bias=False), (6, 9, 9)),
    "conv_even": lambda: (nn.Conv2d(4, 6, 4, stride=2, padding=1), (4, 10, 10)),
    "conv_non_square": lambda: (nn.Conv2d(5, 7, (3, 5), stride=(2, 1), padding=(0, 2)), (5, 9, 8)),
    "conv_one_row": lambda: (nn.Conv2d(5, 7, (1, 5), padding=(0, 2)), (5, 6, 8)),
    "conv_strided": lambda: (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 11, 9)),
    "conv_dilated": lambda: (nn.Conv2d(4, 6, 3, dilation=(2, 3), padding=(2, 1)), (4, 12, 12)),
    "conv_same": lambda: (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)), (4, 9, 9)),
    "conv_valid": lambda: (nn.Conv2d(4, 6, 3, padding="valid"), (4, 9, 9)),
    "conv_reflect": lambda: (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (4, 9, 9)),
    "conv_replicate": lambda: (nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), padding_mode="replicate"), (4, 9, 9)),
    "conv_circular": lambda: (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 9, 9)),
    "conv_grouped": lambda: (nn.Conv2d(12, 8, 3, padding=1, groups=4), (12, 7, 7)),
    "conv_depthwise": lambda: (nn.Conv2d(6, 6, 3, padding=1, groups=6), (6, 7, 7)),
    "conv_multiplier": lambda: (nn.Conv2d(4, 12, 5, padding=2, groups=4), (4, 8, 8)),
    "conv_from_one": lambda: (nn.Conv2d(1, 8, 3, padding=1), (1, 8, 8)),
    "conv_to_one": lambda: (nn.Conv2d(8, 1, 3, padding=1), (8, 8, 8)),
    "conv1d": lambda: (nn.Conv1d(6, 8, 5, stride=2, padding=2), (6, 15)),
    "conv3d": lambda: (nn.Conv3d(3, 5, (3, 2, 3), stride=(1, 2, 1), padding=1), (3, 5, 6, 5)),
    "transposed": lambda: (nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1), (6, 5, 6)),
    "transposed_plain": lambda: (nn.ConvTranspose2d(5, 6, (4, 3), bias=False), (5, 5, 6)),
    "transposed_grouped": lambda: (nn.ConvTranspose2d(6, 8, 3, groups=2, dilation=2, padding=1), (6, 5, 6)),
    "transposed1d": lambda: (nn.ConvTranspose1d(4, 5, 4, stride=2, padding=1), (4, 9)),
    "transposed3d": lambda: (nn.ConvTranspose3d(3, 4, 2, stride=2), (3, 3, 3, 3)),
}


def build(name: str, dtype: torch.dtype = torch.float32, samples: int = 6) -> tuple[nn.Sequential, torch.Tensor]:
    """A network of that one layer (called "0"), and inputs (samples, *shape) with correlated channels."""
    torch.manual_seed(0)
    layer, shape = LAYERS[name]()
    if isinstance(layer, nn.Embedding):
        indices = (torch.rand(samples, *shape) ** 2 * layer.num_embeddings).long()  # small ones are frequent
        return nn.Sequential(layer).to(dtype).eval(), indices
    inputs = torch.randn(samples, *shape)
    inputs = inputs + 0.7 * inputs.roll(1, dims=-1) + 0.3
    return nn.Sequential(layer).to(dtype).eval(), inputs.to(dtype)
