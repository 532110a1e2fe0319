"""Whether a block can be trained by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyad.batches import Batch, run_on
from polyad.errors import ModelError
from polyad.modes import evaluating
from polyad.outputs import outputs_tensor
from polyad.training.blocks import Block, Chain
from polyad.training.passages import labelled, run_block, watched


@dataclass(frozen=True)
class Alone:
    """How a block does by itself.

    Attributes:
        refusal: why it cannot be trained so, or None.
        elements: of what it takes and gives, for one sample.
    """

    refusal: str | None
    elements: int = 0


def alone(teacher: nn.Module, blocks: Sequence[Block], example: Batch) -> dict[str, Alone]:
    """Each block run by itself on what it sees of a few samples, and on them in another order: it has to give the same.

    Args:
        example: two samples or more.

    Returns:
        Name of a block -> what was found, in the order in which they run; what does not run comes last.
    """
    given: dict[str, list[Batch]] = {}
    ends: dict[str, list[Any]] = {block.name: [] for block in blocks}

    def note_start(block: Block, batch: Batch) -> None:
        given.setdefault(block.name, []).append(batch.each(torch.clone))

    def note_end(block: Block, output: Any) -> None:
        ends[block.name].append(_kept(output))

    with torch.no_grad(), evaluating(teacher):
        with watched(blocks, teacher, note_start, teacher, note_end):
            run_on(teacher, example, "a batch to train on")
        chains = {block.name: block.of(teacher) for block in blocks}
        return {
            name: _alone(chains[name], given.get(name, []), ends[name]) for name in dict.fromkeys([*given, *chains])
        }


def _kept(output: Any) -> Tensor | None:
    try:
        return outputs_tensor(output).clone()
    except ModelError:
        return None


def _alone(chain: Chain, given: Sequence[Batch], ends: Sequence[Tensor | None]) -> Alone:
    if not given and not ends:
        return Alone("it does not run")
    if (len(given), len(ends)) != (1, 1):
        return Alone("it runs several times")
    (expected,) = ends
    if expected is None or not expected.is_floating_point():
        return Alone("it gives no tensor of floating-point numbers")
    batch = labelled(given[0], expected)
    if not batch.elements:
        return Alone("none of its inputs has an axis of samples")
    return Alone(_refusal(chain, batch), (batch.elements + expected.numel()) // len(expected))


def _refusal(chain: Chain, batch: Batch) -> str | None:
    expected: Tensor = batch.labels  # type: ignore[assignment]
    backwards = torch.arange(len(expected)).flip(0)
    try:
        found, turned = run_block(chain, batch.each(torch.clone)), run_block(chain, batch.pick(backwards))
    except Exception as error:  # whatever a module raises over inputs that are not all it needs
        return f"alone it stops with {type(error).__name__}"
    if not _alike(found, expected):
        return "alone it gives something else than inside the network"
    return None if _alike(turned, expected[backwards]) else "its samples cannot be taken apart"


def _alike(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
