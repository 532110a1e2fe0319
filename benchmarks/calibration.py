"""Held-out output error against the number of calibration images, norm by norm.

    POLYAD_DATA=... python benchmarks/calibration.py

ResNet-20 (all 3x3 layers but the first) and ResNet-56 (every third of them) on lossless CIFAR-10 images. Each layer is
fitted at a quarter of its parameters; the rank is the one that the inputs norm of all images asks for, the same for all
norms and sizes. The error is the relative error of the layer's output on 1,000 other images, as a geometric mean over
the layers; up to 64 images it is that of several draws. Writes results/calibration.json and docs/calibration.svg.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from accuracy import LOSSLESS, SEED, WEIGHTS
from calibration_plot import draw
from common import HERE, data_folder, write

import polyad
from polyad.batches import Batch, as_batches
from polyad.data import calibration_and_evaluation, loader
from polyad.decompositions.base import FORMS
from polyad.metrics import METRICS
from polyad.metrics.moments import input_moment, shrinkage
from polyad.observe import observe
from polyad.records import Rank, Site, Statistics
from polyad.sites import weight_of
from polyad.solvers import fit, problems
from polyad.trace import trace

SIZES = (16, 32, 64, 128, 256, 512, 1024)
DRAWS = {16: 3, 32: 3, 64: 2}
HELD_OUT = 1000
NORMS = ("weights", "inputs_diagonal", "inputs_modes", "inputs_full", "inputs")
SHAPES = ("svd", "tucker2", "cp")
SHARE = 0.25
STEPS = 30
EVERY = {"resnet20": 1, "resnet56": 3}


class Bench:
    """One network, its calibration images, and what its layers see on the held-out ones."""

    def __init__(self, network: str) -> None:
        folder = data_folder()
        source = polyad.open_model(f"zoo:{network}", folder / WEIGHTS[network])
        data = polyad.open_data(f"npz:{folder / LOSSLESS[0]}", source.preprocessing)
        chosen, _ = calibration_and_evaluation(data, max(SIZES) + HELD_OUT, SEED)
        images = torch.cat([batch.args[0] for batch in as_batches(loader(chosen, 100))])
        self.network, self.model = network, source.module
        self.images, unseen = images.split([max(SIZES), HELD_OUT])
        found = [site for site in trace(self.model, Batch((images[:2],))).sites if site.layer.kernel == (3, 3)]
        self.sites = found[1 :: EVERY[network]]
        self.unseen = observe(self.model, self.sites, [Batch((part,)) for part in unseen.split(100)])
        whole = self.observed(self.images)
        self.ranks = {
            (site.name, form): self._rank(site, form, whole[site.name]) for site in self.sites for form in SHAPES
        }

    def observed(self, images: torch.Tensor) -> dict[str, Statistics]:
        found = observe(self.model, self.sites, [Batch((part,)) for part in images.split(100)])
        return {
            name: replace(one, held_out=self.unseen[name].moment, held_out_mean=self.unseen[name].mean)
            for name, one in found.items()
        }

    def _rank(self, site: Site, form: str, statistics: Statistics) -> Rank:
        problem, _ = problems(site, weight_of(self.model, site), METRICS["inputs"], statistics)
        target = problem.whitened(FORMS[form], site.layer).target
        return FORMS[form].ranks(site.layer, target, [SHARE])[-1]

    def error(self, site: Site, form: str, norm: str, statistics: Statistics) -> float:
        """Relative output error on the held-out images."""
        weight = weight_of(self.model, site)
        problem, unseen = problems(site, weight, METRICS[norm], statistics)
        if unseen is None:  # the plain norm looks at no inputs: judge it by theirs
            unseen = problems(site, weight, METRICS["inputs"], statistics)[1]
        found = fit(FORMS[form], site.layer, problem, self.ranks[site.name, form], steps=STEPS)
        assert unseen is not None
        return unseen.relative(FORMS[form].reconstruct(found.factors).reshape(problem.weight.shape))

    def drawn(self, size: int) -> list[dict[str, Statistics]]:
        """Statistics of each draw of images; draws share none."""
        return [self.observed(self.images[at * size : (at + 1) * size]) for at in range(DRAWS.get(size, 1))]

    def row(self, size: int, form: str, norm: str, draws: Sequence[dict[str, Statistics]]) -> dict[str, Any]:
        start = perf_counter()
        errors = [self.error(site, form, norm, one_draw[site.name]) for one_draw in draws for site in self.sites]
        return {
            "network": self.network,
            "images": size,
            "form": form,
            "norm": norm,
            "held_out_error": round(exp(fmean(map(log, errors))), 5),
            "largest": round(max(errors), 4),
            "layers": len(self.sites),
            "draws": len(draws),
            "seconds": round(perf_counter() - start, 1),
        }

    def shrinkage(self, size: int, draws: Sequence[dict[str, Statistics]]) -> dict[str, Any]:
        """How far the inputs norm shrinks."""
        seen = [(site, one_draw[site.name]) for one_draw in draws for site in self.sites]
        found = [float(shrinkage(input_moment(site, one), one.noise).mean()) for site, one in seen]
        shares = {"smallest": min(found), "mean": fmean(found), "largest": max(found)}
        return {"network": self.network, "images": size} | {key: round(value, 4) for key, value in shares.items()}


def measured(network: str) -> Iterator[dict[str, Any]]:
    bench = Bench(network)
    for size in SIZES:
        draws = bench.drawn(size)
        yield bench.shrinkage(size, draws)
        for form in SHAPES:
            for norm in NORMS:
                if norm != "weights" or size == SIZES[-1]:
                    yield bench.row(size, form, norm, draws)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for network in EVERY:
        for row in measured(network):
            rows.append(row)
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
    path = write("calibration", rows, SEED)
    picture = Path(HERE).parent / "docs" / "calibration.svg"
    picture.write_text(draw(rows), encoding="utf-8")
    sys.stdout.write(f"written to {path} and {picture}\n")


if __name__ == "__main__":
    main()
