"""VDSR, super-resolution of the luminance: twenty 3x3 convolutions that predict what the bicubic image lacks.

Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from polyad.records import Preprocessing
from polyad.zoo.base import ZOO, ZooEntry, he_initialised


class HiddenLayer(nn.Module):
    """A 3x3 convolution and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 64, h, w) -> the same shape."""
        return F.relu(self.conv(x))


class VDSR(nn.Module):
    """Fully convolutional: any height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.residual_layer = nn.Sequential(*(HiddenLayer() for _ in range(18)))
        self.output = nn.Conv2d(64, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Luminance / 255, enlarged by bicubic interpolation, (batch, 1, h, w) -> the sharper one, same shape."""
        return x + self.output(self.residual_layer(F.relu(self.input(x))))


def build() -> nn.Module:
    """The network with random weights."""
    return he_initialised(VDSR())


ZOO.register(
    "vdsr",
    ZooEntry(
        name="vdsr",
        build=build,
        input_size=(1, 41, 41),
        preprocessing=Preprocessing(),
        summary="VDSR super-resolution of the luminance, 20 layers",
        source="Kim et al., CVPR 2016",
    ),
)
