"""How long things take on a machine that does other work too: all of them in turn, and of each its fastest runs.

A run that another program cut into is long by milliseconds, clean ones repeat to a per cent or two. So runs go on until
the fastest ones of everything agree, and they are what counts; in turn, so that a machine that drifts favours none.
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from polyad.batches import Batch
from polyad.bench import Bench
from polyad.errors import ExportError
from polyad.runtimes.base import RUNTIMES
from polyad.threads import on_threads

K = TypeVar("K")

FASTEST, AGREE = 5, 1.02
"""When so many runs, the fastest ones, lie within this factor, a thing's time is known."""

LEAST, MOST = 15, 1000
"""Counted runs of each."""


def in_turn(
    passes: Mapping[K, Callable[[], float]], *, seconds: float, least: int = LEAST, most: int = MOST
) -> dict[K, list[float]]:
    """The seconds of each run of each thing.

    Args:
        passes: name -> runs once and says how many seconds that took.
        seconds: how long all of it may go on where the fastest runs do not agree yet.
        least, most: counted runs of each. Before every one the thing runs once uncounted, so that what it reads lies
            in the caches as it does between its own kind.
    """
    found: dict[K, list[float]] = {name: [] for name in passes}
    start = perf_counter()
    for at in range(most):
        if at >= least and (perf_counter() - start > seconds or all(map(_agree, found.values()))):
            break
        for name, once in passes.items():
            once()
            found[name].append(once())
    return found


def _agree(runs: list[float]) -> bool:
    fastest = sorted(runs)[:FASTEST]
    return fastest[-1] <= AGREE * fastest[0]


def low(runs: list[float]) -> float:
    """Seconds of a run that nothing cut into: the middle one of the fastest."""
    return float(np.median(sorted(runs)[:FASTEST]))


def bench_of(runtime: str, threads: int | None, batch: int) -> Bench:
    """This machine as a bench.

    Args:
        runtime: a registered name.
        threads: as many as PyTorch takes by default.
        batch: samples in a run.

    Raises:
        UnknownNameError: no such runtime.
        ExportError: it is not installed, or has nothing to run on.
    """
    found = RUNTIMES[runtime]
    if lacks := found.lacks():
        raise ExportError(f"The runtime {runtime} cannot run here: {lacks}.")
    number = torch.get_num_threads() if threads is None else threads
    return Bench(runtime=runtime, version=found.version(), machine=found.place(), threads=number, batch=batch)


def clocked(
    bench: Bench,
    contenders: Mapping[K, tuple[nn.Module, Batch]],
    *,
    seconds: float,
    least: int = LEAST,
    most: int = MOST,
) -> dict[K, list[float]]:
    """The seconds of each run of networks or layers on their inputs, in turn.

    Raises:
        ExportError: the runtime cannot run one of them.
    """
    runtime = RUNTIMES[bench.runtime]
    with on_threads(bench.threads):
        passes = {name: runtime.prepare(*contender, bench.threads) for name, contender in contenders.items()}
        return in_turn(passes, seconds=seconds, least=least, most=most)
