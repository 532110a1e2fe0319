"""Python files of the user's own: what "path/to/file.py:function" gives, and files that are run for what they do."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isclass, isroutine
from pathlib import Path
from types import ModuleType
from typing import Any

from polyad.errors import PolyadError


def is_python_file(spec: str) -> bool:
    """Whether a specification is meant as a Python file."""
    return ".py:" in spec or spec.endswith(".py")


def call_function(spec: str, error: type[PolyadError]) -> Any:
    """What the function or class gives, called without arguments; anything else (a network) is itself the answer.

    Args:
        spec: "path/to/file.py:function".
        error: what to raise where the file or the function does not exist, or the user's code raises something.
    """
    file, _, name = spec.rpartition(":")
    if spec.endswith(".py") or not name:
        raise error(f"{spec!r} names no function: write it as in path/to/file.py:function.")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise error(f"There is no file {file}; check the path in {spec!r}.")
    with _beside(path):
        with _blaming(spec, path, error):
            module = _imported(path)
        if not hasattr(module, name):
            raise error(f"{file} has no function {name!r}. It defines: {', '.join(_defined(module)) or 'none'}.")
        found = getattr(module, name)
        with _blaming(spec, path, error):
            return found() if isroutine(found) or isclass(found) or isinstance(found, partial) else found


def run_file(spec: str, error: type[PolyadError]) -> None:
    """Execute a file; `error` is raised where it does not exist, or raises something itself."""
    path = Path(spec).expanduser().resolve()
    if not path.is_file():
        raise error(f"There is no file {spec}; check the path.")
    with _beside(path), _blaming(spec, path, error):
        _imported(path)


def _imported(path: Path) -> ModuleType:
    found = spec_from_file_location(f"polyad_user_{path.stem}", path)
    if found is None or found.loader is None:
        raise ImportError(f"{path.name} is not a file that Python can import")
    module = module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickle look a class up in its module, by name
    found.loader.exec_module(module)
    return module


def _defined(module: ModuleType) -> list[str]:
    """The public functions and classes of the file's own."""
    own = {name for name, found in vars(module).items() if getattr(found, "__module__", None) == module.__name__}
    return sorted(name for name in own if not name.startswith("_"))


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Let the file import its neighbours, as when it is run as a script."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def _blaming(spec: str, path: Path, error: type[PolyadError]) -> Iterator[None]:
    """Tell what the user's code raises, and in which line of the file."""
    try:
        yield
    except (Exception, SystemExit) as raised:
        lines = [frame.lineno for frame in traceback.extract_tb(raised.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise error(f"{spec} raised {type(raised).__name__}: {raised} ({path.name}{where}).") from raised
