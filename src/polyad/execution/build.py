"""Factors -> an `nn.Sequential` that computes what the dense layer with their weight would.

Standard layers wherever they exist; `ModeConv` where a factor meets several channels alike, `TensorLinear` and
`TensorEmbedding` for matrices whose factors do not stand in a row.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from polyad.execution.contraction import ROWS
from polyad.execution.contraction import macs as contraction_macs
from polyad.execution.modules import ModeConv, Reorder, Scale, TensorEmbedding, TensorLinear
from polyad.execution.network import KERNEL, Network
from polyad.execution.order import Step, steps
from polyad.layers import LayerSpec, Size


def build(
    network: Network, layer: LayerSpec, dtype: torch.dtype, device: torch.device | str, *, reorders: bool = False
) -> nn.Sequential:
    """The executable layers of one layer, not yet filled.

    Args:
        network: the factors, `G` among its letters where the layer has groups.
        layer: the layer that they replace (one of a stack).
        reorders: whether the outputs are computed in another order than their own.
    """
    ending = _ending(network, layer, reorders)
    bias = layer.bias and ending is None  # the last module carries it
    if in_a_row(network, layer):
        found = steps(network, layer)
        parts: list[nn.Module] = [_module(network, step, bias and step is found[-1], dtype, device) for step in found]
        if layer.kind == "embedding":
            parts[0] = nn.Embedding(layer.in_features, found[0].layer.out_features, dtype=dtype, device=device)
    else:
        kind = TensorEmbedding if layer.kind == "embedding" else TensorLinear
        parts = [kind(network, bias, dtype, device)]
    if ending is not None:
        sizes, order = ending
        parts.append(Reorder(sizes, order, layer.dims, index=reorders, bias=layer.bias, dtype=dtype, device=device))
    return nn.Sequential(*parts)


@torch.no_grad()
def fill(
    module: nn.Sequential,
    network: Network,
    layer: LayerSpec,
    factors: Sequence[Tensor],
    bias: Tensor | None,
    order: Tensor | None = None,
) -> None:
    """Copy factors (groups or 1, *letters), the bias (out,) and the order of the outputs (out,) into what `build` made.

    Args:
        order: which output each computed channel is, for forms that reorder.
    """
    own = [factor.reshape(network.shape(letters)) for letters, factor in zip(network.factors, factors, strict=True)]
    if in_a_row(network, layer):
        for part, step in zip(module, steps(network, layer), strict=False):  # a Reorder may stand behind them
            weight = _weight(network, step, own[step.factor])
            if isinstance(part, Scale):
                part.weight.copy_(weight.flatten())
            elif isinstance(part, nn.Embedding):
                part.weight.copy_(weight.reshape(part.weight.shape[::-1]).t())
            else:
                part.weight.copy_(step.layer.native(weight))  # type: ignore[operator, union-attr]
    else:
        for parameter, factor in zip(module[0].factors, own, strict=True):  # type: ignore[arg-type]
            parameter.copy_(factor)
    if bias is not None:
        module[-1].bias.copy_(bias)  # type: ignore[operator, union-attr]
    if order is not None:
        module[-1].index.copy_(order.argsort())  # type: ignore[operator, union-attr]


def read(module: nn.Sequential, network: Network, layer: LayerSpec) -> tuple[list[Tensor], Tensor | None]:
    """The factors (*letters) that `fill` put into a module, views of its parameters or differentiable functions of
    them, and the order of the outputs if it has one."""
    if in_a_row(network, layer):
        found: list[Tensor] = [torch.empty(0)] * len(network.factors)
        for part, step in zip(module, steps(network, layer), strict=False):
            found[step.factor] = _factor(network, step, _canonical(part, step))
    else:
        found = list(module[0].factors)  # type: ignore[arg-type]
    index = getattr(module[-1], "index", None)
    return found, None if index is None else index.argsort()


def macs(network: Network, layer: LayerSpec, size: Size) -> int:
    """Multiply-accumulates of one layer for one sample; `size` as in `LayerSpec.macs`."""
    if not in_a_row(network, layer):
        rows = max(prod(size), 1)
        return _contraction_macs(network, layer, rows)
    total = 0
    for at, step in enumerate(steps(network, layer)):
        if not (at == 0 and layer.kind == "embedding"):
            total += step.layer.macs(size) * network.volume(step.spectators)
        size = step.layer.output_size(size)
    return total


def parameter_names(network: Network, layer: LayerSpec) -> list[str]:
    """Of every factor the name of the parameter that holds it in what `build` makes."""
    if not in_a_row(network, layer):
        return [f"0.factors.{at}" for at in range(len(network.factors))]
    names = {}
    for at, step in enumerate(steps(network, layer)):
        wrapped = not step.layer.matrix and not _is_plain(network, step)
        names[step.factor] = f"{at}.layer.weight" if wrapped else f"{at}.weight"
    return [names[at] for at in range(len(network.factors))]


def in_a_row(network: Network, layer: LayerSpec) -> bool:
    """Whether the factors are layers one after another: always for convolutions, for matrices where nothing has to be
    rearranged in between."""
    if not layer.matrix:
        return True
    found = steps(network, layer)
    if layer.kind == "embedding" and network.volume(found[0].wanted) != network.volume(found[0].contracted):
        return False
    return all(_is_plain(network, step) and _is_matrix_or_scale(network, step) for step in found)


def _contraction_macs(network: Network, layer: LayerSpec, rows: int) -> int:
    sizes = ((ROWS, rows), *network.sizes)
    if layer.kind == "linear":
        return contraction_macs((ROWS + network.inputs, *network.factors), ROWS + network.outputs, sizes)
    looked_up = []
    for name in network.factors:
        rest = "".join(letter for letter in name if letter not in network.inputs)
        looked_up.append(ROWS + rest if rest != name else name)
    return contraction_macs(tuple(looked_up), ROWS + network.outputs, sizes)


def _is_plain(network: Network, step: Step) -> bool:
    """Whether the channels arrive in the order in which the layer wants them, and all of them meet the factor."""
    real = [step.before.index(letter) for letter in step.wanted if network.size[letter] > 1]
    return real == sorted(real) and network.volume(step.spectators) == 1


def _is_matrix_or_scale(network: Network, step: Step) -> bool:
    return network.volume(step.batch) == 1 or network.volume(step.contracted + step.new) == 1


def _ending(network: Network, layer: LayerSpec, reorders: bool) -> tuple[Size, list[int]] | None:
    """Sizes and order of the letters behind the last factor, where a `Reorder` has to follow it."""
    if not in_a_row(network, layer):
        return (network.shape(network.outputs), list(range(len(network.outputs)))) if reorders else None
    last = steps(network, layer)[-1]
    sizes, order = network.shape(last.after), [last.after.index(letter) for letter in network.outputs]
    real = [at for at in order if sizes[at] > 1]
    in_order = real == sorted(real)
    carries_bias = _is_plain(network, last) and not (layer.matrix and network.volume(last.batch) > 1)
    return None if in_order and not reorders and (carries_bias or not layer.bias) else (sizes, order)


def _module(network: Network, step: Step, bias: bool, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """One step: the standard layer itself where its channels arrive in order and all of them meet the factor."""
    if step.layer.matrix and network.volume(step.batch) > 1:
        return Scale(network.volume(step.batch), dtype, device)
    layer = step.layer.model_copy(update={"bias": bias}).build(dtype, device)
    if _is_plain(network, step):
        return layer
    order = [step.before.index(letter) for letter in step.wanted]
    return ModeConv(network.shape(step.before), order, len(step.spectators), layer)


def _weight(network: Network, step: Step, factor: Tensor) -> Tensor:
    """The canonical weight (batch, new, contracted, *kernel) of a step."""
    letters = network.factors[step.factor]
    kernel = "".join(letter for letter in KERNEL if letter in letters)
    wanted = step.batch + step.new + step.contracted + kernel
    return factor.permute([letters.index(letter) for letter in wanted]).reshape(step.layer.weight_shape)


def _canonical(part: nn.Module, step: Step) -> Tensor:
    """The canonical weight of a step that is executed."""
    weight: Tensor = part.weight  # type: ignore[operator, assignment, union-attr]
    if isinstance(part, Scale):
        return weight.reshape(step.layer.weight_shape)
    if isinstance(part, nn.Embedding):
        return weight.t().reshape(step.layer.weight_shape)
    return step.layer.canonical(weight)


def _factor(network: Network, step: Step, weight: Tensor) -> Tensor:
    """What `_weight` was made from."""
    letters = network.factors[step.factor]
    kernel = "".join(letter for letter in KERNEL if letter in letters)
    wanted = step.batch + step.new + step.contracted + kernel
    return weight.reshape(network.shape(wanted)).permute([wanted.index(letter) for letter in letters])
