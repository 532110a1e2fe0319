"""A made-up tokenizer and made-up weights, as files of llama2.c."""

import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from polyad.llama2c_file import Sizes
from polyad.tokenizer import FIRST_PIECE

TINY = Sizes(width=8, hidden=12, layers=2, heads=4, kv_heads=2, tokens=300, context=16)

LETTERS = [" ", *"abcdehlnorstw.,"]
PAIRS = ["th", "the", " the", "he", "er", " w", "or", "ld", "lo"]
"""Later ones are worse; "the" comes of "th" and "e", or, where "he" is merged first, of "t" and "he"."""

TEXT = "the old world, the other.<|endoftext|>hello there<|endoftext|>now the stones are hot and the water too"

BEGIN = [(0.0, b"<unk>"), (0.0, b"\n<s>\n"), (0.0, b"\n</s>\n"), *((0.0, b"<0x%02X>" % byte) for byte in range(256))]
"""What every tokenizer of llama2.c begins with."""


def entries(pairs: Sequence[str] = PAIRS) -> list[tuple[float, bytes]]:
    """Score and bytes of each token."""
    return [*BEGIN, *((-float(i), piece.encode()) for i, piece in enumerate([*pairs, *LETTERS]))]


def token(piece: str, pairs: Sequence[str] = PAIRS) -> int:
    """The token of a piece."""
    return FIRST_PIECE + [*pairs, *LETTERS].index(piece)


def write_tokenizer(path: Path, found: Sequence[tuple[float, bytes]] | None = None) -> Path:
    """int32 longest piece, then float32 score, int32 length, bytes."""
    found = entries() if found is None else found
    raw = struct.pack("<i", max(len(piece) for _, piece in found))
    path.write_bytes(raw + b"".join(struct.pack("<fi", score, len(piece)) + piece for score, piece in found))
    return path


def write_weights(path: Path, model: nn.Module, sizes: Sizes) -> Path:
    """Seven int32, the arrays one after another, two rotary tables of zeros."""
    state = model.state_dict()

    def layers(name: str) -> Tensor:
        return torch.stack([state[f"layers.{i}.{name}.weight"] for i in range(sizes.layers)])

    arrays = [state["embedding.weight"], layers("attention_norm")]
    arrays += [layers(f"attention.{name}") for name in ("q", "k", "v", "o")]
    arrays += [layers("mlp_norm"), layers("mlp.gate"), layers("mlp.down"), layers("mlp.up"), state["norm.weight"]]
    arrays += [torch.zeros(sizes.context, sizes.width // sizes.heads // 2)] * 2
    numbers = (sizes.width, sizes.hidden, sizes.layers, sizes.heads, sizes.kv_heads, sizes.tokens, sizes.context)
    path.write_bytes(struct.pack("<7i", *numbers) + b"".join(array.numpy().tobytes() for array in arrays))
    return path
