"""The tokenizer files of llama2.c (`tok512.bin`): pieces with scores, merged pair by pair, the best score first.

Byte-pair encoding (Sennrich et al., ACL 2016) as SentencePiece stores it: what no piece covers becomes single bytes, so
that every text has tokens and `decode(encode(text)) == text`.
"""

import struct
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from math import isfinite
from pathlib import Path

from polyad.errors import DataError

START = 1
"""The token before a text."""

FIRST_BYTE = 3
"""The token of byte 0; before it come unknown, start and end."""

FIRST_PIECE = FIRST_BYTE + 256
"""The first token that stands for characters. Earlier ones are never made from text: "<0x0A>" written out is no
line break."""

PATTERN = "tok*.bin"
"""What such files are called."""


class Tokenizer:
    """Text to tokens and back.

    Args:
        pieces: bytes of each token.
        scores: of each token; among the pairs that make a piece the highest is merged first, the leftmost of equals.
    """

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float]) -> None:
        self.pieces, self.scores = tuple(pieces), tuple(scores)
        self._ids: dict[bytes, int] = {}
        for token in range(FIRST_PIECE, len(self.pieces)):
            self._ids.setdefault(self.pieces[token], token)

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without the start token; a blank before it is one with the first word."""
        return _merged(self._single(f" {text}"), self) if text else []

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens; unknown, start and end stand for nothing."""
        found = b"".join(self._bytes(token) for token in tokens)
        return found.removeprefix(b" ").decode("utf-8", errors="replace")

    def merge(self, left: int, right: int) -> tuple[float, int] | None:
        """Score and token of the piece that two neighbours make, or None."""
        if min(left, right) < FIRST_PIECE:
            return None
        token = self._ids.get(self.pieces[left] + self.pieces[right])
        return None if token is None else (self.scores[token], token)

    def _single(self, text: str) -> list[int]:
        """A token for each character, or one for each of its bytes."""
        found: list[int] = []
        for character in text:
            encoded = character.encode("utf-8")
            token = self._ids.get(encoded)
            found += [FIRST_BYTE + byte for byte in encoded] if token is None else [token]
        return found

    def _bytes(self, token: int) -> bytes:
        if token >= FIRST_PIECE:
            return self.pieces[token]
        return bytes([token - FIRST_BYTE]) if token >= FIRST_BYTE else b""


def _merged(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    """Merge until no pair makes a piece: a linked list and a heap of pairs, n log n for n tokens."""
    ends = len(tokens)
    after, before = list(range(1, ends + 1)), list(range(-1, ends - 1))
    heap: list[tuple[float, int, int, int, int]] = []

    def offer(at: int) -> None:
        """Put the pair that begins at a position on the heap, if it makes a piece."""
        if at < 0 or after[at] >= ends:
            return
        left, right = tokens[at], tokens[after[at]]
        if (made := tokenizer.merge(left, right)) is not None:
            heappush(heap, (-made[0], at, left, right, made[1]))

    for at in range(ends):
        offer(at)
    while heap:
        _, at, left, right, token = heappop(heap)
        if tokens[at] != left or after[at] >= ends or tokens[after[at]] != right:
            continue  # one of the two has been merged meanwhile
        gone = after[at]
        tokens[at], tokens[gone] = token, -1
        after[at] = after[gone]
        if after[at] < ends:
            before[after[at]] = at
        offer(before[at])
        offer(at)
    return [token for token in tokens if token >= 0]


def read_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer from its file.

    Args:
        path: int32 longest piece in bytes, then for each token float32 score, int32 length, bytes.

    Raises:
        DataError: the file is missing, cut off, or of another format.
    """
    path = Path(path).expanduser()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The tokenizer {path} cannot be read ({error.strerror}); give one as llama2.c writes it (tok512.bin)."
        ) from None
    entries = list(_entries(raw, path))
    pieces, scores = [piece for _, piece in entries], [score for score, _ in entries]
    longest = max(map(len, pieces), default=0)
    said = struct.unpack_from("<i", raw)[0]
    if said != longest:
        raise _broken(path, f"it says that its longest piece has {said} bytes, and that has {longest}")
    for byte in range(256):
        if pieces[FIRST_BYTE + byte : FIRST_BYTE + byte + 1] != [b"<0x%02X>" % byte]:
            raise _broken(path, f"token {FIRST_BYTE + byte} is not <0x{byte:02X}>, which stands for a single byte")
    return Tokenizer(pieces, scores)


def find_tokenizer(beside: str | Path) -> Path | None:
    """The one tokenizer file that lies in the folder of another file, or None where there is none or several."""
    found = sorted(Path(beside).expanduser().parent.glob(PATTERN))
    return found[0] if len(found) == 1 else None


def _entries(raw: bytes, path: Path) -> Iterator[tuple[float, bytes]]:
    """Score and bytes of each token."""
    if len(raw) < 4:
        raise _broken(path, f"it has {len(raw)} bytes")
    at, number = 4, 0
    while at < len(raw):
        if at + 8 > len(raw):
            raise _broken(path, f"it ends inside token {number}")
        score, length = struct.unpack_from("<fi", raw, at)
        at += 8
        if length < 0 or not isfinite(score):
            raise _broken(path, f"token {number} has the length {length} and the score {score}")
        if at + length > len(raw):
            raise _broken(path, f"it ends inside token {number}")
        yield score, raw[at : at + length]
        at, number = at + length, number + 1


def _broken(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is no tokenizer of llama2.c, or damaged: {why}; expected int32 longest piece, then for each token "
        "float32 score, int32 length, bytes. Copy it again, or give another with --tokenizer FILE."
    )
