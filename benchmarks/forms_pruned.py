"""A control for the matrices: keep some of the input channels, and refit.

    POLYAD_DATA=... python benchmarks/forms_pruned.py

The channels with the largest product of their energy and that of their column stay, as many as the share of the
parameters allows; the weight on them is the best one in the norm of the inputs. No form of the registry does this.
"""

import sys
from typing import Any

import torch
from accuracy import SEED
from common import data_folder, write
from forms_file import SHARES
from forms_networks import HELD_OUT, NETWORKS, Network

from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.sites import weight_of
from polyad.solvers import Problem, problems
from polyad.splits import hold_out


def pruned(problem: Problem, count: int) -> torch.Tensor:
    """The best weight (1, out, in) that reads so many input channels only."""
    assert problem.matrix is not None
    weight, moment = problem.weight[0], problem.matrix[0]
    kept = (weight.square().sum(0) * moment.diagonal()).topk(count).indices
    best = torch.zeros_like(weight)
    best[:, kept] = torch.linalg.solve(moment[kept][:, kept], (weight @ moment[:, kept]).mT).mT
    return best[None]


def rows(network: Network) -> list[dict[str, Any]]:
    source, batches = network.open(data_folder())
    sites = [site for site in network.sites(source, batches[0]) if site.layer.groups == 1]
    sites = [site for site in sites if site.layer.kernel in ((), (1, 1))]
    statistics = observe(source.module, sites, *hold_out(batches, HELD_OUT))
    found = []
    for site in sites:
        weight = weight_of(source.module, site)
        problem, unseen = problems(site, weight, METRICS["inputs"], statistics[site.name])
        assert unseen is not None
        for share in SHARES:
            approximation = pruned(problem, max(1, int(share * site.layer.in_features)))
            found.append(
                {
                    "network": network.name,
                    "site": site.name,
                    "share": share,
                    "output_error": float(f"{problem.relative(approximation):.4g}"),
                    "held_out_error": float(f"{unseen.relative(approximation):.4g}"),
                }
            )
    return found


def main() -> None:
    found = [row for name in ("mobilenet_v2", "llama2c") for row in rows(NETWORKS[name])]
    sys.stdout.write(f"written to {write('forms_pruned', found, SEED)}\n")


if __name__ == "__main__":
    main()
