"""A limit of memory changes how often the data is gone through, how much is held, and nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from polyad.batches import Batch
from polyad.errors import BudgetError, CheckpointError, DataError
from polyad.gather import StatisticsOnDisk, gather
from polyad.observe import observe, room
from polyad.records import Site, Statistics
from polyad.sites import stacked
from polyad.splits import Call
from polyad.trace import trace
from polyad.work import Work

WIDE = """  # layers with many inputs and few outputs, side by side
import hashlib, json, sys
import torch
from torch import nn
import polyad

WIDTH, LAYERS, RANK = 512, 48, 1


def peak():
    # not ru_maxrss, which begins with what the parent process held when it started this one
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 8) for _ in range(LAYERS))

    def forward(self, x):
        return sum(layer(x * (at + 1)) for at, layer in enumerate(self.layers))


torch.manual_seed(0)
model = Wide()
fixed = {f"layers.{at}": ("svd", (RANK,)) for at in range(LAYERS)}
data = [torch.randn(16, WIDTH) for _ in range(2)]
memory = int(sys.argv[1]) or None
before = peak()
budget = polyad.Budget(params=0.99)
result = polyad.compress(model, data, budget=budget, fixed=fixed, memory=memory, recover="none", samples=32)
found = hashlib.sha256()
for tensor in result.model.state_dict().values():
    found.update(tensor.numpy().tobytes())
print(json.dumps({"grown": peak() - before, "model": found.hexdigest(), "plan": result.plan.model_dump_json()}))
"""

STATISTICS = 48 * 2 * 8 * 512**2
"""Bytes of the statistics of all layers of that network, with the held-out ones."""


def compressed(folder: Path, memory: int) -> dict:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    command = [sys.executable, "-c", WIDE, str(memory)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_what_is_held_is_bounded_and_the_result_the_same(tmp_path: Path) -> None:
    limit = 30_000_000
    free, bounded = compressed(tmp_path, 0), compressed(tmp_path, limit)
    assert (bounded["model"], bounded["plan"]) == (free["model"], free["plan"])
    assert free["grown"] > STATISTICS
    assert bounded["grown"] < free["grown"] - 0.6 * STATISTICS
    assert list(tmp_path.iterdir()) == []


class Net(nn.Module):
    """A convolution, two linear layers of one shape, a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 3, groups=2)
        self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.down(self.up(self.second(self.first(x)).mean((2, 3))).relu())


FITTED = [Batch((torch.rand(3, 4, 7, 7, generator=torch.Generator().manual_seed(at)),)) for at in range(3)]
HELD_OUT = [FITTED[0].part(0, 2)]


def sites_of(model: nn.Module) -> tuple[Site, ...]:
    found = trace(model, FITTED[0]).sites
    model.runs = 0
    return found


def most(sites: Sequence[Site], held_out: bool = True) -> int:
    """What the largest site takes."""
    return max(room(site, held_out=held_out) for site in sites)


def equal(one: Statistics, other: Statistics) -> bool:
    tensors = [(one.mean, other.mean), (one.moment, other.moment)]
    tensors += [(one.held_out, other.held_out), (one.held_out_mean, other.held_out_mean)]
    return one.count == other.count and all(torch.equal(a, b) for a, b in tensors)


def test_statistics_of_several_passes_are_those_of_one() -> None:
    model = Net()
    sites = sites_of(model)
    expected = observe(model, sites, FITTED, HELD_OUT)
    once, model.runs = model.runs, 0
    limit = most(sites)
    found = gather(model, sites, FITTED, HELD_OUT, memory=limit)
    assert isinstance(found, StatisticsOnDisk) and list(found) == [site.name for site in sites] == list(expected)
    assert all(equal(found[name], expected[name]) for name in expected)
    assert model.runs == 2 * once  # the wide layer, and the others together


def test_enough_memory_needs_no_disk(tmp_path: Path) -> None:
    model = Net()
    sites = sites_of(model)
    found = gather(model, sites, FITTED, HELD_OUT, memory=sum(room(site, held_out=True) for site in sites))
    assert isinstance(found, dict)


def test_room_is_what_two_halves_of_the_statistics_take() -> None:
    model = Net()
    found = stacked(trace(model, FITTED[0]), ["re:up|down"])
    for site in found.sites:
        one = observe(model, [site], FITTED)[site.name]
        assert room(site, held_out=False) == 2 * (one.mean.nbytes + one.moment.nbytes)


def test_passes_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    model = Net()
    sites = sites_of(model)
    limit = most(sites)
    gather(model, sites[:2], FITTED, HELD_OUT, memory=limit, work=Work(tmp_path))
    work = Work(tmp_path)
    found = gather(model, sites, FITTED, HELD_OUT, memory=limit, work=work)
    assert (work.taken["statistics"], work.made["statistics"]) == (2, 2)
    expected = observe(model, sites, FITTED, HELD_OUT)
    assert all(equal(found[name], expected[name]) for name in expected)
    for path in work.files:
        path.unlink()
    with pytest.raises(CheckpointError, match="statistics of first are no longer in"):
        found["first"]


def test_a_function_is_called_for_every_pass() -> None:
    model, calls = Net(), []
    sites = sites_of(model)

    def run(network: nn.Module) -> None:
        calls.append(len(calls))
        FITTED[0].run(network)

    found = gather(model, sites, [Call(run)], memory=most(sites, held_out=False))
    expected = observe(model, sites, [Call(lambda network: FITTED[0].run(network))])
    assert len(calls) == 2
    assert all(torch.equal(found[name].moment, expected[name].moment) for name in expected)


def test_a_function_that_runs_only_once_is_an_error() -> None:
    model = Net()
    sites, once = sites_of(model), iter(FITTED)
    with pytest.raises(DataError, match="No calibration batch reached second"):
        gather(model, sites, [Call(lambda net: [b.run(net) for b in once])], memory=most(sites, held_out=False))


def test_less_than_one_layer_needs_is_refused_with_what_is_needed() -> None:
    model = Net()
    sites = sites_of(model)
    with pytest.raises(BudgetError, match=r"statistics of first alone take 21\.32kB.*Give 24\.2kB or more"):
        gather(model, sites, FITTED, memory=5000)
