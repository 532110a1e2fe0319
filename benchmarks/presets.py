"""Every preset on the same networks, data, budgets and recovery: what each loses against the original.

    POLYAD_DATA=... python benchmarks/presets.py resnet20 resnet56 vdsr stories260k mobilenet_v2 [--seeds 3]

Label-free; `statistics` recovery for all, and `auto+refit` beside them, which refits in sequence; `auto-1` is `auto`
without comparing whole networks. Calibration and tests are those of tested.py. Writes
results/presets_<network>.json as rows come.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from common import HERE, provenance, rows_at, write
from tested import Tested

import polyad
from polyad.errors import PolyadError
from polyad.presets import PRESETS, preset

CIFAR = tuple(("kernels", share) for share in (0.5, 0.35, 0.25, 0.15))
BUDGETS = {
    "resnet20": (*CIFAR, ("macs", 0.5), ("macs", 0.35)),
    "resnet56": (*CIFAR[:3], ("macs", 0.5), ("macs", 0.35)),
    "mobilenet_v2": (("params", 0.75), ("macs", 0.75)),
    "vdsr": (("params", 0.5), ("params", 0.25)),
    "stories260k": (("params", 0.8), ("params", 0.6)),
}
VARIANTS: dict[str, dict[str, Any]] = {
    name: dict(preset(name)) | {"recover": "statistics"} for name in PRESETS if name != "auto"
}
AUTO = dict(preset("auto")) | {"recover": "statistics"}
VARIANTS |= {"auto": AUTO, "auto-1": AUTO | {"finalists": 1}, "auto+refit": AUTO | {"recover": "refit"}}
ABLATION: dict[str, tuple[Any, ...]] = {
    "metric": ("weights", "curvature"),
    "forms": (("svd",), ("tucker2", "svd"), ("cp",)),
    "allocator": ("uniform", "energy", "minmax", "greedy"),
    "damage": ("relative", "curvature"),
    "recover": ("none",),
}
"""One factor at a time; `auto-1` and `auto+refit` belong to it."""

for _factor, _values in ABLATION.items():
    for _value in _values:
        _said = "+".join(_value) if isinstance(_value, tuple) else _value
        VARIANTS[f"auto:{_factor}={_said}"] = AUTO | {_factor: _value}
MANY_SEEDS = ("auto", "auto-1", "auto+refit")
"""What is drawn with every seed; the others with the first."""

ABLATED = ("kernels 50%", "kernels 25%")
"""Budgets of the ablation."""


@dataclass(frozen=True)
class Job:
    """One network made and tested; its statistics, fits and probes are shared through the folder of work."""

    network: str
    variant: str
    seed: int
    data: str
    budget: tuple[str, float]
    folder: str

    @property
    def title(self) -> str:
        return f"{self.budget[0]} {self.budget[1]:.0%}"

    @property
    def cell(self) -> tuple[Any, ...]:
        """What tells its row from others."""
        return self.network, self.variant, self.seed, self.data, self.title


def cell(row: dict[str, Any]) -> tuple[Any, ...]:
    """The same of a row that a file holds."""
    return tuple(row[name] for name in ("network", "preset", "seed", "calibration", "budget"))


def measure(job: Job) -> dict[str, Any]:
    """A row."""
    torch.set_num_threads(1)
    tested = Tested.open(job.network, job.seed, job.data)
    row: dict[str, Any] = {"network": job.network, "preset": job.variant, "seed": job.seed, "calibration": job.data}
    row["budget"] = job.title
    start = perf_counter()
    try:
        found = polyad.compress(
            tested.model,
            tested.calibration,
            budget=tested.budget(*job.budget),
            samples=10**6,
            seed=job.seed,
            work=Path(job.folder) / f"{job.network}-{job.seed}-{job.data}",
            **VARIANTS[job.variant],
        )
    except PolyadError as error:  # a method that cannot give so little
        return row | {"refused": str(error)}
    row |= {"seconds": round(perf_counter() - start, 1), "params_kept": round(found.report.params.kept, 4)}
    row |= {"macs_kept": round(found.report.macs.kept, 4), "rule": found.plan.rule}
    return row | {"tests": {name: test(found.model) for name, test in tested.tests.items()}}


def jobs(arguments: argparse.Namespace, folder: str) -> list[Job]:
    """First one budget of every method, which fills the folder of work; what shares its menu later."""
    found = []
    for network in arguments.networks:
        for name in arguments.presets or VARIANTS:
            for budget in BUDGETS[network]:
                for seed in range(arguments.seeds if name in MANY_SEEDS else 1):
                    found.append(Job(network, name, seed, "lossless", budget, folder))
                if name in arguments.also_jpeg and network.startswith("resnet"):
                    found.append(Job(network, name, 0, "jpeg", budget, folder))
    found = [
        job for job in found if ":" not in job.variant or (job.network in arguments.ablate and job.title in ABLATED)
    ]
    found = [job for job in found if not arguments.budgets or job.title in arguments.budgets]

    def late(job: Job) -> tuple[bool, bool, int]:
        shares_menu = job.variant != "auto-1" and job.variant.startswith("auto")
        return shares_menu, job.budget != BUDGETS[job.network][0], job.seed

    return sorted(found, key=late)


def told(row: dict[str, Any]) -> str:
    """One line."""
    head = " ".join(str(row[name]) for name in ("network", "calibration", "seed", "budget", "preset"))
    if "refused" in row:
        return f"{head}: {row['refused']}\n"
    tests = (f"{name} {t['lost']} ± {t.get('standard_error', '')} {t['unit']}" for name, t in row["tests"].items())
    return f"{head}: {'; '.join(tests)}, {row['seconds']} s\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=BUDGETS)
    parser.add_argument("--presets", nargs="*", choices=VARIANTS, help="all by default")
    parser.add_argument("--also-jpeg", nargs="*", default=("auto",), choices=VARIANTS, help="calibrated on JPEG too")
    parser.add_argument(
        "--ablate", nargs="*", default=("resnet20",), choices=BUDGETS, help="one factor at a time there"
    )
    parser.add_argument("--budgets", nargs="*", help="such as 'kernels 50%%'; all by default")
    parser.add_argument("--add", action="store_true", help="to the rows that the files hold, each with its commit")
    parser.add_argument("--missing", action="store_true", help="only rows that the files lack; adds to them")
    parser.add_argument("--work", help="folder that keeps statistics and fits for a later call")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the JSON files")
    arguments = parser.parse_args()
    rows = {
        name: rows_at(arguments.out / f"presets_{name}.json") if arguments.add or arguments.missing else []
        for name in arguments.networks
    }
    known = {cell(row) for name in arguments.networks for row in rows[name]} if arguments.missing else set()
    commit = provenance(0)["commit"]
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool,
    ):
        asked = [job for job in jobs(arguments, arguments.work or folder) if job.cell not in known]
        for job in as_completed([pool.submit(measure, job) for job in asked]):
            row = job.result() | {"commit": commit}
            name = row["network"]
            rows[name].append(row)
            sys.stdout.write(told(row))
            sys.stdout.flush()
            write(f"presets_{name}", rows[name], arguments.seeds, arguments.out / f"presets_{name}.json")


if __name__ == "__main__":
    main()
