"""What recovery levels are worth on images that no fit has seen, and the test images left alone.

    POLYAD_DATA=... python benchmarks/refit.py resnet20 resnet56

One plan for each budget, made on 1,000 calibration images of the training split as in accuracy.py; then each level from
the same network. Judged on 3,000 other images of that split. "refit, no gate" looks through no ReLU, "refit, no gate,
no shortcuts" also takes the site's own output for what is wanted.
"""

import argparse
import sys
from collections.abc import Iterator
from copy import deepcopy
from time import perf_counter, process_time
from typing import Any

from accuracy import LOSSLESS, SEED, Bench
from common import write
from torch.utils.data import Subset

import polyad
import polyad.recovery.refit as refitting
from polyad.batches import as_batches
from polyad.data import loader
from polyad.evaluation import outputs
from polyad.looking import HELD_OUT
from polyad.progress import silent
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.splits import hold_out

BUDGETS = {
    "resnet20": (("params", 0.5), ("params", 0.35), ("params", 0.25), ("params", 0.15)),
    "resnet56": (("params", 0.25), ("macs", 0.35)),
}
LEVELS: dict[str, tuple[str, dict[str, bool]]] = {
    "none": ("none", {}),
    "statistics": ("statistics", {}),
    "refit, no gate, no shortcuts": ("refit", {"GATE": False, "SHORTCUTS": False}),
    "refit, no gate": ("refit", {"GATE": False}),
    "refit": ("refit", {}),
}
IMAGES = 3000


def rows(network: str) -> Iterator[dict[str, Any]]:
    bench = Bench(network, LOSSLESS, 1000)
    calibration: Subset = bench.calibration.dataset  # type: ignore[assignment]
    drawn = set(calibration.indices)
    others = [at for at in range(len(calibration.dataset)) if at not in drawn][:IMAGES]  # type: ignore[arg-type]
    judged = as_batches(loader(Subset(calibration.dataset, others), 250))
    dense = outputs(bench.source.module, judged)
    fitted, held_out = hold_out(as_batches(bench.calibration, 1000), HELD_OUT)
    for unit, share in BUDGETS[network]:
        options: dict[str, Any] = {"samples": 1000, "seed": SEED, "recover": "none"}
        made = polyad.compress(bench.source.module, bench.calibration, budget=bench.budget(unit, share), **options)
        for name, (level, switches) in LEVELS.items():
            student = deepcopy(made.model)
            clock = perf_counter(), process_time()
            before = {key: getattr(refitting, key) for key in switches}
            vars(refitting).update(switches)
            notes = RECOVERIES[level].run(Lesson(student, bench.source.module, made.plan, fitted, held_out, silent))
            vars(refitting).update(before)
            found = polyad.evaluate(student, judged, reference=dense)
            yield {
                "network": network,
                "budget": f"{unit} {share:.0%}",
                "level": name,
                "accuracy": round(found.value, 2),
                "difference": found.difference,
                "standard_error": found.standard_error,
                "divergence": found.divergence,
                "seconds": round(perf_counter() - clock[0], 1),
                "processor_seconds": round(process_time() - clock[1], 1),
                "notes": notes,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[*BUDGETS, []], default=list(BUDGETS))
    for network in parser.parse_args().networks:
        found = []
        for row in rows(network):
            found.append(row)
            sys.stdout.write(
                f"{row['network']} {row['budget']} {row['level']}: {row['accuracy']} ({row['difference']:+.2f} ± "
                f"{row['standard_error']:.2f}), divergence {row['divergence']:.4f}, {row['processor_seconds']} s\n"
            )
            sys.stdout.flush()
        sys.stdout.write(f"written to {write(f'refit-{network}', found, SEED)}\n")


if __name__ == "__main__":
    main()
