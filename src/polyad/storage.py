"""What a network takes on disk: every tensor of its state dict once, in its own type."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def owners(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name of a state dict the first name of the same tensor, which alone is written."""
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    found = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        found[name] = first.setdefault(key, name) if tensor.numel() else name
    return found


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the tensors that `polyad.save` writes; its file has a header of names and shapes in front of them."""
    state = model.state_dict()
    return sum(state[name].nbytes for name in set(owners(state).values()))


def itemsize(dtype: str) -> int:
    """Bytes of one element of a type such as "float32"."""
    return getattr(torch, dtype).itemsize
