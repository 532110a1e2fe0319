"""What keeping the terms of a CP small costs: the 3x3 layers of ResNet-20, two norms, three sizes.

    POLYAD_DATA=... python benchmarks/stable_cp.py

`terms` is the sum of the squared norms of the terms relative to the squared norm of the weight: 1 would be orthogonal
terms and no error; large is cancellation, which fine-tuning and small number types do not survive.
"""

import sys
from statistics import median
from typing import Any

import torch
from accuracy import LOSSLESS, SEED, WEIGHTS
from common import data_folder, write

import polyad
from polyad.batches import as_batches
from polyad.data import calibration_and_evaluation, loader
from polyad.decompositions.base import FORMS
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.records import Site
from polyad.sites import weight_of
from polyad.solvers import Problem, fit, problems, term_norms
from polyad.trace import trace

SHARES, NORMS, STEPS, IMAGES = (0.5, 0.25, 0.1), ("weights", "inputs"), 100, 256


def row(site: Site, problem: Problem, norm: str, share: float) -> dict[str, Any]:
    cp = FORMS["cp"]
    (rank,) = cp.ranks(site.layer, problem.whitened(cp, site.layer).target, [share])
    found: dict[str, Any] = {"layer": site.name, "norm": norm, "share": share, "rank": rank[0]}
    for key, form in (("plain", FORMS["cp"]), ("stable", FORMS["cp/stable"])):
        fitted = fit(form, site.layer, problem, rank, steps=STEPS)
        terms = float(term_norms(form, fitted.factors).sum() / problem.weight.square().sum())
        found |= {f"error_{key}": fitted.error, f"terms_{key}": terms}
    return found


def main() -> None:
    torch.set_num_threads(1)
    folder = data_folder()
    source = polyad.open_model("zoo:resnet20", folder / WEIGHTS["resnet20"])
    images, _ = calibration_and_evaluation(
        polyad.open_data(f"npz:{folder / LOSSLESS[0]}", source.preprocessing), IMAGES, SEED
    )
    batches = as_batches(loader(images, 64))
    sites = [site for site in trace(source.module, batches[0].take(2)).sites if site.layer.kernel == (3, 3)]
    sites = [site for site in sites if FORMS["cp"].refuses(site.layer) is None]
    statistics = observe(source.module, sites, batches)
    rows = []
    for site in sites:
        for norm in NORMS:
            problem, _ = problems(site, weight_of(source.module, site), METRICS[norm], statistics[site.name])
            rows += [row(site, problem, norm, share) for share in SHARES]
    for norm in NORMS:
        for share in SHARES:
            here = [r for r in rows if (r["norm"], r["share"]) == (norm, share)]
            worse = median(r["error_stable"] / r["error_plain"] for r in here)
            before, after = (max(r[f"terms_{key}"] for r in here) for key in ("plain", "stable"))
            middle = [median(r[f"terms_{key}"] for r in here) for key in ("plain", "stable")]
            sys.stdout.write(
                f"{norm:8} {share:4} error x {worse:.4f}, terms {middle[0]:.1f} -> {middle[1]:.1f} (median),"
                f" {before:.1f} -> {after:.1f} (largest)\n"
            )
    sys.stdout.write(f"written to {write('stable_cp', rows, SEED)}\n")


if __name__ == "__main__":
    main()
