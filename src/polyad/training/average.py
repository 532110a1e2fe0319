"""The exponential moving average of a network's tensors over the steps of a training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from polyad.training import lists


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a network by name, the ones themselves: parameters, and buffers that are saved or not."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of a network."""
    own = tensors_of(model)
    for name, value in tensors.items():
        own[name].copy_(value)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}


class Average:
    """mean <- d mean + (1 - d) tensor, with d = min(decay, (1 + steps) / (10 + steps)), so that the start is forgotten
    early; what is not floating-point is copied.

    Args:
        model: whose tensors are averaged.
        decay: d in the long run; 0 takes the tensors as they are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.mean = copied(model)

    def begin_again(self) -> None:
        """From the tensors as they are now."""
        self.mean, self.steps = copied(self.model), 0

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        own = tensors_of(self.model)
        floating = [name for name, tensor in own.items() if tensor.is_floating_point()]
        lists.lerp_([self.mean[name] for name in floating], [own[name] for name in floating], weight)
        for name in own.keys() - set(floating):
            self.mean[name].copy_(own[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the network has the averages."""
        own = copied(self.model)
        put(self.model, self.mean)
        try:
            yield
        finally:
            put(self.model, own)
