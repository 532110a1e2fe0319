"""How long layers take in each form on one bench, as multiples of the dense layer's time; kept on disk.

A multiple is measured in one go with the dense layer, in turn, so it hardly depends on what else the machine does. The
file is in `$XDG_CACHE_HOME/polyad/latency` (`~/.cache` by default), one for each bench: machine, runtime, versions,
threads and batch. It may be removed at any time.
"""

import json
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from polyad.bare import Pick, Place
from polyad.batches import Batch
from polyad.bench import Bench
from polyad.decompositions.base import FORMS
from polyad.digests import text_digest
from polyad.errors import ExportError
from polyad.records import DENSE, rank_text
from polyad.solvers import identity
from polyad.timing import clocked, low

VERSION = 1
"""Of the file and of the way of measuring: a table of another version is begun anew."""

AT_ONCE = 24
"""So many layers are timed in turn."""

SECONDS = 0.05
"""For each of them, where their fastest runs do not agree sooner."""

DENSE_PICK: Pick = (DENSE, ())


class Timetable:
    """The times of one bench.

    Args:
        bench: where they are taken.
        folder: of the files, None for the user's cache.

    Attributes:
        measured: how many layers this table has timed itself.
    """

    def __init__(self, bench: Bench, folder: Path | None = None) -> None:
        self.bench, self.measured = bench, 0
        self.file = (folder or cache_folder()) / f"{text_digest(repr((VERSION, bench.model_dump())))[:16]}.json"
        self._multiples = _read(self.file)

    def known(self, place: Place, picks: Iterable[Pick]) -> dict[Pick, float]:
        """Multiples of the dense layer's time, of those picks that have been timed."""
        keys = {pick: _key(place, pick) for pick in picks}
        return {pick: self._multiples[key] for pick, key in keys.items() if key in self._multiples}

    def time(self, place: Place, picks: Collection[Pick]) -> None:
        """Time those picks that are not known, in turn with the dense layer.

        Raises:
            ExportError: the runtime cannot run one of them.
        """
        missing = [pick for pick in picks if _key(place, pick) not in self._multiples]
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            found = self._timed(place, (DENSE_PICK, *some))
            for pick in some:
                self._multiples[_key(place, pick)] = found[pick] / found[DENSE_PICK]
            self.measured += len(some)
            _write(self.file, self.bench, self._multiples)

    def _timed(self, place: Place, picks: Collection[Pick]) -> dict[Pick, float]:
        inputs = Batch((place.inputs(self.bench.batch),))
        contenders = {pick: (place.module(*pick), inputs) for pick in picks}
        try:
            found = clocked(self.bench, contenders, seconds=SECONDS * len(contenders))
        except ExportError as error:
            raise ExportError(f"{place.layer.label} {place.layer.weight_shape} in {place.dtype}: {error}") from error
        return {pick: low(runs) for pick, runs in found.items()}


def cache_folder() -> Path:
    """Where tables are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "polyad" / "latency"


def _key(place: Place, pick: Pick) -> str:
    form, rank = pick
    what = repr((place.layer.model_dump_json(), place.dtype, identity(FORMS[form])))
    shape = "x".join(map(str, place.layer.weight_shape))
    size = "x".join(map(str, place.size))
    return f"{place.layer.label} {shape} on {size}, {form} {rank_text(rank)}, {text_digest(what)[:12]}"


def _read(file: Path) -> dict[str, float]:
    """The multiples that a file holds; none where it is not there or damaged."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))["multiples"]
        return {str(key): float(multiple) for key, multiple in found.items() if float(multiple) > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(file: Path, bench: Bench, multiples: dict[str, float]) -> None:
    """As a whole; what another run has added in the meantime stays. A cache that cannot be written is no error."""
    multiples |= {key: multiple for key, multiple in _read(file).items() if key not in multiples}
    text = json.dumps({"version": VERSION, "bench": bench.model_dump(), "multiples": multiples}, indent=1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            os.replace(draft, file)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError:
        return
