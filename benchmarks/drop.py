"""How near the smallest network a `drop` budget comes, against a fine manual sweep of the same share.

    POLYAD_DATA=... python benchmarks/drop.py [resnet56] [--drop 1.0]

Both judge by the same 2,000 labelled training images, which nothing is fitted to. The sweep goes down from the share
that the search found, in steps of 2 % of it, through everything that it may have overlooked below: loss is no
monotonic function of the share, so a smaller one may keep within the drop where a larger one did not.
"""

import argparse
import sys
import tempfile
from time import perf_counter
from typing import Any

import torch
from common import write
from validated import Validated

import polyad
from polyad.batches import Batch

SEED, JUDGED = 0, 2000
STEP, STEPS = 0.98, 6
"""From one share of the sweep to the next, and how many lie below what the search found; one lies above."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="resnet56", choices=("resnet20", "resnet56"))
    parser.add_argument("--drop", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Validated.open(arguments.network, JUDGED)
    calibration: list[Batch] = [*bench.fitted, *bench.held_out]
    given: dict[str, Any] = {"seed": SEED, "samples": 10**6}
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        budget = polyad.Budget(drop=arguments.drop)
        found = polyad.compress(
            bench.model, calibration, budget=budget, validation=bench.validation, work=folder, **given
        )
        seconds, curve = perf_counter() - start, found.report.curve
        share = found.report.params.kept
        said = {"network": arguments.network, "drop": arguments.drop, "share": share, "evaluations": len(curve)}
        rows = [said | {"seconds": round(seconds, 1), "curve": [(p.share, p.drop) for p in curve]}]
        sys.stdout.write(f"{rows[0]}\n")
        for step in range(-1, STEPS + 1):
            kept = share * STEP**step
            swept = polyad.compress(bench.model, calibration, budget=polyad.Budget(params=kept), work=folder, **given)
            judged = bench.judge(swept.model)
            rows.append({"kept": swept.report.params.kept, "drop": -(judged.difference or 0.0)})
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
            write(f"drop_{arguments.network}", rows, SEED)
    within = [row["kept"] for row in rows[1:] if row["drop"] <= arguments.drop]
    rows[0]["least_of_sweep"] = min(within, default=None)
    write(f"drop_{arguments.network}", rows, SEED)
    sys.stdout.write(f"search {share:.4f}, sweep {rows[0]['least_of_sweep']}\n")


if __name__ == "__main__":
    main()
