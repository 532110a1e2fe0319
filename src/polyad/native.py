"""Keep libraries that write to the process's standard output from mixing with what Polyad prints there."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What native code writes to standard output goes to standard error: `--json` promises JSON and nothing else."""
    with _stdout_to(2):
        yield


@contextmanager
def no_stdout() -> Iterator[None]:
    """What native code writes to standard output goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with _stdout_to(nowhere):
            yield
    finally:
        os.close(nowhere)


@contextmanager
def _stdout_to(target: int) -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(target, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
