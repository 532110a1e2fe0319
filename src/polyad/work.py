"""What a run has finished, kept in a folder, so that an interrupted run goes on where it was.

Every piece of work is one safetensors file, named by the hash of all that it was made from: changed content has another
name, so that nothing stale is ever found. A file takes its name when all of it has been written, carries a checksum,
and is made again where it is damaged. No pickles.
"""

import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyad.digests import digest
from polyad.errors import CheckpointError
from polyad.folders import check_place

VERSION = 2
"""Raised when the same content gives another piece of work: another solver, other fields."""

SUFFIX, DRAFT = ".safetensors", ".part"
OURS = re.compile(r"[a-z]+-[0-9a-f]{64}(\.safetensors|\..+\.part)|\.tmp[0-9A-Za-z]{6}")
"""Names of pieces of work, of their drafts, and of what safetensors leaves where it is killed while it writes one."""


@dataclass(frozen=True)
class Piece:
    """A finished piece of work: tensors, which come back bit for bit, and a text."""

    tensors: Mapping[str, Tensor]
    text: str = ""


class Work:
    """Finished pieces of work in a folder, which is made when there is something to put into it.

    Without a folder nothing is kept, and everything is made.

    Attributes:
        taken: how many pieces of each kind were there.
        made: how many pieces of each kind were not.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else check_place(folder)
        self.taken: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self._counting = Lock()

    @classmethod
    def at(cls, place: "Work | str | Path | None") -> "Work":
        """The work in a folder; work as it is."""
        return place if isinstance(place, Work) else cls(place)

    def remember(self, key: str, make: Callable[[], Piece]) -> Piece:
        """The piece of work of a key: from the folder, else made and kept."""
        found = self.find(key)
        if found is None:
            found = make()
            self.keep(key, found)
        return found

    def find(self, key: str) -> Piece | None:
        """What the folder holds under a key; None where that is nothing or damaged."""
        piece = self.read(key)
        if piece is not None:
            self._count(self.taken, key)
        return piece

    def read(self, key: str) -> Piece | None:
        """The same, for what this run has made: it does not count as taken."""
        return None if self.folder is None else _read(self.folder / f"{key}{SUFFIX}", key)

    def keep(self, key: str, piece: Piece) -> None:
        """Write a piece of work, as a whole or not at all.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / f"{key}{SUFFIX}", key, piece)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.folder} cannot be written ({error}); make room, or name a place that can."
            ) from None
        self._count(self.made, key)

    @property
    def files(self) -> list[Path]:
        """The files of the folder that are pieces of work, or the beginning of one."""
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if OURS.fullmatch(path.name))

    def clear(self) -> None:
        """Remove all pieces of work, and the folder if it holds nothing else."""
        for path in self.files:
            path.unlink(missing_ok=True)
        if self.folder is not None and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _count(self, counter: Counter[str], key: str) -> None:
        with self._counting:
            counter[key.partition("-")[0]] += 1


NOTHING_KEPT = Work()
"""For runs that are not to be gone on with."""


def key_of(kind: str, *content: object) -> str:
    """The name of a piece of work: its kind, and the hash of what it is made from and by which versions.

    Args:
        kind: a word of small letters.
        content: texts, numbers, tuples of them; tensors as their digest.
    """
    text = repr((VERSION, *_versions(), *content))
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()}"


@cache
def _versions() -> tuple[str, str]:
    return version("polyad"), torch.__version__


def _write(path: Path, key: str, piece: Piece) -> None:
    tensors = {name: _alone(tensor) for name, tensor in piece.tensors.items()}
    handle, draft = tempfile.mkstemp(suffix=DRAFT, prefix=f"{key}.", dir=path.parent)
    os.close(handle)
    try:
        save_file(tensors, draft, {"key": key, "text": piece.text, "sha256": digest(tensors)})
        os.replace(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)


def _read(path: Path, key: str) -> Piece | None:
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
            # a copy: memory of the file itself is aligned differently, which can change the last bit of a product
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    if found.get("key") != key or found.get("sha256") != digest(tensors):
        return None
    return Piece(tensors, found.get("text", ""))


def _alone(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own, as safetensors wants it."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
