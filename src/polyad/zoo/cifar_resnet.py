"""The ResNets of the 2015 paper for 32x32 images: three stages of 16, 32 and 64 channels, shortcuts without parameters.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from polyad.records import Preprocessing
from polyad.zoo.base import IMAGENET_MEAN, IMAGENET_STD, ZOO, ZooEntry, he_initialised


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: every `stride`-th pixel, new channels zero (option A of the paper)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.before + self.after:
            x = F.pad(x, (0, 0, 0, 0, self.before, self.after))
        return x


class CifarResNet(nn.Module):
    """ResNet-(6n+2).

    Args:
        blocks: n, the number of residual blocks in each stage.
        width: channels of the first stage.
    """

    def __init__(self, blocks: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, stride=1)
        self.layer2 = _stage(blocks, width, 2 * width, stride=2)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, stride=2)
        self.linear = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 32, 32) -> scores (batch, 10)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(blocks: int, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def build(depth: int) -> nn.Module:
    """The network with `depth` = 6n+2 weighted layers."""
    return he_initialised(CifarResNet((depth - 2) // 6))


for _depth in (20, 32, 44, 56, 110):
    ZOO.register(
        f"resnet{_depth}",
        ZooEntry(
            name=f"resnet{_depth}",
            build=partial(build, _depth),
            input_size=(3, 32, 32),
            preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, size=(32, 32)),
            summary=f"ResNet-{_depth} for CIFAR-10: 16/32/64 channels, shortcuts without parameters",
            source="He et al., CVPR 2016",
        ),
    )
