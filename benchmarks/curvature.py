"""How far to shrink the gradients' moment of the curvature norm: divergence after compression, amount by amount.

    POLYAD_DATA=... python benchmarks/curvature.py

ResNet-20 on lossless CIFAR-10, forms cp and tucker2, no recovery. Writes results/curvature.json.
"""

import sys
from typing import Any

import torch
from accuracy import LOSSLESS, SEED, Bench
from common import write

import polyad
from polyad.allocators.allocate import allocate
from polyad.damages.assess import assess
from polyad.damages.base import Ground
from polyad.looking import Observed, look
from polyad.metrics import curvature
from polyad.propose import propose
from polyad.rebuild import factorise, rebuild
from polyad.settings import Settings

SHARES = (0.7, 0.5, 0.35, 0.25)
AMOUNTS = (None, 0.1, 0.5, 0.8, 0.9, 1.0)
"""None is the inputs norm."""

SAMPLES = 500
STEPS = 40


def rows(bench: Bench, seen: Observed, settings: Settings, amount: float | None) -> list[dict[str, Any]]:
    """One amount at every budget; the menu is fitted once."""
    if amount is not None:
        curvature.SHRINKAGE = amount
    settings = settings.model_copy(update={"metric": "inputs" if amount is None else "curvature"})
    menu, found = propose(seen.expanded.model, seen.trace, seen.statistics, settings), []
    ground = Ground(seen.expanded.model, seen.statistics)
    menu = assess(menu, "relative" if amount is None else "curvature", ground)
    for share in SHARES:
        plan = allocate(menu, bench.budget("params", share))
        student = rebuild(bench.source.module, factorise(seen.expanded.model, plan, seen.statistics, steps=STEPS))
        after = polyad.evaluate(student, bench.test, reference=bench.dense)
        found.append(
            {
                "norm": settings.metric,
                "shrinkage": amount,
                "kept": share,
                "predicted": round(sum(choice.damage for choice in plan.choices), 4),
                "divergence": round(after.divergence or 0.0, 4),
                "accuracy": round(after.value, 2),
            }
        )
    return found


def main() -> None:
    torch.set_num_threads(1)
    bench = Bench("resnet20", LOSSLESS, SAMPLES)
    settings = Settings(metric="curvature", forms=("cp", "tucker2"), samples=SAMPLES)
    seen = look(bench.source.module, bench.calibration, settings)
    found = []
    for amount in AMOUNTS:
        found += rows(bench, seen, settings, amount)
        sys.stdout.write(f"{found[-len(SHARES) :]}\n")
        sys.stdout.flush()
    sys.stdout.write(f"written to {write('curvature', found, SEED)}\n")


if __name__ == "__main__":
    main()
