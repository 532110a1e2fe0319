"""Factorised layers as the one dense layer that they equal, while they are trained.

The dense weight is put together from the factors in every step, so that gradients flow back to the factors: the same
function and the same descent, with one convolution in place of three or four. That needs more multiply-accumulates and
less moving of activations, which is what many-channelled intermediate images in small layers cost on a CPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call

from polyad.decompositions.base import FORMS
from polyad.execution.order import steps
from polyad.layers import LayerSpec, Size
from polyad.records import Choice

MOVED = 25
"""Multiply-accumulates that take as long as moving one element of an activation, forwards and backwards, as measured
on one core with channels last: 3x3 layers of ResNet-20 by CP, where the dense layer wins on 16 channels (20 to 38 ms
for 128 images) and loses on 32 (19 to 15) and on 64 (17 to 7)."""


@contextmanager
def contracted(student: nn.Module, choices: Sequence[Choice]) -> Iterator[None]:
    """Inside, the layers of some choices run as dense ones; their parameters stay where they are.

    Args:
        student: with the factorised layers.
        choices: those to run so, none of them dense.
    """
    changed = [(module, choice) for choice in choices for module in _modules(student, choice)]
    for module, choice in changed:
        module.forward = Dense(module, choice)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for module, _ in changed:
            del module.forward


def worth_contracting(choices: Sequence[Choice]) -> list[Choice]:
    """The layers that are quicker as dense ones, by multiply-accumulates and by the elements that are moved."""
    return [choice for choice in able(choices) if _dense_cost(choice) < _cost(choice)]


def able(choices: Sequence[Choice]) -> list[Choice]:
    """The layers that can run so: convolutions; matrices choose their order of contraction themselves."""
    return [choice for choice in choices if not choice.dense and not choice.site.layer.matrix]


class Dense:
    """What stands in for the forward of one factorised layer."""

    def __init__(self, module: nn.Sequential, choice: Choice) -> None:
        self.module, self.form, self.rank = module, FORMS[choice.form], choice.rank
        self.layer = choice.site.layer.member
        tensor = next(module.parameters())
        self.device, self.skeleton = tensor.device.type, self.layer.build(tensor.dtype, "meta")

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """The weight that the factors make, and the bias."""
        with torch.autocast(self.device, enabled=False):  # terms that cancel need all their digits
            factors = self.form.live(self.module, self.layer, self.rank)
            weight = self.form.reconstruct(factors).reshape(self.layer.weight_shape)
        return self.layer.native(weight), self.module[-1].bias if self.layer.bias else None  # type: ignore[return-value]

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.tensors()
        return functional_call(self.skeleton, {"weight": weight} | ({} if bias is None else {"bias": bias}), (x,))


def _modules(student: nn.Module, choice: Choice) -> list[nn.Sequential]:
    return [student.get_submodule(name) for name in choice.site.modules]  # type: ignore[misc]


def _dense_cost(choice: Choice) -> float:
    layer = choice.site.layer.member
    return sum(run.times * _layer_cost(layer, run.size) for run in choice.site.runs)


def _cost(choice: Choice) -> float:
    """Of the factors, one step after another."""
    layer = choice.site.layer.member
    network, total = FORMS[choice.form].network(layer, choice.rank), 0.0
    for run in choice.site.runs:
        size = run.size
        for step in steps(network, layer):
            total += run.times * network.volume(step.spectators) * _layer_cost(step.layer, size)
            size = step.layer.output_size(size)
    return total


def _layer_cost(layer: LayerSpec, size: Size) -> float:
    """Of one sample."""
    moved = layer.in_features * prod(size) + layer.out_features * prod(layer.output_size(size))
    return layer.macs(size) + MOVED * moved
