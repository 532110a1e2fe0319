"""The reference networks of `polyad.zoo`: architectures only, their weights come from files."""

from torch import nn

from polyad.hubs.base import HUBS, Hub, Inputs
from polyad.zoo.base import ZOO


def build(name: str) -> nn.Module:
    """The architecture with random weights."""
    return ZOO[name].build()


def inputs(name: str, module: nn.Module) -> Inputs:
    """As the entry says."""
    return Inputs(ZOO[name].input_size, ZOO[name].preprocessing)


HUBS.register("zoo", Hub(name="zoo", example="zoo:resnet20", build=build, inputs=inputs))
