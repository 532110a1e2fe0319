"""From what the statistics of a layer come, as a hash: the network, the data, and what the layer sees."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from polyad.batches import Batch, run_on
from polyad.digests import digest
from polyad.modes import evaluating
from polyad.records import Site
from polyad.splits import Call
from polyad.work import key_of

SAMPLES = 2
"""Samples on which the network is run."""


def fingerprints(
    model: nn.Module, sites: Sequence[Site], fitted: Sequence[Batch | Call], held_out: Sequence[Batch]
) -> dict[str, str] | None:
    """For every site the name under which its statistics are kept; None where the data is a function.

    Tensors alone do not tell a network whose code has changed, so what the layers see on the first samples counts too.
    """
    batches = [batch for batch in fitted if isinstance(batch, Batch)]
    if len(batches) < len(fitted):
        return None
    tensors = digest(dict(chain(model.named_parameters(), model.named_buffers())))
    data = tuple(tuple(map(hash_of, part)) for part in (batches, held_out))
    names = [name for site in sites for name in site.modules]
    seen, output = _seen(model, names, batches[0].take(SAMPLES))
    return {
        site.name: key_of(
            "statistics", tensors, data, site.layer.model_dump_json(), [seen.get(name) for name in site.modules], output
        )
        for site in sites
    }


def _seen(model: nn.Module, names: Sequence[str], batch: Batch) -> tuple[dict[str, list[str]], str]:
    """Hashes of the inputs that each module gets on a batch, and of what the network returns."""
    seen: dict[str, list[str]] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            seen.setdefault(name, []).append(hash_of((args, kwargs)))

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(hook_for(name), with_kwargs=True) for name in names]
    try:
        with torch.no_grad(), evaluating(model):
            return seen, hash_of(run_on(model, batch, "a calibration batch"))
    finally:
        for handle in handles:
            handle.remove()


def hash_of(value: Any) -> str:
    """Of a batch, or of tensors and plain values nested in any way."""
    if isinstance(value, Batch):
        value = (value.args, value.kwargs, value.labels)
    leaves, structure = tree_flatten(value)
    tensors = {str(at): leaf for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    others = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    return key_of("values", digest(tensors), str(structure), others)
