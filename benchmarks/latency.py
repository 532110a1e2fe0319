"""Whether a network that is given 60 % of the original's latency in ONNX Runtime takes that.

    POLYAD_DATA=... python benchmarks/latency.py [resnet56 mobilenet_v2]

On one thread and on two. Calibration, accuracy and refusals as in validated.py: on images that no test split holds.
What the network takes is measured at the end by itself: the median of the ratios to the original over runs in turn, in
sessions that no decision has seen. Beside it the network of the same menu at the same MACs, timed in the same turns.
Writes results/latency.json.
"""

import sys
from typing import Any

import numpy as np
import torch
from common import write
from torch import nn
from validated import Validated, work_folder

import polyad
from polyad.batches import Batch
from polyad.bench import Bench
from polyad.pipeline import Result
from polyad.rebuild import untrained
from polyad.timing import clocked

SHARE = 0.6
RUNTIME = "onnxruntime"
THREADS = (1, 2)
RUNS = 150
SEED = 0
CASES: dict[str, dict[str, Any]] = {
    "resnet56": {"forms": ["cp", "spatial_svd", "svd"], "samples": 300},
    "mobilenet_v2": {"forms": ["spatial_svd", "svd"], "samples": 100, "damage": "relative"},
}


def main() -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in sys.argv[1:] or CASES:
        data = Validated.open(name)
        for threads in THREADS:
            rows.append({"network": name, "threads": threads, **measured(data, threads)})
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
            write("latency", rows, SEED)


def measured(data: Validated, threads: int) -> dict[str, Any]:
    """Compress to the share of the latency, and to the MACs that this leaves; time all three in turn."""
    options = {**CASES[data.name], "seed": SEED, "work": work_folder(data.name)}
    calibration = [*data.fitted, *data.held_out]
    timing = {"runtime": RUNTIME, "threads": threads}
    result = polyad.compress(data.model, calibration, budget=polyad.Budget(latency=SHARE), **timing, **options)
    at_macs = polyad.plan(data.model, calibration, budget=polyad.Budget(macs=result.plan.macs), **options)
    plain = untrained(data.model, at_macs)
    bench = result.plan.timed.bench  # type: ignore[union-attr]
    by_latency, by_macs = ratios(bench, data.model, calibration[0].take(1), result.model, plain)
    after = data.judge(result.model)
    return {
        "budget": SHARE,
        "measured": by_latency,
        "off": round(by_latency["median"] / SHARE - 1, 4),
        "same_macs_by_a_budget_of_macs": by_macs,
        **told(result),
        "lost": round(-(after.difference or 0.0), 2),
        "standard_error": round(after.standard_error or 0.0, 2),
        "images": after.samples,
    }


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


def told(result: Result) -> dict[str, Any]:
    """What the report says of the latency, and of the rest."""
    latency, plan = result.report.latency, result.plan
    assert latency is not None
    return {
        "dense_ms": round(latency.before / 1e6, 3),
        "predicted": round(latency.predicted or 0.0, 4),
        "reported": round(latency.kept, 4),
        "prediction_error": round(latency.error or 0.0, 4),
        "rounds": [[round(x / plan.timed.before, 4) for x in (r.predicted, r.measured)] for r in latency.rounds],
        "macs_kept": round(result.report.macs.kept, 4),
        "params_kept": round(result.report.params.kept, 4),
        "forms": {form: sum(c.form == form for c in plan.choices) for form in {c.form for c in plan.choices}},
        "bench": str(latency.bench),
    }


if __name__ == "__main__":
    main()
