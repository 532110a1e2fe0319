"""How samples are varied: images shifted, mirrored and mixed, whose wanted outputs the original network gives.

The random numbers of a batch are drawn on the CPU for all of its samples at once, so that they are the same on every
device and however many processes share the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from polyad.batches import Batch

SHIFT = 8
"""An image is shifted by up to its size divided by this, 4 pixels of 32."""


@dataclass(frozen=True)
class Variation:
    """What is done to the images of a batch.

    Attributes:
        shift: whether they are shifted, zeros coming in (the mean colour where inputs are normalised).
        flip: whether half of them are mirrored.
        mix: whether each is mixed with another one: what the original says of the mixture tells more of it than the few
            images do that it was trained on itself (Beyer et al., "Knowledge distillation: A good teacher is patient
            and consistent", CVPR 2022).
    """

    shift: bool = False
    flip: bool = False
    mix: bool = False

    @property
    def key(self) -> str:
        """Equal for equal variations."""
        return repr(self)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random numbers for so many samples, (count, 7) in [0, 1)."""
        return torch.rand(count, 7, generator=generator)

    def apply(self, batch: Batch, numbers: Tensor) -> Batch:
        """The batch varied: all inputs that are images alike, each mixed with the one at its place from the other end.

        Args:
            numbers: (samples, 7) from `draw`.
        """
        if self == UNVARIED:
            return batch
        return _with_inputs(
            batch, lambda leaf: self._varied(leaf, numbers.to(leaf.device)) if is_images(leaf) else leaf
        )

    def _varied(self, images: Tensor, numbers: Tensor) -> Tensor:
        if self.flip:
            images = torch.where(numbers[:, 0].view(-1, 1, 1, 1) < 0.5, images.flip(-1), images)
        if self.shift:
            images = shifted(images, numbers[:, 1:3])
        return mixed(images, numbers[:, 3:]) if self.mix else images


UNVARIED = Variation()


def _with_inputs(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A batch with its inputs changed, its labels as they are."""
    return Batch(tuple(map(change, batch.args)), {k: change(v) for k, v in batch.kwargs.items()}, batch.labels)


def is_images(value: object) -> bool:
    """Whether it is (samples, channels, height, width) floats."""
    return isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()


def shifted(images: Tensor, numbers: Tensor) -> Tensor:
    """Every image moved by a whole number of pixels of its own.

    Args:
        images: (samples, channels, height, width).
        numbers: (samples, 2) in [0, 1): how far down and to the right, from one end of the range to the other.
    """
    sizes = images.shape[2:]
    reach = [max(1, size // SHIFT) for size in sizes]
    wide = F.pad(images, (reach[1], reach[1], reach[0], reach[0]))
    rows, columns = (
        (numbers[:, axis] * (2 * reach[axis] + 1)).long()[:, None] + torch.arange(sizes[axis], device=images.device)
        for axis in range(2)
    )
    samples = torch.arange(len(images), device=images.device)
    return wide.permute(0, 2, 3, 1)[samples[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mixed(images: Tensor, numbers: Tensor) -> Tensor:
    """Half of the images blended with the one at their place from the other end (Zhang et al., "mixup", ICLR 2018), the
    others with a box of it pasted in (Yun et al., "CutMix", ICCV 2019).

    Args:
        images: (samples, channels, height, width).
        numbers: (samples, 4) in [0, 1): the share of the other image, which of both ways, where the middle of the box
            is, from above and from the left.
    """
    share, way, *middle = numbers.T.to(images)
    inside = (
        _within(images.shape[2], share, middle[0])[:, :, None] & _within(images.shape[3], share, middle[1])[:, None]
    )
    pasted, blended = inside[:, None].to(images), share.view(-1, 1, 1, 1)
    return images.lerp(images.flip(0), torch.where((way < 0.5).view(-1, 1, 1, 1), blended, pasted))


def _within(size: int, share: Tensor, middle: Tensor) -> Tensor:
    """(samples, size): which places lie in a part whose length is the root of a share of it."""
    places = torch.arange(size, device=share.device)[None] + 0.5
    return (places - size * middle[:, None]).abs() < size * share.sqrt()[:, None] / 2
