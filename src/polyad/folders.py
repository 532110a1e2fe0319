"""Write a folder as a whole or not at all."""

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyad.errors import CheckpointError


def check_writable(folder: str | Path) -> Path:
    """Raise CheckpointError unless the folder can be made: absent or empty, its parent writable."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; name a new folder for the output.")
    with _named(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty; name a new folder, or remove this one first.")
        _try(folder.absolute().parent)
    return folder


def check_place(folder: str | Path) -> Path:
    """Raise CheckpointError unless files can be put into the folder, which may be there already."""
    folder = Path(folder)
    with _named(folder):
        _try(folder.absolute())
    return folder


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write into, which takes its name only when everything inside has been written."""
    folder = check_writable(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    drafts = f".{folder.name}.draft-"
    draft = Path(tempfile.mkdtemp(prefix=drafts, dir=folder.parent))
    try:
        draft.chmod(0o755)
        yield draft
        if folder.exists():
            folder.rmdir()  # empty, as checked above
        draft.rename(folder)
        for left in folder.parent.glob(f"{glob.escape(drafts)}*"):  # by a run that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """What the system refuses, said with the name of the folder."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}); name a folder that can.") from None


def _try(folder: Path) -> None:
    """Write a file into the folder, or where it would be made."""
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass
