"""Stretches of a network: blocks one after the other whose activations are about equally large.

What goes into a block, and what should come out, is held for all samples at once. At 112 x 112 pixels MobileNetV2 has
fifty times as many of both as at 7 x 7: were all its blocks trained in one pass, the last ones, which hold most of the
parameters, would learn from as few samples as the first have room for. So each stretch has a pass of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polyad.training.blocks import Block

ALIKE = 4
"""Blocks that have room for less than this times as many samples as others share a stretch with them."""


@dataclass(frozen=True)
class Stretch:
    """Blocks that are trained in one pass.

    Attributes:
        room: how many samples there is room for at each of them.
    """

    blocks: tuple[Block, ...]
    room: int


def stretches(blocks: Sequence[Block], elements: Mapping[str, int], limit: int, most: int) -> list[Stretch]:
    """The stretches of a network.

    Args:
        blocks: in the order in which they run.
        elements: name of a block -> what it takes and gives for one sample.
        limit: how many there is room for.
        most: samples, more than which are not needed anywhere.
    """
    found: list[Stretch] = []
    for block in blocks:
        room = min(most, max(1, limit // max(1, elements[block.name])))
        if found and max(room, found[-1].room) < ALIKE * min(room, found[-1].room):
            found[-1] = Stretch((*found[-1].blocks, block), min(room, found[-1].room))
        else:
            found.append(Stretch((block,), room))
    return found
