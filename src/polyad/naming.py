"""Put a module or parameter under a dotted name."""

from torch import nn


def put(model: nn.Module, name: str, value: nn.Module | nn.Parameter) -> None:
    """`model.<name> = value`; the order of the sub-modules stays."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, value)
