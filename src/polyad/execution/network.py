"""A weight as a network of small factors, with the size of every letter: what an equation means for one layer."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

from polyad.layers import Size

BATCH = "G"
"""Letter of the groups; upper case, so that no form uses it for anything else."""

KERNEL = "hwk"
"""Letters of kernel axes: `h` the first one, `w` all others, `k` all of them as one."""


@dataclass(frozen=True)
class Network:
    """The factors of one layer.

    Attributes:
        factors: letters of each factor.
        inputs: letters that the input channels split into, in order.
        outputs: letters that the output channels split into, in order.
        sizes: letter and size of every letter.
    """

    factors: tuple[str, ...]
    inputs: str
    outputs: str
    sizes: tuple[tuple[str, int], ...]

    @cached_property
    def size(self) -> dict[str, int]:
        return dict(self.sizes)

    def volume(self, letters: Iterable[str]) -> int:
        """Product of the sizes of some letters."""
        return prod(self.size[letter] for letter in letters)

    def shape(self, letters: Iterable[str]) -> Size:
        return tuple(self.size[letter] for letter in letters)


def kernel_axes(letters: str, dims: int) -> tuple[int, ...]:
    """The kernel axes that the letters of a factor stand for."""
    if "k" in letters:
        return tuple(range(dims))
    first = (0,) if "h" in letters else ()
    return first + (tuple(range(1, dims)) if "w" in letters else ())
