"""A small convolutional network for the 8x8 handwritten digits of scikit-learn: what `polyad demo` trains."""

import torch
from torch import Tensor, nn

from polyad.records import Preprocessing
from polyad.zoo.base import ZOO, ZooEntry


class DigitsCNN(nn.Module):
    """Four 3x3 convolutions with batch norm, average pooling, one linear layer: (n, 1, 8, 8) -> (n, 10)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, width),
            *_block(width, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            *_block(2 * width, 2 * width),
        )
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(x), 1), 1))


def _block(inp: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inp, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()


ZOO.register(
    "digits_cnn",
    ZooEntry(
        name="digits_cnn",
        build=DigitsCNN,
        input_size=(1, 8, 8),
        preprocessing=Preprocessing(),
        summary="four 3x3 convolutions for the 8x8 digits of scikit-learn; what the demo trains",
        source="this project",
    ),
)
