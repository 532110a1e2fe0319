"""What each recovery level wins back, and in what time; the test data looked at once, at its end.

    POLYAD_DATA=... python benchmarks/recovery.py resnet20-25 [--levels refit reconstruction distillation]
        [--minutes 3 20 | --epochs 90] [--seeds 3] [--work DIR] [--starts DIR] [--add]

One network for each case and seed, made by `--preset auto` without a recovery; every level starts from it, but those
that train from what `refit` made of it, where that is among the levels: its seconds are then in theirs. They have each
of the minutes, or of the epochs, as their limit. Cases, and what they learn from: recovery_cases.py. Writes
results/recovery_<case>.json as rows come; with --work an interrupted run goes on. With --starts the network and what
`refit` made of it are kept, so that levels that train can be measured on another machine, on its graphics card where
it has one.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from common import HERE, provenance, rows_at, write
from recovery_cases import CASES, Case, Start
from tested import DEVICE

import polyad
from polyad.presets import preset
from polyad.recovery.base import RECOVERIES
from polyad.work import NOTHING_KEPT, Work

LEVELS = ("none", "statistics", "refit", "reconstruction", "distillation")
BLOCKS = "reconstruction"


def made(case: Case, seed: int, work: Work) -> Start:
    """The compressed network."""
    calibration = list(case.opened.calibration)
    options: dict[str, Any] = dict(preset("auto")) | {"recover": "none", "samples": 10**6, "seed": seed}
    budget = case.opened.budget(case.unit, case.share)
    found = polyad.compress(case.model, calibration, budget=budget, work=work, **options)
    return Start(found.model, found.plan, (found.model, 0.0))


def rows(name: str, seed: int, asked: argparse.Namespace, work: Work) -> Iterator[dict[str, Any]]:
    torch.manual_seed(seed)
    case, kept = CASES[name](seed), asked.starts and asked.starts / f"{name}-{seed}.pt"
    case.model.to(DEVICE)
    found = kept and kept.exists()
    start = torch.load(kept, map_location="cpu", weights_only=False) if found else made(case, seed, work)
    limits = [{"epochs": n} for n in asked.epochs] or [{"time": 60 * minutes} for minutes in asked.minutes]
    for level in sorted(asked.levels, key=LEVELS.index):
        recovery = RECOVERIES[level]
        for limit in limits if recovery.trains else [{}]:
            origin, spent = start.refitted if recovery.trains else (start.student, 0.0)
            training = (case.blocks if level == BLOCKS else case.whole).model_copy(update={"seed": seed} | limit)
            given = start.lesson(case, work if recovery.trains else NOTHING_KEPT)  # what is kept takes no time
            student, clocks = deepcopy(origin).to(DEVICE), (perf_counter(), process_time())
            notes = recovery.run(replace(given, student=student, training=training))
            seconds, processor = perf_counter() - clocks[0] + spent, process_time() - clocks[1]
            if level == "refit":
                start = replace(start, refitted=(student, seconds))
                if kept:
                    torch.save(start, kept)
            row = {"case": name, "level": level, "minutes": limit.get("time", 0) / 60 or None, "seed": seed}
            row |= {"epochs": limit.get("epochs"), "threads": torch.get_num_threads(), "device": DEVICE}
            row |= {"seconds": round(seconds, 1), "processor_seconds": round(processor, 1), "notes": notes}
            yield row | {"tests": {which: test(student) for which, test in case.tests.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--minutes", nargs="+", type=float, default=[5.0])
    parser.add_argument("--epochs", nargs="+", type=int, default=[], help="in place of minutes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--add", action="store_true", help="to the rows that the files hold, each with its commit")
    parser.add_argument("--work", type=Path, help="folder for finished work")
    parser.add_argument("--starts", type=Path, help="folder of networks that levels which train start from")
    arguments = parser.parse_args()
    commit = provenance(0)["commit"]
    for name in arguments.cases:
        path = HERE / "results" / f"recovery_{name}.json"
        found = rows_at(path) if arguments.add else []
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as folder:
                work = Work(arguments.work or Path(folder))
                for row in rows(name, seed, arguments, work):
                    found.append(row | {"commit": commit})
                    sys.stdout.write(f"{found[-1]}\n")
                    sys.stdout.flush()
                    write(f"recovery_{name}", found, seed)


if __name__ == "__main__":
    main()
