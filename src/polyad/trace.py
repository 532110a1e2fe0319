"""Stage 1: which layers of a network can be replaced, what they cost, and which are refused and why."""

import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from polyad.batch_norms import is_norm
from polyad.batches import Batch, run_on
from polyad.errors import ModelError, NumericalError
from polyad.layers import LAYER_TYPES, LayerSpec, Size, conv1d_class, is_conv1d, is_layer
from polyad.modes import evaluating, layer_by_layer
from polyad.opaque import read_from_outside
from polyad.records import Refusal, Run, Site, Trace
from polyad.splits import Call
from polyad.storage import saved_bytes

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass
class _Seen:
    """What one forward pass shows of one module."""

    runs: Counter[Size] = field(default_factory=Counter)
    norms: set[str] = field(default_factory=set)
    standard: bool = True


def trace(model: nn.Module, example: Batch | Call) -> Trace:
    """Run the network once on an example and list its linear, embedding and convolution layers.

    Args:
        model: any network; it is not changed.
        example: a batch of one or more samples that the network accepts.

    Returns:
        Every Linear, Embedding, Conv1d/2d/3d, ConvTranspose1d/2d/3d and Conv1D of transformers, as a site or refused
        with the reason.

    Raises:
        NumericalError: a weight holds NaN or infinity; the layer is named.
        ModelError: the network has no such layer at all.
    """
    names = _names(model)
    layers = {id(module): module for module in model.modules() if is_layer(module)}
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has nothing to compress: it holds no nn.Linear, nn.Embedding, nn.Conv*d or"
            " nn.ConvTranspose*d."
        )
    for key, module in layers.items():
        _check_finite(names[key][0], module)
    hooked = {key for key, module in layers.items() if module._forward_hooks or module._forward_pre_hooks}
    seen = _watch(model, layers, names, example)
    owners = _owners(model)
    reasons = {key: _reason(module, seen[key], owners) for key, module in layers.items()}
    reasons |= dict.fromkeys(hooked, "it carries hooks, which a replacement would drop")
    if id(model) in layers:
        reasons[id(model)] = "it is the whole network: wrap it in nn.Sequential"
    free = [names[key] for key, reason in reasons.items() if reason is None]
    reasons |= _read_reasons(read_from_outside(model, free, example), names)
    return Trace(
        sites=tuple(_site(m, names[key], seen[key]) for key, m in layers.items() if reasons[key] is None),
        refused=tuple(_refusal(m, names[key][0], seen[key], why) for key, m in layers.items() if (why := reasons[key])),
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=sum(_macs(LayerSpec.of(module), seen[key]) for key, module in layers.items()),
        bytes=saved_bytes(model),
    )


def _site(module: nn.Module, names: list[str], seen: _Seen) -> Site:
    return Site(
        name=names[0],
        aliases=tuple(names[1:]),
        layer=LayerSpec.of(module),
        dtype=str(module.weight.dtype).removeprefix("torch."),
        runs=tuple(Run(size=size, times=times) for size, times in seen.runs.items()),
        norm_behind=next(iter(seen.norms)) if len(seen.norms) == 1 and sum(seen.runs.values()) == 1 else None,
    )


def _refusal(module: nn.Module, name: str, seen: _Seen, reason: str) -> Refusal:
    spec = LayerSpec.of(module)
    return Refusal(name=name, label=spec.label, params=spec.params, macs=_macs(spec, seen), reason=reason)


def _macs(spec: LayerSpec, seen: _Seen) -> int:
    return sum(times * spec.macs(size) for size, times in seen.runs.items())


def _read_reasons(failures: dict[str, str], names: dict[int, list[str]]) -> dict[int, str]:
    return {
        key: f"other code reads its attributes, which a replacement does not have ({failures[found[0]]})"
        for key, found in names.items()
        if found[0] in failures
    }


def _names(model: nn.Module) -> dict[int, list[str]]:
    """All names of each module object, in registration order."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        names[id(module)].append(name)
    return names


def _owners(model: nn.Module) -> dict[int, set[str]]:
    """For each parameter storage the modules that hold it, by full parameter name."""
    owners: dict[int, set[str]] = defaultdict(set)
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners[parameter.data_ptr()].add(f"{module_name}.{name}".lstrip("."))
    return owners


def _watch(
    model: nn.Module, layers: dict[int, nn.Module], names: dict[int, list[str]], example: Batch | Call
) -> dict[int, _Seen]:
    """Run the example through with hooks on the layers and on the batch norms that may stand behind them."""
    seen: dict[int, _Seen] = defaultdict(_Seen)
    produced: dict[int, tuple[int, weakref.ref[Tensor], int]] = {}
    norm_calls: Counter[int] = Counter()

    def layer_hook(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        x = args[0] if args else kwargs["input"]
        found = seen[id(module)]
        size, times = _positions(module, x, example.size)
        found.runs[size] += times
        found.standard &= _is_standard(module, x, output)
        produced[id(output)] = (id(module), weakref.ref(output), output._version)

    def norm_hook(module: nn.Module, args: tuple) -> None:
        norm_calls[id(module)] += 1
        owner, alive, version = produced.get(id(args[0]), (0, lambda: None, 0))
        # Only an untouched output counts: after an in-place operation the same tensor is something else.
        if alive() is args[0] and args[0]._version == version:
            seen[owner].norms.add(names[id(module)][0])

    handles = [module.register_forward_hook(layer_hook, with_kwargs=True) for module in layers.values()]
    norms = [module for module in model.modules() if is_norm(module)]
    handles += [module.register_forward_pre_hook(norm_hook) for module in norms]
    try:
        with torch.no_grad(), evaluating(model), layer_by_layer():
            run_on(model, example, "the example input")
    finally:
        for handle in handles:
            handle.remove()
    shared = {names[id(module)][0] for module in norms if norm_calls[id(module)] != 1}
    for found in seen.values():
        found.norms -= shared
    return seen


def _positions(module: nn.Module, x: Tensor, samples: int) -> tuple[Size, int]:
    """Spatial size of one input and how many such inputs one sample makes."""
    if isinstance(module, nn.Embedding):
        return (max(1, x.numel() // samples),), 1
    if isinstance(module, nn.Linear) or is_conv1d(module):
        return (max(1, prod(x.shape[:-1]) // samples),), 1
    dims = len(module.kernel_size)  # type: ignore[arg-type]
    batch = x.shape[0] if x.dim() == dims + 2 else 1
    return tuple(x.shape[-dims:]), max(1, batch // samples)


def _is_standard(module: nn.Module, x: Tensor, output: Tensor) -> bool:
    """Whether the forward of a subclass does what the standard layer does with the same input."""
    base = conv1d_class(module) or next(kind for kind in LAYER_TYPES if isinstance(module, kind))
    if type(module) is base:
        return True
    try:
        expected = base.forward(module, x)  # type: ignore[arg-type]
    except (RuntimeError, TypeError):
        return False
    return expected.shape == output.shape and torch.allclose(expected, output, rtol=1e-5, atol=1e-6)


def _reason(module: nn.Module, seen: _Seen, owners: dict[int, set[str]]) -> str | None:
    """Why the layer cannot be a site, or None."""
    weight = module._parameters.get("weight")
    if weight is None or is_parametrized(module):
        return "its weight is computed from other tensors (a parametrization): remove it first"
    if weight.dtype not in FLOATING:
        return f"its weight is {weight.dtype}, not a floating-point type"
    if getattr(module, "max_norm", None) is not None:
        return "it renormalises its rows while it runs (max_norm)"
    if len(holders := owners[weight.data_ptr()]) > 1:
        return f"its weight is tied: {' and '.join(sorted(holders))} are one tensor"
    if not seen.runs:
        return "the example input never runs it: it is unused, or its parent reads its weight directly"
    if not seen.standard:
        return f"its forward is not that of {LayerSpec.of(module).label}"
    return None


def _check_finite(name: str, module: nn.Module) -> None:
    for kind, parameter in module.named_parameters(recurse=False):
        if not torch.isfinite(parameter).all():
            raise NumericalError(f"The {kind} of {name} holds NaN or infinity; compress a network with finite weights.")
