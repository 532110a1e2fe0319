"""What each allocator makes of one menu: predicted damage, divergence and accuracy at three budgets.

    POLYAD_DATA=... python benchmarks/allocators.py

ResNet-20 on lossless CIFAR-10, forms tucker2 and svd in the norm of the inputs, no recovery. Writes
results/allocators.json.
"""

import sys
import tempfile
from typing import Any

import torch
from accuracy import LOSSLESS, SEED, Bench
from common import write

import polyad
from polyad.allocators.allocate import allocate
from polyad.allocators.base import ALLOCATORS
from polyad.looking import look
from polyad.propose import propose
from polyad.rebuild import factorise, rebuild
from polyad.settings import Settings
from polyad.work import Work

SHARES = (0.5, 0.35, 0.25)
SAMPLES = 256
STEPS = 40


def main() -> None:
    torch.set_num_threads(1)
    bench = Bench("resnet20", LOSSLESS, SAMPLES)
    settings, model = Settings(forms=("tucker2", "svd"), samples=SAMPLES), bench.source.module
    seen = look(model, bench.calibration, settings)
    menu = propose(seen.expanded.model, seen.trace, seen.statistics, settings)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Work(folder)
        for name in ALLOCATORS:
            prepared = ALLOCATORS[name].prepare(model, menu)
            for share in SHARES:
                plan = allocate(prepared, polyad.Budget(params=share), allocator=name)
                fitted = factorise(seen.expanded.model, plan, seen.statistics, steps=STEPS, work=work)
                after = polyad.evaluate(rebuild(model, fitted), bench.test, reference=bench.dense)
                found.append(
                    {
                        "allocator": name,
                        "budget": share,
                        "kept": round(plan.params / plan.params_before, 4),
                        "damage": round(sum(choice.damage for choice in plan.choices), 4),
                        "worst": round(max(choice.damage for choice in plan.choices), 4),
                        "divergence": round(after.divergence or 0.0, 4),
                        "accuracy": round(after.value, 2),
                    }
                )
                sys.stdout.write(f"{found[-1]}\n")
                sys.stdout.flush()
    sys.stdout.write(f"written to {write('allocators', found, SEED)}\n")


if __name__ == "__main__":
    main()
