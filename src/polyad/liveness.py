"""Peak memory of activations: which tensors live at the same time, operation by operation.

The operations of one forward pass are recorded as PyTorch carries them out. A storage lives from the operation that
makes it to the last one that reads or writes it, outputs of the network to the end, inputs of the network all the
time (the caller holds them); views and in-place results are the storage that they lie in. Parameters and buffers do
not count, nor what a kernel takes for itself while it runs. So it is the memory that a runtime needs which frees each
tensor behind its last use, as those of exported graphs do; Python may hold some longer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from polyad.modes import evaluating, layer_by_layer


@dataclass(frozen=True)
class Window:
    """The operations of one call of a layer, and the tensor that went in.

    Attributes:
        start, stop: the first operation, and the one behind the last.
        source: storage of the input; `shape`, `stride`, `dtype` are those of the input in it.
    """

    start: int
    stop: int
    source: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Record:
    """What a forward pass did.

    Attributes:
        operations: the storages that each one reads, writes or makes.
        sizes: bytes of each storage, 0 of parameters and buffers.
        inputs, outputs: storages that live all the time, and to the end.
        windows: name of a watched module -> its calls.
    """

    operations: list[set[int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    inputs: set[int] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    windows: dict[str, list[Window]] = field(default_factory=dict)

    def lives(self) -> dict[int, tuple[int, int]]:
        """First and last operation of every storage that is used."""
        found: dict[int, tuple[int, int]] = {}
        for at, used in enumerate(self.operations):
            for storage in used:
                found[storage] = (found[storage][0] if storage in found else at, at)
        end = len(self.operations) - 1
        found |= {storage: (found[storage][0], end) for storage in self.outputs if storage in found}
        return found | dict.fromkeys(self.inputs, (0, end))

    def alive(self) -> list[int]:
        """Bytes that live during each operation."""
        change = [0] * (len(self.operations) + 1)
        for storage, (first, last) in self.lives().items():
            change[first] += self.sizes[storage]
            change[last + 1] -= self.sizes[storage]
        found, now = [], 0
        for step in change[:-1]:
            now += step
            found.append(now)
        return found


class _Recorder(TorchDispatchMode):
    """Writes down which storages every operation touches; it keeps them, so that none takes the place of another."""

    def __init__(self, constants: Iterable[Tensor]) -> None:
        super().__init__()
        self.record = Record()
        self._known: dict[int, int] = {}
        self._kept: list[Any] = []
        for tensor in constants:
            self.record.sizes[self.storage(tensor)] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_iter((args, kwargs, found)) if isinstance(leaf, Tensor)]
        self.record.operations.append({self.storage(tensor) for tensor in tensors})
        return found

    def storage(self, tensor: Tensor) -> int:
        """Number of the storage in which a tensor lies."""
        held = tensor.untyped_storage()
        if held._cdata not in self._known:
            self._known[held._cdata] = len(self.record.sizes)
            self._kept.append(held)
            self.record.sizes.append(held.nbytes())
        return self._known[held._cdata]


def recorded(model: nn.Module, run: Any, inputs: Iterable[Tensor], watched: Mapping[str, nn.Module]) -> Record:
    """Record one forward pass.

    Args:
        model: in whatever mode; it runs in evaluation mode.
        run: a function of the model.
        inputs: the tensors that go into it.
        watched: modules whose calls are noted.
    """
    recorder, handles = _Recorder((*model.parameters(), *model.buffers())), []
    record, begun = recorder.record, {}
    record.inputs = {recorder.storage(tensor) for tensor in inputs}

    def before(name: str, args: tuple, kwargs: dict) -> None:
        begun[name] = (len(record.operations), (*args, *kwargs.values())[0])

    def after(name: str) -> None:
        start, x = begun.pop(name)
        there = recorder.storage(x)
        window = Window(start, len(record.operations), there, tuple(x.shape), x.stride(), x.dtype)
        record.windows.setdefault(name, []).append(window)

    for name, module in watched.items():
        handles.append(
            module.register_forward_pre_hook(lambda _, *given, name=name: before(name, *given), with_kwargs=True)
        )
        handles.append(module.register_forward_hook(lambda *_, name=name: after(name)))
    try:
        with evaluating(model), layer_by_layer(), torch.no_grad(), recorder:
            found = run(model)
    finally:
        for handle in handles:
            handle.remove()
    record.outputs = {recorder.storage(leaf) for leaf in tree_iter(found) if isinstance(leaf, Tensor)}
    return record


def peak_of_layer(module: nn.Module, window: Window, *, input_bytes: int, input_stays: bool) -> int:
    """Bytes that live at most while a layer on the meta device runs on the input of a window.

    Args:
        module: on the meta device.
        window: a call of the layer in whose place it stands.
        input_bytes: of the storage of the input.
        input_stays: whether somebody reads the input later.
    """
    x = torch.empty_strided(window.shape, window.stride, dtype=window.dtype, device="meta")
    record = recorded(module, lambda layer: layer(x), [x], {})
    (there,) = record.inputs
    record.sizes[there] = input_bytes
    if not input_stays:
        record.inputs = set()
    return max(record.alive(), default=0)
