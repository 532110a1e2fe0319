"""A control for the stacks: one svd for each layer whose ranks share one allowance out freely.

    POLYAD_DATA=... python benchmarks/forms_free_ranks.py

A stack is judged by the error of all its layers together. A form that shares its factors spends them where most of it
can be avoided, one svd of equal rank for each layer cannot; this tells how much of the difference that is. The largest
singular values of all whitened layers together are the best choice. At a quarter of the parameters the file also says
how the worst layer of each stack fares: its own relative error.
"""

import sys
from typing import Any

import torch
from accuracy import SEED
from common import data_folder, write
from forms import STEPS
from forms_file import SHARES
from forms_networks import HELD_OUT, NETWORKS, Network

from polyad.decompositions.base import FORMS
from polyad.linalg import eigh_descending, symmetric
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.records import Site
from polyad.sites import weight_of
from polyad.solvers import Problem, fit, problems
from polyad.solvers.transform import times
from polyad.splits import hold_out

WORST_AT = 0.25
FORMS_OF_STACKS = ("svd", "stack_tucker", "stack_cp")


def approximated(problem: Problem, terms: int) -> tuple[torch.Tensor, list[int]]:
    """The best approximation by so many terms of an svd in all, and the rank of each layer.

    The best of one layer is the projection U U' W on the leading eigenvectors of W C W'.
    """
    weight = problem.weight
    values, vectors = eigh_descending(symmetric(times(weight, problem.matrix) @ weight.mT))
    chosen = torch.zeros(values.numel(), dtype=torch.bool)
    chosen[values.flatten().topk(min(terms, values.numel())).indices] = True
    kept = vectors * chosen.reshape(values.shape).unsqueeze(1)
    return kept @ (vectors.mT @ weight), chosen.reshape(values.shape).sum(1).tolist()


def worst(problem: Problem, approximation: torch.Tensor) -> float:
    """The largest relative error of one layer."""
    difference = problem.weight - approximation
    errors = (times(difference, problem.matrix) * difference).sum((1, 2))
    energies = (times(problem.weight, problem.matrix) * problem.weight).sum((1, 2))
    return float(f"{(errors / energies).max():.4g}")


def worst_of_forms(site: Site, problem: Problem) -> dict[str, float]:
    found = {}
    for name in FORMS_OF_STACKS:
        form = FORMS[name]
        rank = form.ranks(site.layer, problem.whitened(form, site.layer).target, [WORST_AT])[-1]
        factors = fit(form, site.layer, problem, rank, steps=STEPS).factors
        found[name] = worst(problem, form.reconstruct(factors).reshape(problem.weight.shape))
    return found


def rows(network: Network) -> list[dict[str, Any]]:
    source, batches = network.open(data_folder())
    sites = network.sites(source, batches[0])
    statistics = observe(source.module, sites, *hold_out(batches, HELD_OUT))
    found = []
    for site in sites:
        weight = weight_of(source.module, site)
        problem, unseen = problems(site, weight, METRICS["inputs"], statistics[site.name])
        assert unseen is not None
        groups, out, inner = problem.weight.shape
        for share in SHARES:
            terms = int(share * groups * out * inner / (out + inner))
            approximation, ranks = approximated(problem, terms)
            free = {"svd, free ranks": worst(problem, approximation)}
            of_forms = worst_of_forms(site, problem) | free if share == WORST_AT else {}
            found.append(
                {
                    "network": network.name,
                    "site": site.name,
                    "share": share,
                    "ranks": "x".join(map(str, ranks)),
                    "output_error": float(f"{problem.relative(approximation):.4g}"),
                    "held_out_error": float(f"{unseen.relative(approximation):.4g}"),
                    "worst_layer": of_forms,
                }
            )
    return found


def main() -> None:
    found = [row for network in NETWORKS.values() if network.stacks for row in rows(network)]
    sys.stdout.write(f"written to {write('forms_free_ranks', found, SEED)}\n")


if __name__ == "__main__":
    main()
