"""MobileNetV2 of width 1.0 for ImageNet: with batch norm, and with batch norm folded into the convolutions.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from polyad.records import Preprocessing
from polyad.zoo.base import IMAGENET_MEAN, IMAGENET_STD, ZOO, SamePad, ZooEntry, he_initialised

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, blocks, stride of the first block."""


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, folded: bool
) -> list[nn.Module]:
    """A convolution with what stands around it: the batch norm, or where it is folded the SAME padding."""
    if not folded:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs)]
    # At stride 1 SAME is symmetric and the convolution does it; at stride 2 it depends on the size of the input.
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=padding, groups=groups)
    return [conv] if stride == 1 else [SamePad(kernel, stride), conv]


def _activated(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, folded: bool
) -> nn.Sequential:
    """Convolution, batch norm if any, ReLU6. A padding is named, so that the convolution keeps the key "0"."""
    steps = [*_convolution(inputs, outputs, kernel, stride=stride, groups=groups, folded=folded), nn.ReLU6()]
    first = [("pad", steps.pop(0))] if isinstance(steps[0], SamePad) else []
    return nn.Sequential(OrderedDict(first + [(str(i), step) for i, step in enumerate(steps)]))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection; added to the input where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int, folded: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        steps: list[nn.Module] = []
        if expansion > 1:
            steps.append(_activated(inputs, hidden, 1, folded=folded))
        steps.append(_activated(hidden, hidden, 3, stride=stride, groups=hidden, folded=folded))
        steps += _convolution(hidden, outputs, 1, folded=folded)
        self.conv = nn.Sequential(*steps)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Keys as in torchvision's `mobilenet_v2`; without the batch norms where they are folded."""

    def __init__(self, *, folded: bool) -> None:
        super().__init__()
        steps: list[nn.Module] = [_activated(3, 32, 3, stride=2, folded=folded)]
        inputs = 32
        for expansion, outputs, blocks, stride in STAGES:
            for i in range(blocks):
                step = stride if i == 0 else 1
                steps.append(InvertedResidual(inputs, outputs, stride=step, expansion=expansion, folded=folded))
                inputs = outputs
        steps.append(_activated(inputs, 1280, 1, folded=folded))
        self.features = nn.Sequential(*steps)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 224, 224) -> scores (batch, 1000)."""
        return self.classifier(self.features(x).mean((2, 3)))


def build(*, folded: bool) -> nn.Module:
    """The network with random weights."""
    return he_initialised(MobileNetV2(folded=folded))


ZOO.register(
    "mobilenet_v2",
    ZooEntry(
        name="mobilenet_v2",
        build=partial(build, folded=False),
        input_size=(3, 224, 224),
        preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, size=(224, 224)),
        summary="MobileNetV2 1.0 for ImageNet, keys as in torchvision",
        source="Sandler et al., CVPR 2018",
    ),
)
ZOO.register(
    "mobilenet_v2_folded",
    ZooEntry(
        name="mobilenet_v2_folded",
        build=partial(build, folded=True),
        input_size=(3, 224, 224),
        preprocessing=Preprocessing(mean=(0.5,), std=(0.5,), size=(224, 224)),
        summary="MobileNetV2 1.0 for ImageNet from TensorFlow: batch norm folded, SAME padding",
        source="Sandler et al., CVPR 2018",
    ),
)
