"""The statistics of all sites within a limit of memory, and out of the folder of the run where they are there.

Statistics of a layer grow with the square of its inputs. Where those of all layers together do not fit, the data is
gone through several times, each time for as many layers as fit; what is finished lies on disk until a stage asks for
it.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from uuid import uuid4

import torch
from torch import nn

from polyad.batches import Batch
from polyad.errors import BudgetError, CheckpointError
from polyad.fingerprint import fingerprints
from polyad.memory import bytes_text
from polyad.observe import observe, room
from polyad.progress import Progress, silent
from polyad.records import Site, Statistics
from polyad.splits import Call
from polyad.work import NOTHING_KEPT, Piece, Work, key_of


class StatisticsOnDisk(Mapping[str, Statistics]):
    """Statistics that are read when they are asked for, and not held.

    Args:
        work: the folder that holds them.
        keys: site -> name in the folder.
    """

    def __init__(self, work: Work, keys: Mapping[str, str]) -> None:
        self._work, self._keys = work, keys

    def __getitem__(self, name: str) -> Statistics:
        piece = self._work.read(self._keys[name])
        if piece is None:
            raise CheckpointError(f"The statistics of {name} are no longer in {self._work.folder}; run it again.")
        return _from_piece(piece)

    def __contains__(self, name: object) -> bool:
        return name in self._keys  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def gather(
    model: nn.Module,
    sites: Sequence[Site],
    fitted: Sequence[Batch | Call],
    held_out: Sequence[Batch] = (),
    *,
    curvature: bool = False,
    seed: int = 0,
    memory: int | None = None,
    work: Work = NOTHING_KEPT,
    progress: Progress = silent,
) -> Mapping[str, Statistics]:
    """What `observe` finds, the same bit for bit.

    Args:
        model: the original network; it is not changed.
        sites: from `trace`.
        fitted: calibration batches. A function in their place is called once for each time that the data is gone
            through, and its statistics are not kept for another run.
        held_out: batches that no fit sees.
        curvature: whether the moments of the gradients at the outputs are wanted too.
        seed: of the labels drawn for those.
        memory: bytes that statistics may take at once; no limit by default.
        work: the folder of the run.

    Raises:
        BudgetError: the statistics of a single site take more.
        DataError, NumericalError: as `observe`.
        CheckpointError: the folder cannot be written.
    """
    rooms = {site.name: room(site, held_out=bool(held_out)) for site in sites}
    parts = _parts(sites, rooms, memory)
    spills = len(parts) > 1
    look = partial(observe, model, batches=fitted, held_out=held_out, curvature=curvature, seed=seed, progress=progress)
    known = fingerprints(model, sites, fitted, held_out) if work.folder is not None else None
    keys = _known_keys(known, curvature, seed)
    if keys is None and not spills:
        return look(sites)
    temporary = tempfile.mkdtemp(prefix="polyad-") if work.folder is None else None
    work = work if temporary is None else Work(temporary)
    keys = keys or {site.name: key_of("statistics", uuid4().hex) for site in sites}
    on_disk = StatisticsOnDisk(work, keys)
    if temporary is not None:
        weakref.finalize(on_disk, shutil.rmtree, temporary, ignore_errors=True)

    if not spills:
        return _one_pass(sites, look, work, keys)
    for part in parts:
        _one_pass(part, look, work, keys)
    return on_disk


def _known_keys(keys: Mapping[str, str] | None, curvature: bool, seed: int) -> Mapping[str, str] | None:
    """The names under which another run would find the statistics; those with gradients depend on the drawn labels."""
    if keys is None or not curvature:
        return keys
    return {name: key_of("statistics", key, "curvature", seed) for name, key in keys.items()}


def _one_pass(
    part: Sequence[Site],
    look: Callable[[Sequence[Site]], Mapping[str, Statistics]],
    work: Work,
    keys: Mapping[str, str],
) -> Mapping[str, Statistics]:
    """Those of some sites, by then in the folder; only what is not there yet is observed."""
    pieces = {site.name: work.find(keys[site.name]) for site in part}
    found = {name: _from_piece(piece) for name, piece in pieces.items() if piece is not None}
    missing = [site for site in part if site.name not in found]
    made = look(missing) if missing else {}
    for name, statistics in made.items():
        work.keep(keys[name], _piece(statistics))
    return {**found, **made}


def _parts(sites: Sequence[Site], rooms: Mapping[str, int], memory: int | None) -> list[list[Site]]:
    """Sites that fit together, each put where there is room first: every part is one more time through the data."""
    if memory is None:
        return [list(sites)]
    parts: list[list[Site]] = []
    left: list[int] = []
    for site in sites:
        needed = rooms[site.name]
        if needed > memory:
            raise BudgetError(
                f"The statistics of {site.name} alone take {bytes_text(needed)}, more than the {bytes_text(memory)} of"
                f" memory that are given. Give {bytes_text(max(rooms.values()))} or more, or leave the layer out"
                " (--ignore)."
            )
        at = next((at for at, room_left in enumerate(left) if needed <= room_left), len(parts))
        if at == len(parts):
            parts.append([])
            left.append(memory)
        parts[at].append(site)
        left[at] -= needed
    return parts


def _piece(statistics: Statistics) -> Piece:
    values = {field.name: getattr(statistics, field.name) for field in fields(Statistics)}
    return Piece({name: torch.as_tensor(value) for name, value in values.items() if value is not None})


def _from_piece(piece: Piece) -> Statistics:
    values = {name: int(value) if name == "count" else value for name, value in piece.tensors.items()}
    return Statistics(**values)  # type: ignore[arg-type]
