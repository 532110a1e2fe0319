"""The cells of quality.py: 20 layers of three networks, each in three forms, one at each share; and a file of them.

Forms go round over layers and shares, so that every form meets every network and every share. The file needs neither
the networks nor their data to be measured, and holds no code (`torch.load(weights_only=True)`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.records import Rank
from polyad.sites import weight_of
from polyad.solvers import Problem, problems, ranks_within

LAYERS = {"resnet20": 7, "resnet56": 7, "vdsr": 6}
"""How many 3x3 layers of each network, spread over its depth."""

ROUND = ("cp", "tucker2", "tt", "block_term/4")
SHARES = (0.5, 0.25, 0.1)


@dataclass(frozen=True)
class Cell:
    """One layer in one form at one share of its parameters; `problem` is its weight in the norm of the inputs."""

    network: str
    name: str
    layer: LayerSpec
    problem: Problem
    form: str
    share: float
    rank: Rank


def layers() -> Iterator[tuple[str, str, LayerSpec, Problem]]:
    """Network, name, layer and problem; reads the networks and their calibration inputs."""
    from common import data_folder
    from forms_networks import NETWORKS, kernels

    for network, count in LAYERS.items():
        source, batches = NETWORKS[network].open(data_folder())
        found = kernels(NETWORKS[network].sites(source, batches[0]))
        chosen = [found[int((at + 0.5) * len(found) / count)] for at in range(count)]
        statistics = observe(source.module, chosen, batches[:-1], batches[-1:])
        for site in chosen:
            problem, _ = problems(site, weight_of(source.module, site), METRICS["inputs"], statistics[site.name])
            yield network, site.name, site.layer, problem


def cells() -> list[Cell]:
    found = []
    for at, (network, name, layer, problem) in enumerate(layers()):
        for turn, share in enumerate(SHARES):
            form = ROUND[(at + turn) % len(ROUND)]
            rank = ranks_within(FORMS[form], layer, problem, [share])[-1]
            found.append(Cell(network, name, layer, problem, form, share, rank))
    return found


def save(path: Path, wanted: list[Cell]) -> None:
    """Layers once, whatever the number of their cells; of the symmetric norms one half."""
    stored = {}
    for cell in wanted:
        matrix = cell.problem.matrix
        assert matrix is not None and cell.problem.left is None
        rows, columns = torch.tril_indices(*matrix.shape[1:]).unbind()
        own = {"layer": cell.layer.model_dump_json(), "weight": cell.problem.weight, "norm": matrix[:, rows, columns]}
        stored[f"{cell.network} {cell.name}"] = own
    listed = [(cell.network, cell.name, cell.form, cell.share, cell.rank) for cell in wanted]
    torch.save({"layers": stored, "cells": listed}, path)


def load(path: Path) -> list[Cell]:
    """The cells of a file; those of one layer share its problem."""
    stored = torch.load(path, weights_only=True)
    known = {}
    for key, own in stored["layers"].items():
        groups, _, n = own["weight"].shape
        rows, columns = torch.tril_indices(n, n).unbind()
        matrix = own["weight"].new_zeros(groups, n, n)
        matrix[:, rows, columns] = own["norm"]
        matrix[:, columns, rows] = own["norm"]
        known[key] = (LayerSpec.model_validate_json(own["layer"]), Problem(own["weight"], matrix))
    found = []
    for network, name, form, share, rank in stored["cells"]:
        layer, problem = known[f"{network} {name}"]
        found.append(Cell(network, name, layer, problem, form, share, tuple(rank)))
    return found
