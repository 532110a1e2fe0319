"""The processes that train one network together: each takes its share of every batch, gradients are added up.

Hugging Face Accelerate says which process this is and on which device it works, whether `accelerate launch` or
`torchrun` started it. There is no wrapper around the network: with the same batches, and batch norm frozen, the sum of
the gradients is that of one process up to rounding.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from polyad.errors import PolyadError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among `count`."""

    index: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.index == 0

    def share(self, positions: Tensor) -> Tensor:
        """Of the samples of a batch those of this process."""
        return positions.tensor_split(self.count)[self.index]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into the tensors of each."""
        if self.count == 1:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(together)
        for tensor, part in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def agreed(self, value: T) -> T:
        """What the first process has."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


ALONE = Ranks()


def ranks() -> Ranks:
    """This process among those that `accelerate launch` or `torchrun` started; alone where none of them did.

    Raises:
        PolyadError: there are several, and Accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    try:
        from accelerate import PartialState  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise PolyadError(
            f"{os.environ['WORLD_SIZE']} processes were started, which Accelerate brings together and which is not"
            " installed: pip install polyad[cluster], or start one."
        ) from None
    found = PartialState(cpu=not torch.cuda.is_available())
    return Ranks(found.process_index, found.num_processes, found.device)
