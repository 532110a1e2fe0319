"""Keep libraries that write to the process's standard output from mixing with what Polyad prints there."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_stdout() -> Iterator[None]:
    """What native code writes to standard output goes nowhere: `--json` promises JSON and nothing else."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
