"""How long a whole menu takes: every default form at eight ranks for every layer, and how much memory.

    python benchmarks/menu.py resnet20 resnet56 resnet110 resnet20x2 resnet20x4 resnet50 gpt2

Weights are random and inputs are noise: neither changes what a fit costs by much. Each network is a process of its own,
so that its peak memory is its own. `floor` is the time that one evaluation of every entry of the menu takes in any
method that looks at the full norm (rows times C, times the weight) at the measured rate of float32 matrix products.
"""

import resource
import sys
from math import prod
from time import perf_counter, process_time
from typing import Any

import torch
from common import each_alone
from shaped import GPT2Small, resnet50
from torch import Tensor, nn

from polyad.batches import as_batches
from polyad.decompositions.base import FORMS
from polyad.ladders import SHARES
from polyad.menu import Menu
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.propose import propose
from polyad.records import Site
from polyad.sites import weight_of
from polyad.solvers import ranks_within
from polyad.solvers.problem import Problem
from polyad.trace import trace
from polyad.zoo.cifar_resnet import CifarResNet

SEED = 0


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network and its calibration inputs."""
    torch.manual_seed(SEED)
    if name == "gpt2":
        return GPT2Small().eval(), torch.randint(50257, (16, 128))
    if name == "resnet50":
        return resnet50().eval(), torch.randn(32, 3, 224, 224)
    depth, _, width = name.removeprefix("resnet").partition("x")
    return CifarResNet((int(depth) - 2) // 6, 16 * int(width or 1)).eval(), torch.randn(128, 3, 32, 32)


def rate(size: int = 1024) -> float:
    """Multiply-accumulates a second of float32 matrix products on all threads."""
    a, seconds = torch.randn(size, size), []
    for _ in range(10):
        start = perf_counter()
        a @ a
        seconds.append(perf_counter() - start)
    return size**3 / sorted(seconds)[len(seconds) // 2]


def evaluations(model: nn.Module, sites: tuple[Site, ...]) -> float:
    """Multiply-accumulates of one evaluation of every entry of the menu."""
    total = 0.0
    for site in sites:
        groups, out, inp, *kernel = site.layer.weight_shape
        n = inp * prod(kernel)
        flat = Problem(weight_of(model, site).detach().double().flatten(2), None)
        for form in FORMS.menu(None):
            if form.refuses(site.layer):
                continue
            for rank in ranks_within(form, site.layer, flat, SHARES):
                holder = next(at for at, letters in enumerate(form.letters) if set(letters) & set(form.outputs))
                rows = prod(form.factor_shapes(site.layer, rank)[holder][1:]) // out
                diagonal = site.layer.kind == "embedding"
                total += groups * rows * n * ((0 if diagonal else n) + 2 * out)
    return total


def measure(name: str) -> dict[str, Any]:
    model, inputs = network(name)
    batches = as_batches(inputs.split(len(inputs) // 4))
    found = trace(model, batches[0])
    start = perf_counter()
    statistics = observe(model, found.sites, batches[:-1], batches[-1:])
    observed = perf_counter() - start
    start, busy = perf_counter(), process_time()
    menu: Menu = propose(model, found, statistics)
    seconds, busy = perf_counter() - start, process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    floor = evaluations(model, found.sites) / rate()
    return {
        "params": found.params,
        "layers": len(found.sites),
        "candidates": sum(len(c) for c in menu.candidates.values()),
        "norm": METRICS["inputs"].name,
        "observe_s": round(observed, 1),
        "menu_s": round(seconds, 1),
        "processor_s": round(busy, 1),
        "floor_s": round(floor, 2),
        "times_floor": round(seconds / floor, 1),
        "peak_gib": round(peak, 2),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    each_alone("menu", measure, sys.argv[1:], SEED)
