"""Whether a network that is given 60 % of the original's latency in ONNX Runtime takes that.

    POLYAD_DATA=... python benchmarks/latency.py [resnet56 mobilenet_v2]

On one thread and on two. Calibration, accuracy and refusals as in validated.py: on images that no test split holds.
What the network takes is measured at the end by itself: the median of the ratios to the original over runs in turn, in
sessions that no decision has seen. Beside it the network of the same menu at the same MACs, timed in the same turns.
Writes results/latency.json.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from common import HERE, write
from torch import nn
from validated import Validated, row_of, work_folder

import polyad
from polyad.batches import Batch
from polyad.bench import Bench
from polyad.rebuild import untrained
from polyad.records import Plan
from polyad.timing import clocked

SHARE = 0.6
RUNTIME = "onnxruntime"
THREADS = (1, 2)
RUNS = 150
SEED = 0
CASES: dict[str, dict[str, Any]] = {
    "resnet56": {"forms": ["cp", "spatial_svd", "svd"], "samples": 300},
    "mobilenet_v2": {"forms": ["svd"], "samples": 40, "damage": "relative"},
}


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(CASES)
    rows = [row for row in _written() if row["network"] not in names]
    for name in names:
        data = Validated.open(name)
        for threads in THREADS:
            rows.append({"network": name, "threads": threads, **measured(data, threads)})
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
            write("latency", rows, SEED)


def _written() -> list[dict[str, Any]]:
    """The rows of earlier calls."""
    file = HERE / "results" / "latency.json"
    return json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []


def measured(data: Validated, threads: int) -> dict[str, Any]:
    """Plan for the share of the latency, and for the MACs that this leaves; time all three in turn."""
    options = {**CASES[data.name], "seed": SEED, "work": work_folder(data.name)}
    calibration = [*data.fitted, *data.held_out]
    polyad.plan(data.model, calibration, budget=polyad.Budget(macs=0.9), **options)  # the menu is kept
    with undisturbed():
        budget = polyad.Budget(latency=SHARE)
        plan = polyad.plan(data.model, calibration, budget=budget, runtime=RUNTIME, threads=threads, **options)
        at_macs = polyad.plan(data.model, calibration, budget=polyad.Budget(macs=plan.macs), **options)
        students = (untrained(data.model, plan), untrained(data.model, at_macs))
        by_latency, by_macs = ratios(plan.timed.bench, data.model, calibration[0].take(1), *students)  # type: ignore[union-attr]
    result = polyad.compress(data.model, calibration, plan=plan, **options)
    return {
        "budget": SHARE,
        "measured": by_latency,
        "off": round(by_latency["median"] / SHARE - 1, 4),
        "same_macs_by_a_budget_of_macs": by_macs,
        **told(plan),
        **row_of(data.judge(result.model)),
    }


@contextmanager
def undisturbed() -> Iterator[None]:
    """Before other programs, where the system lets us: on as many threads as cores a run would wait for them."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def ratios(bench: Bench, original: nn.Module, batch: Batch, *students: nn.Module) -> list[dict[str, float]]:
    """Of each student to the original: the median over pairs of runs that followed each other, and between whom the
    middle half of them lies."""
    networks = {at: (network, batch) for at, network in enumerate((original, *students))}
    seconds = clocked(bench, networks, seconds=0, least=RUNS, most=RUNS)
    pairs = [np.array(seconds[at]) / np.array(seconds[0]) for at in range(1, len(networks))]
    return [
        dict(zip(("lower", "median", "upper"), np.quantile(found, (0.25, 0.5, 0.75)).round(4).tolist(), strict=True))
        for found in pairs
    ]


def told(plan: Plan) -> dict[str, Any]:
    """What the plan says of the latency, and of the rest."""
    timed = plan.timed
    assert timed is not None
    last = timed.rounds[-1]
    return {
        "dense_ms": round(timed.before / 1e6, 3),
        "rounds": [[round(x / timed.before, 4) for x in (one.predicted, one.measured)] for one in timed.rounds],
        "prediction_error": round(last.predicted / last.measured - 1, 4),
        "macs_kept": round(plan.macs / plan.macs_before, 4),
        "params_kept": round(plan.params / plan.params_before, 4),
        "forms": {form: sum(c.form == form for c in plan.choices) for form in {c.form for c in plan.choices}},
        "bench": str(timed.bench),
    }


if __name__ == "__main__":
    main()
