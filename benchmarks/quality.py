"""How near a fit is to the best that brute force finds: 20 long random starts for each of 60 layers.

    POLYAD_DATA=... python benchmarks/quality.py --save-cells FILE            what is measured, into a file
    python benchmarks/quality.py --from-cells FILE --workers 16 [--limit-s S]    where there is no data

Each cell is one layer in one form at one share of its parameters, in the norm of the inputs (quality_cells.py).
Polyad's fit is the one that `rebuild` keeps (up to 600 steps). Brute force starts from random factors 20 times and goes
on with L-BFGS in float64, on the same reduced problem (output factor eliminated) without prices or stages, for up to
1,000 iterations each; a start ends where 50 iterations gain less than 1e-5 of the error. The largest layers have 64
channels. An error below 1e-6 counts as 1e-6: some layers see so few directions that a quarter of their parameters
carries them exactly. Cells run in processes of one thread each, the longest first; after `--limit-s` none is started.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from math import prod
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter
from typing import Any

import torch
from common import write
from quality_cells import Cell, cells, load, save

from polyad.decompositions.base import FORMS
from polyad.rebuild import FINAL_STEPS
from polyad.solvers import fit
from polyad.solvers.descent import Patience
from polyad.solvers.elimination import Elimination
from polyad.solvers.projection import Projection
from polyad.solvers.search import random_start

SEED = 0
STARTS, LONG, PRICE, ENDED, EXACT = 20, 1000, 1e-11, Patience(50, 1e-5), 1e-6

Row = dict[str, Any]


def brute(cell: Cell) -> list[float]:
    """The relative errors that random starts end in, least first."""
    form, problem = FORMS[cell.form], cell.problem
    view, split = problem.whitened(form, cell.layer), Elimination.of(form)
    assert split is not None
    shapes = form.factor_shapes(cell.layer, cell.rank)
    projection = Projection(form, split, view.problem, form.sizes(cell.layer), shapes, ridge=PRICE)
    errors = []
    for seed in range(1, STARTS + 1):
        found = projection.refine(random_start(form, shapes, {}, seed), LONG, ENDED)
        errors.append(view.problem.relative(form.contracted(found).reshape(problem.weight.shape)))
    return sorted(errors)


def brute_force(cell: Cell) -> Row:
    """What brute force comes to, and how long it takes."""
    start, errors = perf_counter(), brute(cell)
    near_best = sum(error <= 1.01 * errors[0] for error in errors)
    seconds = round(perf_counter() - start, 1)
    return {"brute": errors[0], "near_best": near_best, "median": errors[len(errors) // 2], "brute_s": seconds}


def measure(cell: Cell) -> Row:
    start = perf_counter()
    ours = fit(FORMS[cell.form], cell.layer, cell.problem, cell.rank, steps=FINAL_STEPS)
    middle = perf_counter()
    known = _brute.get((cell.network, cell.name, cell.form, cell.share))
    found = known or brute_force(cell)
    return {
        "network": cell.network, "layer": cell.name, "form": cell.form, "share": cell.share, "rank": cell.rank,
        "polyad": ours.error, "start": ours.start,
        "ratio": round(max(ours.error, EXACT) / max(found["brute"], EXACT), 4),
        "polyad_s": round(middle - start, 2), **found,
    }  # fmt: skip


def work(cell: Cell) -> float:
    """About what one evaluation costs: the product of the rows with the norm."""
    form, (_, out, n) = FORMS[cell.form], cell.problem.weight.shape
    split = Elimination.of(form)
    assert split is not None
    return prod(form.factor_shapes(cell.layer, cell.rank)[split.position]) / out * n * n


_cells: list[Cell] = []
"""Of a worker, which reads them itself: tensors sent to it would take a shared file each."""


_brute: dict[tuple[Any, ...], Row] = {}
"""What an earlier run's brute force came to."""


def _open(path: Path, earlier: Path | None) -> None:
    torch.set_num_threads(1)
    _cells[:] = load(path)
    for row in json.loads(earlier.read_text())["rows"] if earlier else ():
        kept = {name: row[name] for name in ("brute", "near_best", "median", "brute_s")}
        _brute[row["network"], row["layer"], row["form"], row["share"]] = kept


def _measured(at: int, until: float) -> Row | None:
    return measure(_cells[at]) if monotonic() < until else None


def measured(path: Path, earlier: Path | None, wanted: list[int], workers: int, limit: float) -> Iterator[Row]:
    """Rows as they come."""
    until = monotonic() + limit
    with ProcessPoolExecutor(workers, get_context("spawn"), _open, (path, earlier)) as pool:
        for done in as_completed([pool.submit(_measured, at, until) for at in wanted]):
            if (row := done.result()) is not None:
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save-cells", type=Path, metavar="FILE", help="write what would be measured, and end")
    parser.add_argument("--from-cells", type=Path, metavar="FILE")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="seconds after which no cell is started")
    parser.add_argument("--cells", type=int, nargs="*", help="their numbers in the file, instead of all")
    parser.add_argument("--brute", type=Path, metavar="JSON", help="of an earlier run: its brute force is not repeated")
    parser.add_argument("--out", type=Path, help="instead of results/quality.json")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if arguments.save_cells:
        save(arguments.save_cells, cells())
        return
    with TemporaryDirectory() as scratch:
        path = arguments.from_cells or Path(scratch) / "cells"
        if arguments.from_cells is None:
            save(path, cells())
        known, rows = load(path), []
        wanted = sorted(arguments.cells or range(len(known)), key=lambda at: -work(known[at]))
        for row in measured(path, arguments.brute, wanted, arguments.workers, arguments.limit_s):
            rows.append(row)
            within = sum(row["ratio"] <= 1.01 for row in rows)
            worst = max(row["ratio"] for row in rows)
            sys.stdout.write(f"{row}\n{within} of {len(rows)} within 1 %, worst {worst}\n")
            sys.stdout.flush()
            write("quality", rows, SEED, arguments.out)


if __name__ == "__main__":
    main()
