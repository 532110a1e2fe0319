"""VGG-16 with batch norm for 32x32 images: thirteen 3x3 convolutions and one linear layer.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
"""

from torch import Tensor, nn

from polyad.records import Preprocessing
from polyad.zoo.base import ZOO, ZooEntry, he_initialised

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the convolutions; each stage ends with a 2x2 max pooling."""


class CifarVGG(nn.Module):
    """`features` is one flat sequence of convolution, batch norm, ReLU and pooling, as in the public checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        steps, inputs = [], 3
        for stage in STAGES:
            for outputs in stage:
                steps += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            steps.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*steps)
        self.classifier = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 32, 32) -> scores (batch, 10)."""
        return self.classifier(self.features(x).mean((2, 3)))


def build() -> nn.Module:
    """The network with random weights."""
    return he_initialised(CifarVGG())


ZOO.register(
    "vgg16_bn",
    ZooEntry(
        name="vgg16_bn",
        build=build,
        input_size=(3, 32, 32),
        preprocessing=Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010), size=(32, 32)),
        summary="VGG-16 for CIFAR-10: batch norm, one linear layer",
        source="Simonyan and Zisserman, ICLR 2015",
    ),
)
