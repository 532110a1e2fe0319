"""Two networks that run over the same batches side by side: what goes into each block of the student, and what the same
block of the original gives.

As in `lockstep`, every run is a thread of its own that stops at each block, so that a block which is trained there is
what the rest of the run already sees, and all blocks need a single pass of both networks.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from polyad.batches import Batch, run_on
from polyad.digests import digest
from polyad.errors import ModelError
from polyad.modes import evaluating
from polyad.outputs import outputs_tensor
from polyad.paused import Paused
from polyad.training.blocks import Block, Chain


@dataclass(frozen=True, repr=False, eq=False)
class Common:
    """An input that all samples share, such as a mask: no tensor to whatever takes samples apart or joins them."""

    tensor: Tensor

    def __repr__(self) -> str:
        return f"Common({digest({'': self.tensor})})"


@dataclass(frozen=True)
class Passage:
    """Both networks at one block.

    Attributes:
        block: which.
        batches: inputs of the block in the student, batch by batch; as labels what the original's block gives.
    """

    block: Block
    batches: Sequence[Batch]


def passages(
    teacher: nn.Module, student: nn.Module, blocks: Sequence[Block], batches: Sequence[Batch]
) -> Generator[Passage, None, None]:
    """All blocks in the order in which they run.

    Args:
        teacher: only read.
        student: its blocks may be given other tensors in between.
        blocks: those that `alone` does not refuse.
        batches: all of them are under way at the same time.

    Raises:
        ModelError: the two networks come to their blocks in different orders.
        DataError: a network refuses a batch.
    """
    runs: dict[int | None, Paused] = {}

    def met(block: Block, found: Batch | Any) -> None:
        if (paused := runs.get(get_ident())) is not None:  # else somebody trains the block meanwhile
            paused.pause((block, found))

    def start(model: nn.Module, batch: Batch) -> Paused:
        paused = Paused(lambda: run_on(model, batch, "a batch to train on"))
        runs[paused.ident] = paused
        return paused

    with watched(blocks, student, met, teacher, met), evaluating(teacher), evaluating(student):
        try:
            pairs = [(start(teacher, batch), start(student, batch)) for batch in batches]
            while (passage := _next(pairs)) is not None:
                yield passage
        finally:
            for paused in runs.values():
                paused.close()


@contextmanager
def watched(
    blocks: Sequence[Block],
    starting: nn.Module,
    at_start: Callable[[Block, Batch], None],
    ending: nn.Module,
    at_end: Callable[[Block, Any], None],
) -> Iterator[None]:
    """Inside, functions are told what each block of one network gets, and what each block of another gives."""

    def before(block: Block) -> Callable[..., None]:
        return lambda module, args, kwargs: at_start(block, Batch(args, dict(kwargs)))

    def behind(block: Block) -> Callable[..., None]:
        return lambda module, args, output: at_end(block, output)

    handles = []
    for block in blocks:
        first, last = starting.get_submodule(block.modules[0]), ending.get_submodule(block.modules[-1])
        handles.append(first.register_forward_pre_hook(before(block), with_kwargs=True))
        handles.append(last.register_forward_hook(behind(block)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _next(pairs: Sequence[tuple[Paused, Paused]]) -> Passage | None:
    """Every run at its next block; None at the end of all."""
    wanted = [teacher.advance() for teacher, _ in pairs]
    given = [student.advance() for _, student in pairs]
    names = {found and found[0].name for found in (*wanted, *given)}
    if len(names) != 1:
        listed = ", ".join(sorted(name or "the end" for name in names))
        raise ModelError(f"The networks come to their blocks in different orders: next were {listed}.")
    if wanted[0] is None:
        return None
    found = zip(given, wanted, strict=True)
    return Passage(wanted[0][0], [labelled(batch, outputs_tensor(output)) for (_, batch), (_, output) in found])


def labelled(batch: Batch, output: Tensor) -> Batch:
    """Inputs that all samples share set apart."""

    def change(leaf: Any) -> Any:
        return Common(leaf) if isinstance(leaf, Tensor) and leaf.shape[:1] != output.shape[:1] else leaf

    args, kwargs = tree_map(change, (batch.args, batch.kwargs))
    return Batch(args, kwargs, output)


def run_block(chain: Chain, batch: Batch) -> Tensor:
    """What a block gives for inputs of a passage."""

    def change(leaf: Any) -> Any:
        return leaf.tensor.to(device) if isinstance(leaf, Common) else leaf

    device = next(tensor for tensor in (*chain.parameters(), *chain.buffers())).device
    args, kwargs = tree_map(change, (batch.args, batch.kwargs))
    return Batch(args, kwargs).run(chain)
