"""Which channels lie between layers of a network so that they can be left out, as runs with marked channels show.

Some channels of a layer's output become NaN, which nothing that is computed from them can lose. Where these channels,
each by itself, arrive at one layer without groups and the network's outputs are finite again once that layer is given
zeros instead, nothing else sees them: the layer reads them. Depthwise convolutions and batch norms may stand between,
and whatever has no tensors of its own. A narrower copy has to give the outputs of the network whose reader is blind to
the same channels; so nothing rests on what was not seen.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from polyad.batches import Batch, run_on
from polyad.errors import PolyadError
from polyad.hidden import Hidden, Narrowed
from polyad.modes import evaluating
from polyad.outputs import outputs_tensor
from polyad.records import Site
from polyad.slim import slimmed
from polyad.storage import itemsize

MARKS = (0, 1, 2)
"""Seeds of the halves that are marked, one run each: a permutation of the channels may leave one half in its place."""

TOLERANCE = 1e-4
"""By so much, relative to their norm, the outputs of the narrower copy may differ."""


def hidden_in(model: nn.Module, sites: Sequence[Site], example: Batch) -> tuple[Hidden, ...]:
    """All of them, by reader.

    Args:
        model: only read; its layers are put back as they were.
        sites: layers that may be replaced.
        example: one sample or more.
    """
    able = {site.name: site for site in sites if _is_plain(model, site)}
    read: dict[str, list[_Run]] = {}
    with torch.no_grad(), evaluating(model):
        for site in able.values():
            found = _read_by(model, site, able, example)
            if found is not None:
                read.setdefault(found.reader, []).append(found)
        return tuple(
            hidden for runs in read.values() if _holds(model, hidden := _together(model, able, runs), able, example)
        )


@dataclass
class _Run:
    """What one run with marked channels shows.

    Attributes:
        writer: whose channels are marked.
        marked: (channels,) which of them.
        readers, between: what marked channels came to.
        spread: whether anything else saw them.
    """

    writer: str
    marked: Tensor
    readers: Counter[str] = field(default_factory=Counter)
    between: Counter[str] = field(default_factory=Counter)
    spread: bool = False

    @property
    def reader(self) -> str:
        return next(iter(self.readers))

    @property
    def clear(self) -> bool:
        once = all(times == 1 for times in (*self.readers.values(), *self.between.values()))
        return not self.spread and once and len(self.readers) == 1


def _is_plain(model: nn.Module, site: Site) -> bool:
    """Whether a layer may get narrower: an ordinary layer that runs once, without groups or depthwise."""
    layer, module = site.layer, model.get_submodule(site.name)
    known = type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    groups = layer.groups == 1 or layer.groups == layer.in_features == layer.out_features
    return known and groups and site.calls == 1 and not site.aliases and not site.members


def _read_by(model: nn.Module, site: Site, able: Mapping[str, Site], example: Batch) -> _Run | None:
    """The reader of a layer's outputs, and what they pass; None where it has none."""
    channels = site.layer.out_features
    if site.layer.groups > 1 or channels < 2:
        return None
    found = None
    for seed in MARKS:
        found = _marked_run(model, site, _half(channels, seed), able, example)
        if found is None or not found.clear:
            return None
    return found


def _half(channels: int, seed: int) -> Tensor:
    """Half of the channels at random: a regular half would miss whatever treats blocks of channels alike."""
    half = torch.zeros(channels, dtype=torch.bool)
    half[torch.randperm(channels, generator=torch.Generator().manual_seed(seed))[: channels // 2]] = True
    return half


def _outputs(model: nn.Module, example: Batch) -> list[Tensor]:
    """All tensors of numbers that the network gives."""
    result = run_on(model, example, "the example input")
    leaves = [outputs_tensor(result), *tree_leaves(result)]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _marked_run(model: nn.Module, site: Site, marked: Tensor, able: Mapping[str, Site], example: Batch) -> _Run | None:
    run, axis = _Run(site.name, marked), -1 - site.layer.dims

    def mark(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.movedim(axis, -1).masked_fill(marked.to(output.device), torch.nan).movedim(-1, axis)

    handles = [model.get_submodule(site.name).register_forward_hook(mark)]
    for name, module in model.named_modules():
        if name != site.name and (module._parameters or module._buffers):
            handles.append(module.register_forward_pre_hook(_watch(run, name, module, able), with_kwargs=True))
    try:
        outputs = _outputs(model, example)
    except PolyadError:
        return None
    finally:
        for handle in handles:
            handle.remove()
    return run if all(output.isfinite().all() for output in outputs) else None


def _watch(run: _Run, name: str, module: nn.Module, able: Mapping[str, Site]) -> Callable[..., Any]:
    """Notes that marked channels have come to a module; a reader goes on with zeros."""

    def hook(module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        touched = [leaf for leaf in leaves if leaf.isnan().any()]
        if not touched:
            return None
        axis = _axis(name, module, able, run.marked)
        if axis is None or len(args) != 1 or args[0] is not touched[0] or not _only(args[0], axis, run.marked):
            run.spread = True
            return None
        if isinstance(module, _BatchNorm) or able[name].layer.groups > 1:
            run.between[name] += 1
            return None
        run.readers[name] += 1
        return (args[0].nan_to_num(0.0),), kwargs

    return hook


def _axis(name: str, module: nn.Module, able: Mapping[str, Site], marked: Tensor) -> int | None:
    """Of the channels in what a reader sees, or a module that passes each by itself; None for any other."""
    if isinstance(module, _BatchNorm):
        return 1 if module.num_features == len(marked) else None
    site = able.get(name)
    return None if site is None or site.layer.in_features != len(marked) else -1 - site.layer.dims


def _only(x: Tensor, axis: int, marked: Tensor) -> bool:
    """Whether the marked channels, and no others, hold NaN."""
    if x.dim() < abs(axis):
        return False
    holds = x.isnan().movedim(axis, -1).flatten(0, -2).any(0)
    return torch.equal(holds.cpu(), marked)


def _together(model: nn.Module, able: Mapping[str, Site], runs: Sequence[_Run]) -> Hidden:
    between = tuple(dict.fromkeys(name for run in runs for name in run.between))
    norms = [model.get_submodule(name) for name in between if name not in able]
    tensors = [tensor for norm in norms for tensor in (*norm.parameters(), *norm.buffers()) if tensor.dim()]
    return Hidden(
        reader=runs[0].reader,
        writers=tuple(run.writer for run in runs),
        between=between,
        channels=len(runs[0].marked),
        params=sum(len(list(norm.parameters())) for norm in norms),
        bytes=sum(itemsize(str(tensor.dtype).removeprefix("torch.")) for tensor in tensors),
    )


def _holds(model: nn.Module, hidden: Hidden, able: Mapping[str, Site], example: Batch) -> bool:
    """Whether a narrower network gives what the network does whose reader is blind to the same channels."""
    reader, axis = model.get_submodule(hidden.reader), -1 - able[hidden.reader].layer.dims
    blind = _half(hidden.channels, len(MARKS))
    kept = tuple((~blind).nonzero().flatten().tolist())

    def hide(module: nn.Module, args: tuple) -> tuple:
        return (args[0].movedim(axis, -1).masked_fill(blind.to(args[0].device), 0.0).movedim(-1, axis),)

    handle = reader.register_forward_pre_hook(hide)
    try:
        wanted = _outputs(model, example)
    finally:
        handle.remove()
    try:
        with slimmed(model, [Narrowed(hidden=hidden, kept=kept)]):
            found = _outputs(model, example)
    except PolyadError:
        return False  # something in between counts the channels
    return all(
        one.shape == other.shape and bool((one - other).norm() <= TOLERANCE * other.norm())
        for one, other in zip(found, wanted, strict=True)
    )
