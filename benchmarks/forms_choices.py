"""How good two cheap choices are: the arrangement that `best_variant` picks, and the ranks of tucker2_cp.

    POLYAD_DATA=... python benchmarks/forms_choices.py

On four layers every arrangement is fitted in the input norm at a half and a quarter of the parameters, and tucker2_cp
at several numbers of terms, and some forms with more steps; the file says what was chosen and what would have been
best.
"""

import sys
from collections.abc import Iterator
from typing import Any

from accuracy import SEED
from common import data_folder, write
from forms import STEPS
from forms_networks import HELD_OUT, NETWORKS

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.records import Rank
from polyad.sites import weight_of
from polyad.solvers import Problem, best_variant, fit, problems
from polyad.splits import hold_out

LAYERS = {
    "resnet20": ("layer1.0.conv1", "layer2.1.conv1", "layer3.1.conv1"),
    "vdsr": ("residual_layer.8.conv",),
}
FAMILIES = ("block_term", "tt", "tr", "coupled_cp", "group_svd")
SHARES = (0.5, 0.25)
TERMS = (1, 1.5, 2, 3, 4)
"""Terms of the CP in tucker2_cp per channel that is kept; its `ranks` take one and a half."""

MORE, SLOW = 250, ("cp", "cp4", "block_term", "tucker2")
"""Steps that show whether a fit has converged, and of which forms."""


def cases(network: str) -> Iterator[tuple[str, LayerSpec, Problem]]:
    """The layers in the norm of their inputs."""
    entry = NETWORKS[network]
    source, batches = entry.open(data_folder())
    sites = [site for site in entry.sites(source, batches[0]) if site.name in LAYERS[network]]
    statistics = observe(source.module, sites, *hold_out(batches, HELD_OUT))
    for site in sites:
        weight = weight_of(source.module, site)
        yield site.name, site.layer, problems(site, weight, METRICS["inputs"], statistics[site.name])[0]


def variants(layer: LayerSpec, problem: Problem, family: str, share: float) -> tuple[str, dict[str, float]]:
    """What is chosen, and the error of each arrangement."""
    chosen = best_variant(FORMS[family], layer, problem)
    assert chosen is not None
    errors = {}
    for form in FORMS[family].variants(layer):
        ranks = form.ranks(layer, problem.whitened(form, layer).target, [share])
        if ranks:
            errors[form.name] = fit(form, layer, problem, ranks[-1], steps=STEPS).error
    return chosen.name, errors


def terms(layer: LayerSpec, problem: Problem, share: float) -> tuple[str, dict[str, float]]:
    """The same of the ranks of tucker2_cp."""
    form = FORMS["tucker2_cp"]
    (chosen,) = form.ranks(layer, problem.weight, [share])
    candidates = [_rank(form, layer, share, per_channel) for per_channel in TERMS]
    errors = {_text(rank): fit(form, layer, problem, rank, steps=STEPS).error for rank in candidates}
    return _text(chosen), errors


def more_steps(layer: LayerSpec, problem: Problem, name: str, share: float) -> tuple[str, dict[str, float]]:
    """The same of the number of L-BFGS steps at one rank."""
    form = FORMS[name]
    rank = form.ranks(layer, problem.whitened(form, layer).target, [share])[-1]
    errors = {f"{steps} steps": fit(form, layer, problem, rank, steps=steps).error for steps in (STEPS, MORE)}
    return f"{STEPS} steps", errors


def _rank(form: Decomposition, layer: LayerSpec, share: float, per_channel: float) -> Rank:
    """The largest rank within a share that keeps one proportion of both channel modes."""
    size, most = form.sizes(layer), form.max_rank(layer)
    for p in range(size["o"], 0, -1):
        q = max(1, size["i"] * p // size["o"])
        rank = p, min(most[1], round(per_channel * max(p, q))), q
        if form.params(layer.model_copy(update={"bias": False}), rank) <= share * layer.weight_params:
            return rank
    raise ValueError(f"no rank of {form.name} is within {share}")


def _text(rank: Rank) -> str:
    return "x".join(map(str, rank))


def rows_of(network: str, site: str, layer: LayerSpec, problem: Problem, share: float) -> list[dict[str, Any]]:
    """One layer at one share."""
    found = {family: variants(layer, problem, family, share) for family in FAMILIES}
    found["tucker2_cp"] = terms(layer, problem, share)
    found |= {f"{name}, steps": more_steps(layer, problem, name, share) for name in SLOW}
    rows = []
    for form, (chosen, errors) in found.items():
        best = min(errors, key=lambda name: errors[name])
        of_chosen, of_best = (float(f"{errors[name]:.4g}") for name in (chosen, best))
        row = {"network": network, "site": site, "form": form, "share": share}
        rows.append(row | {"chosen": chosen, "error": of_chosen, "best": best, "best_error": of_best})
    return rows


def main() -> None:
    rows: list[dict[str, Any]] = []
    for network in LAYERS:
        for site, layer, problem in cases(network):
            for share in SHARES:
                rows += rows_of(network, site, layer, problem, share)
            sys.stderr.write(f"{network} {site}\n")
    sys.stdout.write(f"written to {write('forms_choices', rows, SEED)}\n")


if __name__ == "__main__":
    main()
