"""Which damage should allocators add up? The same menu priced in several ways, spent, rebuilt, recovered, judged.

    POLYAD_DATA=... python benchmarks/damages.py stories260k resnet20 mobilenet_v2 resnet56

Judged on validation data (see validated.py), `statistics` recovery, 20 steps for each fit. Beside the registered
damages stand variants of `measured`: sensitivities as they are; a second probe at 35 % with the curve through both; the
geometric mean of these two; a factor for depth that falls linearly from 2 at the first site to 1 at the last. Writes
results/damages.json, by network.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accuracy import SEED
from common import HERE, write
from validated import NAMES, Validated, row_of, work_folder

from polyad.allocators.allocate import allocate
from polyad.damages.assess import assess
from polyad.damages.base import DAMAGES, Ground
from polyad.damages.probes import Probe, probe
from polyad.gather import gather
from polyad.menu import Candidate, Menu
from polyad.propose import propose
from polyad.rebuild import factorise, rebuild
from polyad.records import DENSE
from polyad.settings import Settings
from polyad.trace import trace
from polyad.work import Work

BUDGETS = {
    "stories260k": (("params", 0.8), ("params", 0.6)),
    "resnet20": (("kernels", 0.5), ("kernels", 0.25), ("kernels", 0.35), ("kernels", 0.15)),
    "mobilenet_v2": (("params", 0.75), ("macs", 0.75)),
    "resnet56": (("macs", 0.5), ("macs", 0.35)),
}
STEPS = 20
TINY = 1e-12
FLATTEST = 0.1
"""Probes between which damage rises more slowly than error to this power say nothing about how it rises."""

FORMS = {"stories260k": None}
"""On the menu; those of `FEW` for the other networks."""
FEW = ("svd", "spatial_svd", "tucker2", "cp")


def priced(menu: Menu, price: Callable[[Candidate], float], name: str) -> Menu:
    """The menu with other damages."""
    found = {
        site: tuple(c if c.form == DENSE else c.model_copy(update={"damage": price(c)}) for c in options)
        for site, options in menu.candidates.items()
    }
    return replace(menu, candidates=found, damage=name)


@dataclass(frozen=True)
class Curve:
    """Damage as a function of the error through two probes: in logarithms straight between them, beyond them in
    proportion to the error; in proportion through their middle where damage does not rise between them."""

    errors: tuple[float, ...]
    divergences: tuple[float, ...]

    @classmethod
    def through(cls, probes: Sequence[Probe]) -> "Curve":
        points = sorted((log(max(one.error, TINY)), log(max(one.divergence, TINY))) for one in probes)
        first, last = points[0], points[-1]
        if last[1] - first[1] > FLATTEST * (last[0] - first[0]) > 0:
            return cls((first[0], last[0]), (first[1], last[1]))
        middle = [sum(column) / len(points) for column in zip(*points)]
        return cls((middle[0],), (middle[1],))

    def at(self, error: float) -> float:
        at = log(max(error, TINY))
        inside = min(max(at, self.errors[0]), self.errors[-1])
        return exp(float(np.interp(inside, self.errors, self.divergences)) + at - inside)


def variants(menu: Menu, probes: dict[str, tuple[Probe, ...]]) -> dict[str, Menu]:
    """Other ways to use the same probes."""
    two = {name: Curve.through(found) for name, found in probes.items()}
    one = {name: Curve.through(found[:1]) for name, found in probes.items()}
    depth = {site.name: 2 - at / max(len(menu.sites) - 1, 1) for at, site in enumerate(menu.sites)}

    def both(c: Candidate) -> float:
        return two[c.site].at(c.unseen_error)

    def first(c: Candidate) -> float:
        return one[c.site].at(c.unseen_error)

    prices: dict[str, Callable[[Candidate], float]] = {
        "measured, not shrunk": first,
        "measured, not shrunk, two probes": both,
        "measured, not shrunk, between the two": lambda c: (first(c) * both(c)) ** 0.5,
        "measured, depth": lambda c: one[c.site].at(1.0) ** 0.5 * c.unseen_error * depth[c.site],
    }
    return {name: priced(menu, price, name) for name, price in prices.items()}


def compared(name: str, most: int, only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every damage at every budget."""
    bench, work = Validated.open(name), Work(work_folder(name))
    found = trace(bench.model, bench.fitted[0].take(2))
    statistics = gather(bench.model, found.sites, bench.fitted, bench.held_out, curvature=True, seed=SEED, work=work)
    menu = propose(bench.model, found, statistics, Settings(forms=FORMS.get(name, FEW)), work=work)
    batches = [*bench.held_out, *bench.fitted]
    ground = Ground(bench.model, statistics, batches, sum(batch.size for batch in bench.held_out), work)
    start = perf_counter()
    probes = probe(menu, ground)
    seconds = perf_counter() - start
    if not only or any("two" in damage for damage in only):
        probes = probe(menu, ground, (0.1, 0.35))
    menus = {damage: assess(menu, damage, ground) for damage in DAMAGES} | variants(menu, probes)
    for unit, share in BUDGETS[name][:most]:
        for damage, own in menus.items():
            if only and damage not in only:
                continue
            plan = allocate(own, bench.budget(unit, share, found))
            student = rebuild(bench.model, factorise(bench.model, plan, statistics, steps=STEPS, work=work))
            before = bench.judge(student)
            bench.recover(student, plan)
            after = bench.judge(student)
            yield {
                "network": name,
                "budget": f"{unit} {share:.0%}",
                "damage": damage,
                "predicted": round(sum(choice.damage for choice in plan.choices), 4),
                "params_kept": round(plan.params / plan.params_before, 4),
                "macs_kept": round(plan.macs / plan.macs_before, 4),
                "before_recovery": row_of(before),
                "after_recovery": row_of(after),
                "seconds_of_probes": round(seconds, 1),
            }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NAMES), choices=[*NAMES, []])
    parser.add_argument("--budgets", type=int, default=4, help="at most so many of each network")
    parser.add_argument(
        "--only", nargs="*", default=[], help="these damages alone; the others stay as they are in the file"
    )
    arguments = parser.parse_args()
    path = HERE / "results" / "damages.json"
    for name in arguments.networks:
        known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
        rows = [
            row for row in known if row["network"] != name or (arguments.only and row["damage"] not in arguments.only)
        ]
        for row in compared(name, arguments.budgets, arguments.only):
            rows.append(row)
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
        sys.stdout.write(f"written to {write('damages', rows, SEED)}\n")


if __name__ == "__main__":
    main()
