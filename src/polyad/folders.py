"""Write a folder as a whole or not at all."""

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
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty; name a new folder, or remove this one first.")
        parent = _existing(folder.absolute().parent)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}); name a folder that can.") from None
    return folder


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write into, which takes its name only when everything inside has been written."""
    folder = check_writable(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        draft.chmod(0o755)
        yield draft
        if folder.exists():
            folder.rmdir()  # empty, as checked above
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
