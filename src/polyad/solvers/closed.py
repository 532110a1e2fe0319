"""The closed form of a matrix factorisation in any norm: output principal components.

For W^ = A B of rank r the least of tr((W - W^) C (W - W^)') is reached at W^ = U_r U_r' W, with U the eigenvectors of
W C W' (out, out): one small symmetric problem gives the fits and errors of all ranks, and nothing of C is inverted.
(Eckart and Young 1936 for W C^1/2; Zhang et al., TPAMI 2016, section 3.1, for responses of a layer.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.linalg import eigh_descending
from polyad.plain.hosvd import pad_to
from polyad.solvers.elimination import Elimination
from polyad.solvers.problem import Problem
from polyad.solvers.transform import times


def is_matrix_product(form: Decomposition, split: Elimination | None) -> bool:
    """Whether the weight is an unconstrained product of a matrix with the outputs and one with all inputs."""
    if split is None or len(form.letters) != 2 or any(form.shared) or form.reorders or form.norm_bounded:
        return False
    inputs = form.view[len(form.outputs) :]
    return len(split.letters) == 1 and not split.tied and form.letters[1 - split.position] == split.letters + inputs


def output_components(
    form: Decomposition, problem: Problem, shapes: Sequence[Sequence[tuple[int, ...]]]
) -> list[tuple[list[Tensor], float]]:
    """Factors and relative error for every rank.

    Args:
        form: one of which `is_matrix_product` holds.
        problem: weight (groups, out, n) and norm, as they are: nothing has to be whitened.
        shapes: of the factors, for each rank.
    """
    weighted = times(problem.weight, problem.matrix)
    values, vectors = eigh_descending(weighted @ problem.weight.mT)
    energy = max(problem.energy, torch.finfo(torch.float64).tiny)
    left = (values.sum(-1, keepdim=True) - values.cumsum(-1)).clamp_min(0).sum(0) / energy
    found = []
    for pair in shapes:
        output = next(at for at, letters in enumerate(form.letters) if letters[0] in form.outputs)
        rank = pair[output][-1]
        basis = pad_to(vectors[..., :rank], rank, -1)
        rows = basis.mT @ problem.weight
        factors = [basis, rows] if output == 0 else [rows, basis]
        error = float(left[rank - 1]) if rank <= len(left) else 0.0
        found.append(([factor.reshape(shape) for factor, shape in zip(factors, pair, strict=True)], error))
    return found
