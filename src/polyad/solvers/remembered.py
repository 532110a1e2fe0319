"""A fit that is taken from the folder of the run where it is there: by hash of weight, norm, form and rank."""

import hashlib
from functools import cache
from inspect import isfunction
from pathlib import Path

import torch

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.records import Rank
from polyad.solvers.fit import fit
from polyad.solvers.found import Fit
from polyad.solvers.problem import Problem
from polyad.work import Piece, Work, key_of


def fit_once(form: Decomposition, layer: LayerSpec, problem: Problem, rank: Rank, *, steps: int, work: Work) -> Fit:
    """`fit`, whose factors come out the same whether they were found now or by an earlier run.

    Args:
        layer: the layer whose weight it is.
        problem: weight (groups, out, n) and norm.
        rank: the rank.
        steps: at most so many L-BFGS iterations.
        work: the folder of the run.

    Raises:
        FormError: the form refuses the layer or has no such rank.
    """

    def make() -> Piece:
        found = fit(form, layer, problem, rank, steps=steps)
        # laid out as they are when they come from a file: that can change the last bit of a product
        layout = torch.contiguous_format
        factors = {str(at): factor.clone(memory_format=layout) for at, factor in enumerate(found.factors)}
        return Piece(factors | {"error": torch.tensor(found.error, dtype=torch.float64)})

    if work.folder is None:
        return _fit(rank, make())
    key = key_of("fit", problem.digest, layer.model_dump_json(), identity(form), rank, steps)
    return _fit(rank, work.remember(key, make))


def identity(form: Decomposition) -> tuple[str, ...]:
    """What tells a form from others, and from itself after its file was edited."""
    return form.name, form.equation, _code(type(form))


@cache
def _code(kind: type[Decomposition]) -> str:
    """Hash of the files that the methods of a form come from."""
    methods = (method for one in kind.__mro__ for method in vars(one).values() if isfunction(method))
    files = sorted({method.__code__.co_filename for method in methods})
    found = hashlib.sha256()
    for file in filter(Path.is_file, map(Path, files)):
        found.update(file.read_bytes())
    return found.hexdigest()


def _fit(rank: Rank, piece: Piece) -> Fit:
    factors = dict(piece.tensors)
    error = float(factors.pop("error"))
    return Fit(rank, tuple(factors[str(at)] for at in range(len(factors))), error)
