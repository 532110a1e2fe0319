"""What each recovery level wins back, and in what time; the test data looked at once, at its end.

    POLYAD_DATA=... python benchmarks/recovery.py resnet20-25 [--levels refit reconstruction distillation]
        [--minutes 3 20] [--seeds 3] [--work DIR] [--add]

One network for each case and seed, made by `--preset auto` without a recovery; every level starts from it, but those
that train from what `refit` made of it, where that is among the levels: its seconds are then in theirs. They have each
of the minutes as their limit. Cases, and what they learn from: recovery_cases.py. Writes results/recovery_<case>.json
as rows come; with --work an interrupted run goes on.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from common import HERE, provenance, rows_at, write
from recovery_cases import CASES, Case

import polyad
from polyad.lessons import lesson
from polyad.looking import HELD_OUT
from polyad.presets import preset
from polyad.progress import silent
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.splits import hold_out
from polyad.work import NOTHING_KEPT, Work

LEVELS = ("none", "statistics", "refit", "reconstruction", "distillation")
BLOCKS = "reconstruction"


def made(case: Case, seed: int, work: Work) -> Lesson:
    """The compressed network and all that a recovery works with."""
    calibration = list(case.opened.calibration)
    options: dict[str, Any] = dict(preset("auto")) | {"recover": "none", "samples": 10**6, "seed": seed}
    budget = case.opened.budget(case.unit, case.share)
    found = polyad.compress(case.model, calibration, budget=budget, work=work, **options)
    parts = hold_out(calibration, HELD_OUT)
    start = lesson(found.model, case.model, found.plan, parts, work=work, progress=silent)
    return replace(start, learned=case.learned, unseen=case.judges)


def rows(name: str, seed: int, levels: Sequence[str], minutes: Sequence[float], work: Work) -> Iterator[dict[str, Any]]:
    torch.manual_seed(seed)
    case = CASES[name](seed)
    start = made(case, seed, work)
    refitted = (start.student, 0.0)
    for level in sorted(levels, key=LEVELS.index):
        recovery = RECOVERIES[level]
        for limit in minutes if recovery.trains else [None]:
            origin, spent = refitted if recovery.trains else (start.student, 0.0)
            student, clocks = deepcopy(origin), (perf_counter(), process_time())
            own = {"seed": seed} if limit is None else {"seed": seed, "time": 60 * limit}
            training = (case.blocks if level == BLOCKS else case.whole).model_copy(update=own)
            keeps = start.work if recovery.trains else NOTHING_KEPT  # what is kept takes no time
            notes = recovery.run(replace(start, student=student, training=training, work=keeps))
            row = {"case": name, "level": level, "minutes": limit, "seed": seed, "threads": torch.get_num_threads()}
            seconds = perf_counter() - clocks[0] + spent
            refitted = (student, seconds) if level == "refit" else refitted
            row |= {"seconds": round(seconds, 1)}
            row |= {"processor_seconds": round(process_time() - clocks[1], 1), "notes": notes}
            yield row | {"tests": {which: test(student) for which, test in case.tests.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--minutes", nargs="+", type=float, default=[5.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--add", action="store_true", help="to the rows that the files hold, each with its commit")
    parser.add_argument("--work", type=Path, help="folder for finished work")
    arguments = parser.parse_args()
    commit = provenance(0)["commit"]
    for name in arguments.cases:
        path = HERE / "results" / f"recovery_{name}.json"
        found = rows_at(path) if arguments.add else []
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as folder:
                work = Work(arguments.work or Path(folder))
                for row in rows(name, seed, arguments.levels, arguments.minutes, work):
                    found.append(row | {"commit": commit})
                    sys.stdout.write(f"{found[-1]}\n")
                    sys.stdout.flush()
                    write(f"recovery_{name}", found, seed)


if __name__ == "__main__":
    main()
