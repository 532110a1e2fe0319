"""Does data-aware error predict what a compressed network loses better than weight error does? One command measures it.

    POLYAD_DATA=... python benchmarks/dispute.py [NETWORK ...]

For ResNet-20, ResNet-56, MobileNetV2 and stories260K, on data that nothing was fitted to (validated.py):

1. single layers: every form at every share, fitted in each norm, put in alone;
2. whole networks: plans with a random form and share for every layer, fitted in each norm;

each before recovery and after it. Recovery of a single layer matches mean and variance of its output channels; that of
a network is `statistics`. Two questions are kept apart: which *number* ranks given candidates better, and whether a
*fit* in one norm makes the better network at the same ranks. Networks whose results are there are not measured again
(--again); results/dispute_NETWORK.json has every candidate, docs/which-norm.md what follows.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import exp, log
from random import Random
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from accuracy import SEED
from common import HERE, write
from dispute_candidates import NORMS, Fitted, Judge, fitted
from dispute_page import write_page
from torch import Tensor, nn
from validated import NAMES, Validated, work_folder

from polyad.batches import Batch
from polyad.damages.probes import patched, put_patch
from polyad.evaluation import divergences, outputs
from polyad.gather import gather
from polyad.progress import silent
from polyad.records import Choice, Plan, Site, Statistics, Trace
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.replay import Replay
from polyad.splits import merge
from polyad.threads import side_by_side
from polyad.trace import trace
from polyad.work import Work


@dataclass(frozen=True)
class Size:
    """How much of a network is measured, so that it takes about six minutes on two cores.

    Attributes:
        every: one layer of so many is replaced alone.
        shares: at which a single layer is cut.
        samples: on which damage is measured, images or stories.
        plans: random networks.
        recovered: how many of them are recovered too.
        lesson: samples of a recovery; a third decides.
        touched: between what share and what share of the layers a plan replaces.
        kept: between what share and what share of its parameters it keeps in a layer that it replaces.
    """

    every: int
    shares: tuple[float, ...]
    samples: int
    plans: int
    recovered: int
    lesson: int
    touched: tuple[float, float] = (0.2, 1.0)
    kept: tuple[float, float] = (0.1, 0.95)


SIZES = {
    "stories260k": Size(2, (0.1, 0.35), 0, 30, 0, 0),
    "resnet20": Size(3, (0.1, 0.35), 200, 30, 10, 60),
    "mobilenet_v2": Size(6, (0.1, 0.35), 50, 16, 4, 30, touched=(0.02, 0.3), kept=(0.3, 0.95)),  # bears little
    "resnet56": Size(8, (0.1, 0.35), 100, 20, 5, 45),
}
PROBED = 25
"""Held-out samples of each batch on which sensitivities are measured."""


class Dispute:
    """One network with its candidates."""

    def __init__(self, name: str) -> None:
        self.name, self.size = name, SIZES[name]
        self.bench = Validated.open(name, self.size.samples * (4 if name == "mobilenet_v2" else 1))
        self.batches: Sequence[Batch] = self.bench.validation
        self.trace: Trace = trace(self.bench.model, self.bench.fitted[0].take(2))
        self.statistics: Mapping[str, Statistics] = gather(
            self.bench.model,
            self.trace.sites,
            self.bench.fitted,
            self.bench.held_out,
            curvature=True,
            seed=SEED,
            work=Work(work_folder(name)),
        )
        self.judges = {
            site.name: Judge(self.bench.model, site, self.statistics[site.name]) for site in self.trace.sites
        }
        found = side_by_side(
            lambda site: list(fitted(self.bench.model, site, self.statistics[site.name])), self.trace.sites
        )
        self.candidates = {site.name: own for site, own in zip(self.trace.sites, found) if own}
        self.sites = [site for site in self.trace.sites if site.name in self.candidates]
        self.sensitivity = self._sensitivity()

    def _sensitivity(self) -> dict[str, float]:
        """Divergence per relative output error of every layer, the probe of the `measured` damage: its svd at a tenth
        of the parameters, put in alone, on held-out calibration samples."""
        student, found = deepcopy(self.bench.model), dict.fromkeys((site.name for site in self.sites), 0.0)
        replay = Replay(student, [site.name for site in self.sites], lambda model, one: outputs(model, [one]))
        batches = [batch.take(PROBED) for batch in self.bench.held_out]
        for batch in batches:
            expected = replay.remember(batch)
            for site in self.sites:
                own = [c for c in self.candidates[site.name] if (c.form, c.norm) == ("svd", "inputs")]
                probe = min(own, key=lambda c: abs(log(c.share / 0.1)))
                divergence = float(divergences(expected, self._alone(replay, site, probe, batch, 1)).mean())
                found[site.name] += divergence / probe.after["inputs"] / len(batches)
        return found

    def _predicted(self, own: Sequence[Fitted]) -> tuple[dict[str, float], dict[str, float]]:
        """Summed damage by number, before and after recovery."""
        found = []
        for when in ("before", "after"):
            numbers = {name: sum(getattr(one, when)[name] for one in own) for name in NORMS}
            numbers["measured"] = sum(getattr(one, when)["inputs"] * self.sensitivity[one.site] for one in own)
            found.append(numbers)
        return found[0], found[1]

    def layers(self) -> Iterator[dict[str, Any]]:
        """Single layers replaced, batch by batch, only what lies behind a layer run again."""
        student = deepcopy(self.bench.model)
        replay = Replay(student, [site.name for site in self.sites], lambda model, batch: outputs(model, [batch]))
        asked = [
            (site, one)
            for site in self.sites[:: self.size.every]
            for one in self.candidates[site.name]
            if one.share in self.size.shares
        ]
        sums = torch.zeros(2, len(asked), 4, dtype=torch.float64)
        for batch in self.batches:
            expected = replay.remember(batch)
            for at, (site, one) in enumerate(asked):
                if not site.bias_may_move:  # then nothing is given back
                    sums[:, at] += _sums(expected, self._alone(replay, site, one, batch, 0), batch)
                    continue
                for recovered in (0, 1):
                    sums[recovered, at] += _sums(expected, self._alone(replay, site, one, batch, recovered), batch)
        for at, (_, one) in enumerate(asked):
            about = {"site": one.site, "form": one.form, "share": one.share, "norm": one.norm}
            yield self._row("layer", about, self._predicted([one]), sums[:, at])

    def _alone(self, replay: Replay, site: Site, one: Fitted, batch: Batch, recovered: int) -> Tensor:
        with patched(replay.model, site, self.judges[site.name].patch(one, recovered=bool(recovered))):
            return replay.again(batch, [site.name])

    def networks(self) -> Iterator[dict[str, Any]]:
        """Random plans, the same one in every norm."""
        draw = Random(SEED)
        expected = self.bench.dense
        for number in range(self.size.plans):
            plan = self._drawn(draw, number)
            for norm in NORMS:
                own = [
                    next(c for c in self.candidates[n] if (c.form, c.share, c.norm) == (*k, norm))
                    for n, k in plan.items()
                ]
                student = self._built(own)
                sums = [self._measured(student, expected)]
                if self.size.recovered and number % (self.size.plans // self.size.recovered) == 0:
                    self._recover(student, own)
                    sums.append(self._measured(student, expected))
                about = {"plan": number, "norm": norm, "replaced": len(own)}
                yield self._row("network", about, self._predicted(own), torch.stack(sums))

    def _drawn(self, draw: Random, number: int) -> dict[str, tuple[str, float]]:
        """Site -> form and share; how deep it cuts, and how many layers, differ from plan to plan."""
        low, high = self.size.kept
        depth = exp(log(low) + (log(high) - log(low)) * (number + 0.5) / self.size.plans)
        touched = draw.uniform(*self.size.touched)
        found = {}
        for site in self.sites:
            forms = sorted({one.form for one in self.candidates[site.name]})
            form, wanted = draw.choice(forms), depth * exp(draw.gauss(0, 0.5))
            shares = sorted({one.share for one in self.candidates[site.name] if one.form == form})
            share = min(shares, key=lambda known: abs(log(known / wanted)))
            if draw.random() < touched:
                found[site.name] = (form, share)
        return found or self._drawn(draw, number)

    def _built(self, own: Sequence[Fitted]) -> nn.Module:
        student = deepcopy(self.bench.model)
        for one in own:
            put_patch(student, self.judges[one.site].site, self.judges[one.site].patch(one, recovered=False))
        return student

    def _recover(self, student: nn.Module, own: Sequence[Fitted]) -> None:
        sites: list[Site] = [self.judges[one.site].site for one in own]
        choices = tuple(
            Choice(site=site, form=one.form, rank=one.rank, params=0, macs=0, damage=0, why="drawn")
            for site, one in zip(sites, own)
        )
        plan = Plan(metric="inputs", allocator="", budget="", choices=choices, params_before=0, macs_before=0)
        fit, check = (
            [merge(batches, size)]
            for batches, size in (
                (self.bench.fitted, self.size.lesson * 2 // 3),
                (self.bench.held_out, self.size.lesson // 3),
            )
        )
        RECOVERIES["statistics"].run(Lesson(student, self.bench.model, plan, fit, check, silent))

    def _measured(self, student: nn.Module, expected: Tensor) -> Tensor:
        total, at = torch.zeros(4, dtype=torch.float64), 0
        for batch in self.batches:
            found = outputs(student, [batch])
            total += _sums(expected[at : at + len(found)], found, batch)
            at += len(found)
        return total

    def _row(
        self, kind: str, about: dict[str, Any], predicted: Sequence[Mapping[str, float]], sums: Tensor
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"network": self.name, "kind": kind} | about
        for when, numbers, found in zip(("before", "after"), predicted, sums):
            count = float(found[3])
            figures = {"divergence": float(found[0]), "loss": float(found[1]), "accuracy": 100 * float(found[2])}
            row[when] = {"predicted": {name: float(f"{number:.4g}") for name, number in numbers.items()}} | {
                name: float(f"{number / count:.4g}") for name, number in figures.items()
            }
        return row


def _sums(expected: Tensor, found: Tensor, batch: Batch) -> Tensor:
    """Divergence in nats, rise of the loss, hits that are lost, rows (4,), all but the last summed over rows.

    What is broken counts as far as a guess: the loss of a network whose outputs are not finite is that of none at all.
    """
    assert batch.labels is not None
    found, labels = found.nan_to_num(0.0, 1e4, -1e4), batch.labels.flatten()
    loss = F.cross_entropy(found.double(), labels, reduction="sum") - F.cross_entropy(
        expected.double(), labels, reduction="sum"
    )
    hits = (expected.argmax(1) == labels).sum() - (found.argmax(1) == labels).sum()
    return torch.stack([divergences(expected, found).sum(), loss, hits.double(), torch.tensor(float(len(found)))])


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NAMES), choices=[*NAMES, []])
    parser.add_argument("--again", action="store_true", help="measure networks again whose results are there")
    arguments = parser.parse_args()
    for name in arguments.networks:
        path = HERE / "results" / f"dispute_{name}.json"
        if path.exists() and not arguments.again:
            sys.stdout.write(f"{path} is there\n")
            continue
        start = perf_counter()
        dispute = Dispute(name)
        rows = []
        for part in (dispute.layers, dispute.networks):
            rows += list(part())
            sys.stdout.write(f"{name}: {len(rows)} candidates after {perf_counter() - start:.0f} s\n")
            sys.stdout.flush()
        sys.stdout.write(f"written to {write(f'dispute_{name}', rows, SEED)}\n")
    write_page()


if __name__ == "__main__":
    main()
