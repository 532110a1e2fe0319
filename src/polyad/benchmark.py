"""Stage 7: how long a network takes, as medians of runs in turn with another one."""

from collections.abc import Mapping
from time import perf_counter

import numpy as np
import torch
from torch import nn

from polyad.batches import Batch
from polyad.modes import evaluating
from polyad.records import Record

WARM_UP = 3
"""Runs of each network that are not counted."""


class Timing(Record):
    """Milliseconds of one forward pass."""

    p50: float
    p95: float
    runs: int


def benchmark(networks: Mapping[str, nn.Module], batch: Batch, *, runs: int = 30) -> dict[str, Timing]:
    """Time networks in turn on one batch, so that a machine that drifts does not favour one of them.

    Args:
        networks: name -> network, on the device of the batch.
        batch: the input of every run.
        runs: counted runs of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for at in range(WARM_UP + runs):
            for name, network in networks.items():
                with evaluating(network):
                    start = perf_counter()
                    batch.run(network)
                    _wait()
                    if at >= WARM_UP:
                        seconds[name].append(perf_counter() - start)
    return {
        name: Timing(p50=1e3 * float(np.median(found)), p95=1e3 * float(np.percentile(found, 95)), runs=runs)
        for name, found in seconds.items()
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
