"""How near a fit is to the best that brute force finds: 20 long random starts for each of 60 layers.

    POLYAD_DATA=... python benchmarks/quality.py [--cells 60]

Each cell is one layer in one form at one share of its parameters, in the norm of the inputs. Polyad's fit is the one
that `rebuild` keeps (300 steps). Brute force starts from random factors 20 times and goes on with L-BFGS in float64, on
the same reduced problem (output factor eliminated) without prices or stages, for up to 1,000 iterations. The largest
layers have at most 64 channels: a cell takes 20,000 evaluations.
"""

import argparse
import sys
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import torch
from common import data_folder, write
from forms_networks import NETWORKS, SEED

from polyad.decompositions.base import FORMS
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.rebuild import FINAL_STEPS
from polyad.records import Site
from polyad.sites import weight_of
from polyad.solvers import Problem, fit, problems, ranks_within
from polyad.solvers.elimination import Elimination
from polyad.solvers.projection import Projection
from polyad.solvers.search import random_start
from polyad.threads import side_by_side

FORMS_AND_SHARES = [(form, share) for share in (0.5, 0.25, 0.1) for form in ("cp", "tucker2", "tt", "block_term/4")]
STARTS, LONG, PRICE, WIDEST = 20, 1000, 1e-11, 600


def brute(form_name: str, site: Site, problem: Problem, rank: tuple[int, ...]) -> float:
    """The least relative error of all random starts."""
    form = FORMS[form_name]
    view, split = problem.whitened(form, site.layer), Elimination.of(form)
    assert split is not None
    shapes = form.factor_shapes(site.layer, rank)
    projection = Projection(form, split, view.problem, form.sizes(site.layer), shapes, ridge=PRICE)
    errors = []
    for seed in range(1, STARTS + 1):
        found = projection.refine(random_start(form, shapes, {}, seed), LONG)
        errors.append(view.problem.relative(form.contracted(found).reshape(problem.weight.shape)))
    return min(errors)


def sites_of(name: str) -> list[tuple[str, Site, Problem]]:
    """The 3x3 layers of a network, spread over its depth, with their problems."""
    network = NETWORKS[name]
    source, batches = network.open(data_folder())
    sites = [site for site in network.sites(source, batches[0]) if site.layer.kernel == (3, 3)]
    statistics = observe(source.module, sites, batches[:-1], batches[-1:])
    found = []
    for site in sites:
        problem, _ = problems(site, weight_of(source.module, site), METRICS["inputs"], statistics[site.name])
        if problem.weight.shape[-1] <= WIDEST:
            found.append((name, site, problem))
    return found


def cells(count: int) -> list[tuple[str, Site, Problem, str, float, tuple[int, ...]]]:
    """Layers of four networks in turn, forms and shares in turn over them."""
    layers = [sites_of(name) for name in ("resnet20", "resnet56", "vdsr", "mobilenet_v2")]
    spread = [found[:: max(1, len(found) // (count // 3))] for found in layers]
    mixed = [
        layer for group in zip(*(islice(cycle(found), max(map(len, spread))) for found in spread)) for layer in group
    ]
    chosen, pairs, seen = [], cycle(FORMS_AND_SHARES), set()
    for name, site, problem in mixed * 3:
        form, share = next(pairs)
        if FORMS[form].refuses(site.layer) or (name, site.name, form, share) in seen:
            continue
        ranks = ranks_within(FORMS[form], site.layer, problem, [share])
        if ranks:
            seen.add((name, site.name, form, share))
            chosen.append((name, site, problem, form, share, ranks[-1]))
    return chosen[:count]


def measure(cell: tuple[str, Site, Problem, str, float, tuple[int, ...]]) -> dict[str, Any]:
    name, site, problem, form, share, rank = cell
    start = perf_counter()
    ours = fit(FORMS[form], site.layer, problem, rank, steps=FINAL_STEPS)
    middle = perf_counter()
    best = brute(form, site, problem, rank)
    return {
        "network": name, "layer": site.name, "form": form, "share": share, "rank": rank,
        "polyad": ours.error, "start": ours.start, "brute": best, "ratio": round(ours.error / best, 4),
        "polyad_s": round(middle - start, 2), "brute_s": round(perf_counter() - middle, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=60)
    torch.manual_seed(SEED)
    rows: list[dict[str, Any]] = []
    for row in side_by_side(measure, cells(parser.parse_args().cells)):
        rows.append(row)
        within = sum(row["ratio"] <= 1.01 for row in rows)
        sys.stdout.write(f"{row}\n{within} of {len(rows)} within 1 %, worst {max(r['ratio'] for r in rows)}\n")
        sys.stdout.flush()
        write("quality", rows, SEED)


if __name__ == "__main__":
    main()
