"""What a zoo network is, and what several of them need."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from polyad.records import Preprocessing
from polyad.registry import Registry


@dataclass(frozen=True)
class ZooEntry:
    """One reference network.

    Attributes:
        name: as in "zoo:NAME".
        build: makes the architecture with random weights.
        input_size: shape of one sample, without the batch: (3, 32, 32), or (positions,) of tokens.
        preprocessing: how pixels or text become its inputs.
        summary: one line.
        source: the paper.
    """

    name: str
    build: Callable[[], nn.Module]
    input_size: tuple[int, ...]
    preprocessing: Preprocessing
    summary: str
    source: str


ZOO: Registry[ZooEntry] = Registry("zoo network", "polyad.zoo")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels of ImageNet, scaled to [0, 1]; also what the public CIFAR ResNets were trained with."""


class SamePad(nn.Module):
    """The zeros that TensorFlow's SAME puts around the input of a strided convolution.

    The output has ceil(size / stride) positions; where the number of zeros is odd, the odd one goes to the right and to
    the bottom. A module of its own, so that the convolution behind it stays an ordinary `nn.Conv2d` with padding 0.

    Args:
        kernel, stride: of the convolution behind it, the same in both directions.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(..., height, width) -> the same with zeros around."""
        top, bottom = self._zeros(x.shape[-2])
        left, right = self._zeros(x.shape[-1])
        return F.pad(x, (left, right, top, bottom))

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"

    def _zeros(self, size: int) -> tuple[int, int]:
        outputs = -(-size // self.stride)
        total = max((outputs - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2


def he_initialised(model: nn.Module) -> nn.Module:
    """The same network, its convolutions drawn anew so that activations keep their variance (He et al., ICCV 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
