"""What training block by block wins back, on images that nothing else saw, and once on the test images.

    POLYAD_DATA=... python benchmarks/reconstruction.py resnet20 vdsr mobilenet_v2

One plan for each network, made on its calibration images as in tested.py; then each level from the same network.
ResNet-20 learns from 3,000 more images of the training split and is judged on 500, VDSR from 384 and on 96 patches;
MobileNetV2 learns from, and is judged on, the half of the sample that it was calibrated on. "unseen" is 2,000 other
images of the training split (ResNet-20), 128 other patches (VDSR), "test" what tested.py says, for MobileNetV2 the
other half of the sample. With `--work DIR` an interrupted run goes on.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import tested
import torch
from accuracy import LOSSLESS
from common import data_folder, write
from tested import Test, Tested, test_on
from torch import nn
from torch.utils.data import Subset

import polyad
from polyad.batches import Batch, as_batches
from polyad.data import calibration_alone, loader
from polyad.evaluation import divergence, outputs
from polyad.looking import HELD_OUT
from polyad.progress import silent
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.settings import Training
from polyad.splits import hold_out, merge
from polyad.work import Work

SEED = 0
LEVELS = ("none", "refit", "reconstruction")


@dataclass(frozen=True)
class Case:
    """One network with its data.

    Attributes:
        unit, share: of the budget.
        learned, judges: to learn from, and to judge by; what it was calibrated on by default.
        tests: by name; a network -> what it loses.
    """

    opened: Tested
    unit: str
    share: float
    tests: dict[str, Test]
    training: Training
    learned: Sequence[Batch] = ()
    judges: Sequence[Batch] = ()


def resnet20() -> Case:
    opened = Tested.open("resnet20", SEED)
    source = polyad.open_data(f"npz:{data_folder() / LOSSLESS[0]}", polyad.open_model("zoo:resnet20").preprocessing)
    drawn: Subset = calibration_alone(source, 1000, SEED)  # type: ignore[assignment]
    taken = set(drawn.indices)
    rest = [at for at in range(len(drawn.dataset)) if at not in taken]  # type: ignore[arg-type]

    def part(start: int | None, stop: int | None) -> list[Batch]:
        return as_batches(loader(Subset(drawn.dataset, rest[start:stop]), 250))

    tests = {"unseen": test_on(opened.model, part(-2000, None)), "test": opened.tests["lossless"]}
    learned = [*opened.calibration, *part(0, 3000)]
    return Case(opened, "kernels", 0.25, tests, Training(), learned, part(3000, 3500))


def vdsr() -> Case:
    opened = Tested.open("vdsr", SEED)
    before = dict(tested.CALIBRATION)
    tested.CALIBRATION["vdsr"] = 608
    more = merge(tested._vdsr(SEED + 1)[1], 608)
    tested.CALIBRATION.update(before)
    unseen = [more.part(at, at + 32) for at in range(480, 608, 32)]
    tests = {"unseen": partial(_relative, opened.model, unseen), "test": opened.tests["Set5"]}
    return Case(
        opened,
        "kernels",
        0.15,
        tests,
        Training(epochs=30, batch=8, rate=2e-3),
        [more.part(0, 384)],
        [more.part(384, 480)],
    )


def mobilenet_v2() -> Case:
    tested.CALIBRATION["mobilenet_v2"] = 500
    opened = Tested.open("mobilenet_v2", SEED)
    return Case(opened, "params", 0.6, {"test": opened.tests["sample"]}, Training(epochs=20, batch=32, augment="none"))


def _relative(teacher: nn.Module, batches: Sequence[Batch], student: nn.Module) -> dict[str, Any]:
    return {
        "lost": round(divergence(outputs(teacher, batches), outputs(student, batches)), 6),
        "unit": "relative error",
    }


CASES: dict[str, Callable[[], Case]] = {"resnet20": resnet20, "vdsr": vdsr, "mobilenet_v2": mobilenet_v2}


def rows(name: str, folder: Path | None, final: bool) -> Iterator[dict[str, Any]]:
    case, work = CASES[name](), Work(folder)
    model, calibration = case.opened.model, list(case.opened.calibration)
    samples = sum(batch.size for batch in calibration)
    budget, options = case.opened.budget(case.unit, case.share), {"samples": samples, "seed": SEED, "recover": "none"}
    made = polyad.compress(model, calibration, budget=budget, work=work, **options)
    fitted, held_out = hold_out(calibration, HELD_OUT)
    lesson = Lesson(made.model, model, made.plan, fitted, held_out, silent, case.training, case.learned, case.judges)
    for level in LEVELS:
        student, clock = deepcopy(made.model), (perf_counter(), process_time())
        notes = RECOVERIES[level].run(replace(lesson, student=student, work=work))
        seconds = {"seconds": perf_counter() - clock[0], "processor_seconds": process_time() - clock[1]}
        tests = {which: test(student) for which, test in case.tests.items() if final or which != "test"}
        what = {"network": name, "budget": f"{case.unit} {case.share:.0%}", "level": level}
        yield what | tests | {key: round(value, 1) for key, value in seconds.items()} | {"notes": notes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[*CASES, []], default=list(CASES))
    parser.add_argument("--work", type=Path, help="folder for finished work")
    parser.add_argument("--no-test", action="store_true", help="leave the test images alone")
    parser.add_argument("--out", type=Path, help="folder of the JSON files (benchmarks/results)")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    for name in arguments.networks:
        found = []
        for row in rows(name, arguments.work, not arguments.no_test):
            found.append(row)
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
            out = None if arguments.out is None else arguments.out / f"reconstruction-{name}.json"
            write(f"reconstruction-{name}", found, SEED, out)


if __name__ == "__main__":
    main()
