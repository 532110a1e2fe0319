"""Peak memory of a whole menu of one wide layer with its full norm.

    python benchmarks/memory.py [512x512x3x3] [4096x11008]

Each layer is a process of its own. The statistics (the second moment of the inputs, float64) are made up; `statistics`
is what they take, `peak` what the process takes at most, PyTorch included.
"""

import resource
import sys
from time import perf_counter, process_time
from typing import Any

import torch
from common import each_alone
from torch import nn

from polyad.batches import Batch
from polyad.propose import propose
from polyad.records import Statistics
from polyad.settings import Settings
from polyad.trace import trace

LAYERS = {
    "512x512x3x3": (nn.Conv2d(512, 512, 3, padding=1), (1, 512, 7, 7)),
    "4096x11008": (nn.Linear(11008, 4096), (1, 11008)),
}
SEED, GIB = 0, 2**30


def moment(n: int) -> torch.Tensor:
    """A second moment (1, n, n) of falling spectrum, made in place."""
    torch.manual_seed(SEED)
    samples = torch.randn(512, n, dtype=torch.float64)
    found = samples.T @ samples
    found.div_(512).diagonal().add_(0.1)
    return found.unsqueeze(0)


def measure(name: str) -> dict[str, Any]:
    layer, shape = LAYERS[name]
    model = nn.Sequential(layer)
    found = trace(model, Batch((torch.randn(shape),)))
    site = found.sites[0]
    n = layer.weight[0].numel()
    seen = moment(n)
    statistics = Statistics(10_000, torch.zeros(1, n, dtype=torch.float64), seen, noise=torch.full((1,), 0.01 * n))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    start, busy = perf_counter(), process_time()
    menu = propose(model, found, {site.name: statistics}, Settings())
    seconds, busy = perf_counter() - start, process_time() - busy
    return {
        "inputs": n,
        "statistics_gib": round(seen.nbytes / GIB, 2),
        "before_gib": round(before, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
        "candidates": len(menu.candidates[site.name]),
        "seconds": round(seconds, 1),
        "processor_s": round(busy, 1),
    }


if __name__ == "__main__":
    each_alone("memory", measure, sys.argv[1:] or LAYERS, SEED)
