"""The weight files of llama2.c: seven whole numbers, then a Llama-style decoder as one run of float32 numbers.

A. Karpathy, "llama2.c", 2023, the format that its `run.c` reads (version 0, head tied to the embedding).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyad.errors import ModelError

INTEGERS, BYTES = 7, 4
"""Numbers in the header, bytes of each number in the file."""

LARGEST = 1 << 24
"""No size of a network that llama2.c runs comes near it; other files begin with larger numbers."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a decoder, in the order of the header.

    Attributes:
        width: channels between the layers.
        hidden: channels inside the feed-forward part.
        layers: how many.
        heads: query heads.
        kv_heads: key and value heads, each shared by heads / kv_heads query heads.
        tokens: in the vocabulary.
        context: the longest sequence, in tokens.
    """

    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    tokens: int
    context: int

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        """Channels of all key heads together."""
        return self.kv_heads * self.head_width

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))


def read_sizes(path: Path) -> Sizes:
    """The header.

    Raises:
        ModelError: it is none.
    """
    with path.open("rb") as file:
        header = file.read(INTEGERS * BYTES)
    if len(header) < INTEGERS * BYTES:
        raise ModelError(
            f"{path} has {len(header)} bytes; expected a header of {INTEGERS} whole numbers (28 bytes) as llama2.c "
            "writes it. The file is cut off: copy or download it again."
        )
    sizes = Sizes(*(int(number) for number in np.frombuffer(header, "<i4")))
    if not _possible(sizes):
        raise ModelError(
            f"{path} begins with the sizes {sizes}; expected those of a llama2.c network: positive, heads a divisor of "
            "width, kv_heads a divisor of heads. It is another sort of file, or damaged: name a file that torch.save "
            "wrote .pth, or copy it again."
        )
    return sizes


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The tensors under the names of `zoo:llama2c`, on the CPU; the rotary tables are left out.

    Raises:
        ModelError: the header is none, or the file is not as long as it says.
    """
    sizes = read_sizes(path)
    arrays = list(_arrays(sizes))
    expected = BYTES * (INTEGERS + sum(prod(shape) for _, shape in arrays))
    came = path.stat().st_size
    if came != expected:
        trouble = "cut off" if came < expected else "damaged, or of another version of the format"
        raise ModelError(
            f"{path} has {came:,} bytes; expected {expected:,} for the sizes in its header ({sizes}). It is {trouble}: "
            "copy or download it again."
        )
    numbers = torch.from_numpy(np.fromfile(path, "<f4", offset=BYTES * INTEGERS).astype(np.float32))
    pieces = numbers.split([prod(shape) for _, shape in arrays])
    found: dict[str, Tensor] = {}
    for (name, shape), piece in zip(arrays, pieces, strict=True):
        if "{}" in name:  # one array holds all layers
            found |= {name.format(i): one.clone() for i, one in enumerate(piece.view(shape))}
        elif name:
            found[name] = piece.view(shape).clone()
    return found


def check_sizes(path: Path, model: torch.nn.Module) -> None:
    """Refuse a file whose header differs from the sizes of a network: heads and context leave no trace in shapes.

    Raises:
        ModelError: they differ, or it is no network of llama2.c.
    """
    came, expected = read_sizes(path), getattr(model, "sizes", None)
    if not isinstance(expected, Sizes):
        raise ModelError(
            f"{path} holds a network of llama2.c ({came}), and {type(model).__name__} is none: load it into "
            "zoo:llama2c, or give weights of this network."
        )
    if came != expected:
        raise ModelError(
            f"{path} does not fit {type(model).__name__}: expected {expected}; came {came}. Give the weights of a "
            "network of these sizes, such as stories260K.bin for zoo:llama2c."
        )


def _possible(sizes: Sizes) -> bool:
    numbers = [getattr(sizes, field.name) for field in fields(sizes)]
    if not all(0 < number < LARGEST for number in numbers):
        return False
    return not (sizes.width % (2 * sizes.heads) or sizes.heads % sizes.kv_heads)  # rotary pairs need an even head


def _arrays(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names ("{}" is the layer, the first axis; "" is not needed) and shapes, in the order of the file."""
    layers, width, hidden = sizes.layers, sizes.width, sizes.hidden
    layer = "layers.{}."
    yield "embedding.weight", (sizes.tokens, width)
    yield f"{layer}attention_norm.weight", (layers, width)
    yield f"{layer}attention.q.weight", (layers, width, width)
    yield f"{layer}attention.k.weight", (layers, sizes.kv_width, width)
    yield f"{layer}attention.v.weight", (layers, sizes.kv_width, width)
    yield f"{layer}attention.o.weight", (layers, width, width)
    yield f"{layer}mlp_norm.weight", (layers, width)
    yield f"{layer}mlp.gate.weight", (layers, hidden, width)
    yield f"{layer}mlp.down.weight", (layers, width, hidden)
    yield f"{layer}mlp.up.weight", (layers, hidden, width)
    yield "norm.weight", (width,)
    yield "", (2, sizes.context, sizes.head_width // 2)  # rotary tables, which are computed
