"""Frozen batch norms as part of the layers in front of them, while they are trained.

In evaluation mode a batch norm multiplies each channel by s = gamma / sqrt(var + eps) and adds beta - mean s. Put into
the weight and the bias of the layer in front of it, that is the same function of the same parameters, and
the activations are gone through once less in each direction.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from polyad.layers import LayerSpec
from polyad.records import Choice
from polyad.training.contracted import Dense

Tensors = Callable[[], tuple[Tensor, Tensor | None]]
"""The weight and the bias that a layer has in this step."""


@contextmanager
def folded(student: nn.Module, choices: Sequence[Choice]) -> Iterator[None]:
    """Inside, batch norms that alone consume the output of a convolution are computed by it.

    Args:
        student: its batch norms in evaluation mode; layers may have been contracted.
        choices: of its layers, those that stayed dense among them; what cannot take a batch norm up is left as it is.
    """
    before: list[tuple[nn.Module, object]] = []
    for choice in choices:
        layer = None if choice.site.norm_behind is None else _layer(student, choice)
        if layer is not None:
            norm = student.get_submodule(choice.site.norm_behind or "")
            found = vars(layer).get("forward")
            tensors, spec = (found.tensors, found.layer) if isinstance(found, Dense) else _own(layer)
            before += [(layer, found), (norm, None)]
            layer.forward = _Folded(tensors, spec, norm)  # type: ignore[method-assign, assignment]
            norm.forward = _as_it_is  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for module, forward in before:
            if forward is None:
                del module.forward
            else:
                module.forward = forward  # type: ignore[method-assign, assignment]


class _Folded:
    """What stands in for the forward of a convolution with a batch norm behind it."""

    def __init__(self, tensors: Tensors, layer: LayerSpec, norm: nn.Module) -> None:
        self.tensors, self.norm = tensors, norm
        self.axes = (-1, *(1,) * (layer.dims + 1))
        self.skeleton = layer.model_copy(update={"bias": True}).build(torch.float32, "meta")

    def __call__(self, x: Tensor) -> Tensor:
        norm, (weight, bias) = self.norm, self.tensors()
        scale = (norm.running_var + norm.eps).rsqrt()  # type: ignore[operator]
        scale = scale if norm.weight is None else scale * norm.weight  # type: ignore[operator]
        mean = norm.running_mean if bias is None else norm.running_mean - bias  # type: ignore[operator]
        shift = -mean * scale if norm.bias is None else norm.bias - mean * scale  # type: ignore[operator]
        return functional_call(self.skeleton, {"weight": weight * scale.view(self.axes), "bias": shift}, (x,))


def _layer(student: nn.Module, choice: Choice) -> nn.Module | None:
    """The convolution whose outputs a batch norm takes: contracted, the last one of several, or a dense one."""
    site = choice.site
    if site.members or site.calls != 1 or site.layer.kind != "conv":
        return None
    module = student.get_submodule(site.name)
    if not isinstance(vars(module).get("forward"), Dense) and isinstance(module, nn.Sequential):
        module = module[-1]
    return module if isinstance(module, (nn.Sequential, nn.Conv1d, nn.Conv2d, nn.Conv3d)) else None


def _own(layer: nn.Module) -> tuple[Tensors, LayerSpec]:
    return lambda: (layer.weight, layer.bias), LayerSpec.of(layer)  # type: ignore[return-value]


def _as_it_is(x: Tensor) -> Tensor:
    return x
