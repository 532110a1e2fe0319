"""ResNet-8, the image classifier of the MLPerf Tiny benchmark, batch norm folded, TensorFlow's SAME padding.

Banbury et al., "MLPerf Tiny Benchmark", NeurIPS Datasets and Benchmarks 2021.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from polyad.records import Preprocessing
from polyad.zoo.base import ZOO, SamePad, ZooEntry, he_initialised


class FirstStage(nn.Module):
    """Two 3x3 convolutions, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, h, w) -> the same shape."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class HalvingStage(nn.Module):
    """Two 3x3 convolutions, the first at stride 2, added to a strided 1x1 convolution of the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pad = SamePad(3, 2)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = nn.Conv2d(inputs, outputs, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h / 2, w / 2), halves rounded up."""
        y = self.conv2(F.relu(self.conv1(self.pad(x))))
        return F.relu(self.short(x) + y)


class TinyResNet(nn.Module):
    """ResNet-8.

    Args:
        width: channels of the first stage; doubled at each of the next two.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.s1 = FirstStage(width)
        self.s2 = HalvingStage(width, 2 * width)
        self.s3 = HalvingStage(2 * width, 4 * width)
        self.fc = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 32, 32) of pixel values 0..255 -> scores (batch, 10)."""
        x = self.s3(self.s2(self.s1(F.relu(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def build(width: int) -> nn.Module:
    """The network with random weights."""
    return he_initialised(TinyResNet(width))


for _name, _width in (("resnet8", 16), ("resnet8_wide", 40)):
    ZOO.register(
        _name,
        ZooEntry(
            name=_name,
            build=partial(build, _width),
            input_size=(3, 32, 32),
            preprocessing=Preprocessing(mean=(0.0,), std=(1 / 255,), size=(32, 32)),
            summary=f"ResNet-8 of MLPerf Tiny for CIFAR-10: {_width}/{2 * _width}/{4 * _width} channels, no batch norm",
            source="Banbury et al., NeurIPS 2021",
        ),
    )
