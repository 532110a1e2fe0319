"""Run a network again from the block in which something has changed, the blocks before it taken from an earlier run.

A block is a module with few of the layers that may change. In the run that is remembered each block's output is kept;
in a later one the blocks that were run before the changed one return what they returned, and only what lies behind is
computed. Where that is not the same (a module that changes its input in place) the whole network is run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.naming import inside

FEW = 4
"""Layers that may change in one block, at most."""

ELEMENTS = 1 << 27
"""Numbers that are kept, at most (512 MiB of float32); blocks beyond it are computed again."""

Run = Callable[[nn.Module, Batch], Tensor]


class Replay:
    """One network and the outputs of its blocks on the last batch that was remembered.

    Args:
        model: a network of one's own, whose layers may be changed between runs and are back in between.
        names: of the layers that may change.
        run: network and batch -> the outputs.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], run: Run) -> None:
        self.model, self.run = model, run
        blocks = _blocks(model, names)
        self.block_of = {name: next((b for b in blocks if inside(name, b)), "") for name in names}
        self.blocks = {name: model.get_submodule(name) for name in blocks if name}
        self.kept: dict[str, Tensor] = {}
        self.order: list[str] = []
        self.trusted: bool | None = None

    def remember(self, batch: Batch) -> Tensor:
        """Run the whole network as it is, and keep what its blocks return."""
        if self.trusted is None:
            self.trusted = self._is_faithful(batch.take(2))
        return self._remember(batch) if self.trusted else self.run(self.model, batch)

    def again(self, batch: Batch, names: Sequence[str]) -> Tensor:
        """The outputs on the remembered batch, with layers of these names changed since."""
        if not self.trusted:
            return self.run(self.model, batch)
        return self._from(batch, min((self._place(self.block_of[name]) for name in names), default=0))

    def _place(self, block: str) -> int:
        return self.order.index(block) if block in self.order else 0

    def _remember(self, batch: Batch) -> Tensor:
        self.kept, self.order = {}, []
        calls: dict[str, int] = {}

        def hook_for(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                calls[name] = calls.get(name, 0) + 1
                if calls[name] == 1:
                    self.order.append(name)
                    room = ELEMENTS - sum(kept.numel() for kept in self.kept.values())
                    if isinstance(output, Tensor) and output.numel() <= room:
                        self.kept[name] = output.detach().clone()
                else:
                    self.kept.pop(name, None)

            return hook

        handles = [block.register_forward_hook(hook_for(name)) for name, block in self.blocks.items()]
        try:
            return self.run(self.model, batch)
        finally:
            for handle in handles:
                handle.remove()

    def _from(self, batch: Batch, place: int) -> Tensor:
        with _returning({self.blocks[name]: self.kept[name] for name in self.order[:place] if name in self.kept}):
            return self.run(self.model, batch)

    def _is_faithful(self, batch: Batch) -> bool:
        """Whether nothing changes where nothing has changed, from whatever block."""
        expected = self._remember(batch)
        return all(torch.equal(expected, self._from(batch, place)) for place in range(len(self.order)))


@contextmanager
def _returning(outputs: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Inside, modules return given outputs; copies, for what comes behind may work in place."""
    for module, output in outputs.items():
        module.forward = lambda *args, kept=output, **kwargs: kept.clone()
    try:
        yield
    finally:
        for module in outputs:
            del module.forward


def _blocks(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Names of the largest modules with at most `FEW` of the layers, none inside another."""
    found: list[str] = []

    def visit(name: str, module: nn.Module) -> None:
        if sum(inside(layer, name) for layer in names) <= FEW:
            found.append(name)
            return
        for child, inner in module.named_children():
            visit(f"{name}.{child}" if name else child, inner)

    visit("", model)
    return found
