"""A network with fewer channels between its layers: rows of those that write them, columns of the one that reads them.

All that gets narrower stays a plain layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from polyad.errors import PlanError
from polyad.hidden import Narrowed
from polyad.layers import LayerSpec, is_layer
from polyad.naming import put


@torch.no_grad()
def slim(model: nn.Module, narrowed: Sequence[Narrowed]) -> dict[str, nn.Module]:
    """Leave the channels out, in place, of whatever the layers hold; returns the layers that were there before.

    Raises:
        PlanError: a layer is not there, or has no such channels.
    """
    before: dict[str, nn.Module] = {}
    for one in narrowed:
        kept = torch.tensor(one.kept, dtype=torch.long)
        for name in one.hidden.layers:
            before[name] = _module(model, name, one)
        for name in one.hidden.writers:
            put(model, name, _layer(before[name], rows=kept))
        put(model, one.hidden.reader, _layer(before[one.hidden.reader], columns=kept))
        for name in one.hidden.between:
            old = before[name]
            put(model, name, _norm(old, kept) if isinstance(old, _BatchNorm) else _layer(old, rows=kept))
    return before


@contextmanager
def slimmed(model: nn.Module, narrowed: Sequence[Narrowed]) -> Iterator[None]:
    """Inside, the network is narrower."""
    before = slim(model, narrowed)
    try:
        yield
    finally:
        for name, module in before.items():
            put(model, name, module)


def _module(model: nn.Module, name: str, one: Narrowed) -> nn.Module:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise PlanError(f"The plan narrows {name}, which {type(model).__name__} does not have.") from None
    channels, kept = one.hidden.channels, one.kept
    if not (is_layer(module) or isinstance(module, _BatchNorm)) or channels not in _widths(module):
        raise PlanError(f"The plan narrows {name} from {channels} channels, but here it is {module}.")
    if not kept or not all(a < b for a, b in zip(kept, (*kept[1:], channels), strict=True)) or kept[0] < 0:
        raise PlanError(f"The plan keeps the channels {kept} in front of {one.hidden.reader}: not some of {channels}.")
    return module


def _widths(module: nn.Module) -> tuple[int, ...]:
    if isinstance(module, _BatchNorm):
        return (module.num_features,)
    spec = LayerSpec.of(module)
    return spec.in_features, spec.out_features


def _layer(module: nn.Module, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Module:
    """A layer with some of its outputs, or of its inputs; rows of a depthwise one are both."""
    spec = LayerSpec.of(module)
    weight: Tensor = spec.canonical(module.weight)  # type: ignore[arg-type]
    outputs = spec.out_features if rows is None else len(rows)
    if spec.groups > 1:
        inputs, weight = outputs, weight[rows]
    else:
        inputs = spec.in_features if columns is None else len(columns)
        weight = weight if rows is None else weight[:, rows]
        weight = weight if columns is None else weight[:, :, columns]
    narrower = spec.narrower(outputs, inputs)
    found = narrower.build(weight.dtype, weight.device)
    found.weight = nn.Parameter(narrower.native(weight).contiguous(), module.weight.requires_grad)  # type: ignore[union-attr]
    if module.bias is not None:
        bias: Tensor = module.bias if rows is None else module.bias[rows]  # type: ignore[index, assignment]
        found.bias = nn.Parameter(bias.clone(), module.bias.requires_grad)  # type: ignore[union-attr]
    return found.train(module.training)


def _norm(module: _BatchNorm, kept: Tensor) -> nn.Module:
    options = {"eps": module.eps, "momentum": module.momentum, "affine": module.affine}
    found = type(module)(len(kept), **options, track_running_stats=module.track_running_stats)  # type: ignore[arg-type]
    for name, values in module.named_parameters():
        setattr(found, name, nn.Parameter(values[kept].clone(), values.requires_grad))
    for name, values in module.named_buffers():
        setattr(found, name, values[kept].clone() if values.dim() else values.clone())
    return found.train(module.training)
