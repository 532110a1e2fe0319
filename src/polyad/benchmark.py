"""Stage 7: how long a network takes, as quantiles of runs in turn with another one."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from polyad.batches import Batch
from polyad.records import Record
from polyad.timing import bench_of, clocked


class Timing(Record):
    """Milliseconds of one forward pass."""

    p50: float
    p95: float
    runs: int


def benchmark(
    networks: Mapping[str, nn.Module],
    batch: Batch,
    *,
    runs: int = 30,
    runtime: str = "eager",
    threads: int | None = None,
) -> dict[str, Timing]:
    """Time networks in turn on one batch, so that a machine that drifts does not favour one of them.

    Args:
        networks: name -> network.
        batch: the input of every run.
        runs: counted runs of each.
        runtime: a registered name (`polyad runtimes`).
        threads: as many as PyTorch takes by default.

    Raises:
        UnknownNameError: no such runtime.
        ExportError: the runtime is not there, or cannot run a network.
    """
    bench = bench_of(runtime, threads, batch.size)
    contenders = {name: (network, batch) for name, network in networks.items()}
    seconds = clocked(bench, contenders, seconds=0, least=runs, most=runs)
    return {
        name: Timing(p50=1e3 * float(np.median(found)), p95=1e3 * float(np.percentile(found, 95)), runs=runs)
        for name, found in seconds.items()
    }
