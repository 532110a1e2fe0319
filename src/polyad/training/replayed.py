"""Gradients on a graphics card as one CUDA graph: recorded once, replayed at every step.

A small network has thousands of kernels of a few microseconds each, which a processor cannot start as fast as the card
runs them. A recording has no processor in it: the same kernels on the same memory, into which each batch is copied.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from polyad.batches import Batch

BEFORE = 3
"""Steps taken as they are before one is recorded: libraries set themselves up in them."""

ALIKE = 1e-3
"""Share by which the first replayed loss may differ from that of the same batch without the recording."""

Compute = Callable[[Batch, float], Tensor]
"""A batch, and the share of a step that it is -> its loss, its gradients being added to what is there."""

Kind = tuple[object, ...]
"""What is written into a recording beside the values of tensors."""


class Replayed:
    """A `Compute` that is replayed where it can be.

    Batches of another kind than the recorded one, tensors on a processor, and what cannot be recorded, or gives another
    loss when replayed (a network that counts its calls, say), are computed as they come.

    Args:
        compute: of a batch whose tensors lie where the network does. All that it reads and writes stays in its place.
        gradients: what it adds to.
    """

    def __init__(self, compute: Compute, gradients: Callable[[], list[Tensor]]) -> None:
        self.compute, self.gradients = compute, gradients
        self._seen: Counter[Kind] = Counter()
        self._kind: Kind | None = None
        self._refused = False

    def __call__(self, batch: Batch, share: float) -> Tensor:
        tensors = _tensors(batch)
        if self._refused or not tensors or not all(tensor.is_cuda for tensor in tensors):
            return self.compute(batch, share)
        kind = (share, *map(_told, _leaves(batch)))
        if kind == self._kind:
            return self._replay(tensors)
        self._seen[kind] += 1
        if self._kind is None and self._seen[kind] > BEFORE:
            return self._record(batch, share, kind)
        return self.compute(batch, share)

    def _replay(self, tensors: list[Tensor]) -> Tensor:
        for place, tensor in zip(self._places, tensors, strict=True):
            place.copy_(tensor)
        self._graph.replay()
        return self._loss.clone()

    def _record(self, batch: Batch, share: float, kind: Kind) -> Tensor:
        """Record a step, and see that it does what the step does."""
        before = [gradient.clone() for gradient in self.gradients()]
        held, self._graph = batch.each(torch.clone), torch.cuda.CUDAGraph()
        self._places, stream = _tensors(held), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph):
                self._loss = self.compute(held, share)
            found = self._replay(_tensors(batch))
        except RuntimeError:  # it waits for the card, or does something else that cannot be recorded
            found = None
            torch.cuda.set_stream(stream)  # which a recording that breaks off does not give back
        torch.cuda.synchronize()
        for gradient, value in zip(self.gradients(), before, strict=True):
            gradient.copy_(value)
        loss = self.compute(batch, share)
        if found is not None and torch.allclose(found, loss, rtol=ALIKE):
            self._kind = kind
        else:
            self._refused = True
            del self._graph, self._places  # and the memory that it holds
        return loss


def _leaves(batch: Batch) -> list[object]:
    return tree_leaves((batch.args, batch.kwargs, batch.labels))


def _tensors(batch: Batch) -> list[Tensor]:
    return [leaf for leaf in _leaves(batch) if isinstance(leaf, Tensor)]


def _told(leaf: object) -> object:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else repr(leaf)
