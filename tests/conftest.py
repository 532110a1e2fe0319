"""What several test files share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real networks and test sets, named by the environment variable POLYAD_DATA."""
    folder = os.environ.get("POLYAD_DATA")
    if not folder:
        pytest.skip("set POLYAD_DATA to the folder with the real networks")
    return Path(folder)


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Polyad = Callable[..., Ran]


@pytest.fixture(scope="session")
def shell() -> Polyad:
    """The real command line: `shell("forms", "--json")`; on one thread, which a busy machine slows down least."""

    def run(*arguments: str | Path) -> Ran:
        command = [str(Path(sys.executable).with_name("polyad")), *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        return Ran(found.returncode, found.stdout, found.stderr)

    return run


@pytest.fixture
def polyad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Polyad]:
    """The same entry point in this process, which has torch loaded already."""
    import torch

    from polyad.cli import main

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["polyad", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Ran(code, *capsys.readouterr())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run
    torch.set_num_threads(threads)
