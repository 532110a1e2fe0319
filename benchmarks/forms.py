"""How far every form is from every layer: relative errors at five shares of the parameters, fitted in two norms.

    POLYAD_DATA=... python benchmarks/forms.py [--networks vdsr resnet20] [--forms svd cp] [--layers 4]

Of each layer and form: the arrangement that `best_variant` picks in the norm of the fit, the ranks that `ranks` picks
within each share, and `fit_path` over them. Both fits, in the norm of the weights and in that of the inputs, are judged
by the error of the weight, of the output on the fitted inputs, and of the output on held-out inputs.

A run that was cut off goes on where it stopped; `forms_page.py` writes the page from the files.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accuracy import SEED
from common import data_folder
from forms_file import NORMS, SHARES, Fitted, Point, Results, path_of, read, sourced, write
from forms_networks import HELD_OUT, NETWORKS, Network

from polyad.batches import Batch
from polyad.cost import site_macs
from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.metrics import METRICS
from polyad.models import ModelSource
from polyad.observe import observe
from polyad.records import Site, Statistics
from polyad.sites import weight_of
from polyad.solvers import Problem, best_variant, fit_path, problems
from polyad.splits import hold_out
from polyad.threads import side_by_side

STEPS = 60
"""L-BFGS iterations at each rank, each from the rank before; the menu of `propose` takes 20, `rebuild` 100."""

NO_RANK = "its smallest rank has more than half of the layer's parameters"


def shape_of(layer: LayerSpec) -> str:
    """ "64x64x3x3", with the groups in front where there are several."""
    groups, *sizes = layer.weight_shape
    return (f"{groups} of " if groups > 1 else "") + "x".join(map(str, sizes))


def fits_of(site: Site, weight: torch.Tensor, statistics: Statistics, names: Sequence[str]) -> list[Fitted]:
    """Every form that carries a site, in both norms."""
    judged, unseen = problems(site, weight, METRICS["inputs"], statistics)
    assert unseen is not None
    plain, _ = problems(site, weight, METRICS["weights"], None)
    found = []
    for name in names:
        for norm, problem in zip(NORMS, (plain, judged)):
            start = perf_counter()
            form = best_variant(FORMS[name], site.layer, problem)
            if form is None:
                continue
            points = _points(site, form, problem, (plain, judged, unseen))
            found.append(Fitted(site.name, name, form.name, norm, round(perf_counter() - start, 2), points))
    return found


def _points(site: Site, form: Decomposition, problem: Problem, judges: Sequence[Problem]) -> tuple[Point, ...]:
    """A point for each share that some rank meets: the largest rank within it."""
    layer = site.layer
    ranks = form.ranks(layer, problem.whitened(form, layer).target, SHARES)
    fits = {fitted.rank: fitted for fitted in fit_path(form, layer, problem, ranks, steps=STEPS)} if ranks else {}
    bias = layer.params - layer.weight_params
    params = {rank: form.params(layer, rank) - bias for rank in ranks}
    points = []
    for share in SHARES:
        inside = [rank for rank in ranks if params[rank] <= share * layer.weight_params]
        if inside:
            rank = inside[-1]
            approximation = form.reconstruct(fits[rank].factors).reshape(problem.weight.shape)
            errors = [judge.relative(approximation) for judge in judges]
            points.append(Point(share, rank, params[rank], site_macs(site, form.name, rank), *errors))
    return tuple(points)


def refusals(site: Site, names: Sequence[str], fits: Sequence[Fitted]) -> dict[str, str]:
    """Form -> why it is not in the table at this shape."""
    reasons = {name: FORMS[name].refuses(site.layer) for name in names}
    carried = {fitted.form: bool(fitted.points) for fitted in fits}
    found = {name: reason for name, reason in reasons.items() if reason is not None and name not in carried}
    return found | {name: NO_RANK for name, some in carried.items() if not some}


def measure(
    results: Results,
    opened: tuple[ModelSource, list[Batch]],
    sites: Sequence[Site],
    names: Sequence[str],
    keep: Callable[[Results], None],
) -> None:
    """Fit what `results` does not hold yet; `keep` is called after each site."""
    source, batches = opened
    missing = [site for site in sites if site.name not in results.sites]
    if not missing:
        return
    fitted, held_out = hold_out(batches, HELD_OUT)
    statistics = observe(source.module, missing, fitted, held_out)
    sourced(results, SEED)

    def work(site: Site) -> list[Fitted]:
        return fits_of(site, weight_of(source.module, site), statistics[site.name], names)

    with_time_left = _timed(side_by_side(work, missing), results.network, [site.params for site in missing])
    for site, found in zip(missing, with_time_left, strict=True):
        layer = site.layer
        shape = shape_of(layer)
        results.sites[site.name] = {
            "label": layer.label,
            "shape": shape,
            "params": layer.weight_params,
            "macs": site.macs,
        }
        results.refused.setdefault(shape, refusals(site, names, found))
        results.fits += [one for one in found if one.points]
        keep(results)


def _timed(found: Iterable[Any], label: str, sizes: Sequence[int]) -> Iterator[Any]:
    """Tell the time that is left, as if it were proportional to the parameters."""
    start, done = perf_counter(), 0
    for number, (one, size) in enumerate(zip(found, sizes, strict=True), 1):
        done += size
        spent = perf_counter() - start
        left = spent / done * (sum(sizes) - done)
        sys.stderr.write(f"{label}: {number} of {len(sizes)}, {spent:.0f} s, about {left:.0f} s left\n")
        yield one


def run(network: Network, names: Sequence[str], layers: int | None, out: Path | None) -> Path:
    """Measure one network, or what is left of it."""
    path = path_of(network.name, out)
    results = read(path) if path.exists() else Results(network.name)
    opened = network.open(data_folder())
    sites = network.sites(opened[0], opened[1][0])
    results.settings = {"steps": STEPS, "held_out": HELD_OUT, "sites": len(sites)}
    if layers is not None and layers < len(sites):
        sites = [sites[(len(sites) - 1) * at // max(layers - 1, 1)] for at in range(layers)]
    measure(results, opened, sites, names, lambda now: write(path, now))
    write(path, results)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--forms", nargs="+", help="those of the network by default")
    parser.add_argument("--layers", type=int, help="so many of each network, spread over its depth")
    parser.add_argument("--out", type=Path, help="folder of the JSON files (benchmarks/results)")
    arguments = parser.parse_args()
    for name in arguments.networks:
        network = NETWORKS[name]
        names = arguments.forms or network.forms or FORMS.names()
        sys.stdout.write(f"written to {run(network, names, arguments.layers, arguments.out)}\n")


if __name__ == "__main__":
    main()
