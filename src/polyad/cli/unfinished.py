"""Where a run keeps what it has finished until all of it is done: a folder beside the output, called OUT.work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyad.cli.console import note
from polyad.errors import CheckpointError, PolyadError
from polyad.work import Work

KINDS = {
    "statistics": "statistics of {} layers",
    "menu": "{} parts of the menu",
    "probe": "{} probes",
    "fit": "{} fits",
    "trial": "{} evaluations",
    "training": "{} checkpoints of a training",
    "block": "{} blocks",
}

LONG = ("menu", "fit", "training", "block")
"""Kinds that are worth keeping whatever ended the run."""


@contextmanager
def unfinished(out: Path | None, *, resume: bool, quiet: bool) -> Iterator[Work]:
    """The folder of unfinished work of an output, removed when the run ends well; without an output there is none.

    What an earlier run left is hours of work, perhaps: it is neither thrown away nor taken unless the person says so.

    Raises:
        CheckpointError: there is unfinished work and `resume` was not asked for, or the place cannot be written.
    """
    if out is None:
        if resume:
            raise CheckpointError("--resume goes on from the unfinished work beside --out: give the --out of that run.")
        yield Work()
        return
    place = out if out.name else out.absolute()
    folder = place.with_name(f"{place.name}.work")
    if folder.exists() and not resume:
        raise CheckpointError(
            f"{folder} is there, the unfinished work of an earlier run: go on from it with --resume, or remove it."
        )
    work = Work(folder)
    try:
        yield work
    except BaseException as error:
        if isinstance(error, PolyadError) and not resume and not any(work.made[kind] for kind in LONG):
            work.clear()  # a request that cannot be met leaves nothing, unless its work was long
        elif work.files:
            error.add_note(f"what was finished is kept in {folder}: go on with the same command and --resume")
        raise
    if resume:
        _tell(work, folder, quiet)
    work.clear()


def _tell(work: Work, folder: Path, quiet: bool) -> None:
    """What the run has taken from an earlier one, and what it has made itself."""
    taken, made = (
        ", ".join(text.format(counter[kind]) for kind, text in KINDS.items() if counter[kind]) or "nothing"
        for counter in (work.taken, work.made)
    )
    note(f"taken from {folder}: {taken}; made now: {made}", quiet)
