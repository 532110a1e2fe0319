"""Linear algebra that several parts need; batched over leading dimensions, float64 unless said."""

import torch
from torch import Tensor

TRIES = 20
"""How often the diagonal of a matrix that is not positive definite is raised: to far more than its largest entry."""


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part."""
    return (matrix + matrix.mT).div_(2)


def eigh_descending(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (largest first, negative rounding set to 0) and eigenvectors of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(symmetric(matrix))
    return values.flip(-1).clamp_min(0), vectors.flip(-1)


def raised(matrix: Tensor, amounts: Tensor | float) -> Tensor:
    """Matrices (groups, n, n) with multiples of the identity added, one for all or (groups,)."""
    found = matrix.clone()
    found.diagonal(dim1=-2, dim2=-1).add_(amounts.unsqueeze(-1) if isinstance(amounts, Tensor) else amounts)
    return found


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """X of matrix X = right, for positive definite matrices (..., n, n) and right sides (..., n, m).

    Rounding can leave a nearly singular matrix with negative eigenvalues: where Cholesky's decomposition fails the
    diagonal is raised, by ten times as much at each try, and in these entries of the batch alone.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    largest = diagonal.abs().amax(-1, keepdim=True)
    lift = torch.finfo(matrix.dtype).eps * torch.where(largest > 0, largest, torch.ones_like(largest))
    root, failed = torch.linalg.cholesky_ex(matrix)
    for _ in range(TRIES):
        if not failed.any():
            break
        lift = torch.where(failed.unsqueeze(-1) > 0, 10 * lift, torch.zeros_like(lift))
        raised, still = torch.linalg.cholesky_ex(matrix + torch.diag_embed(lift.expand_as(diagonal)))
        again = (failed > 0)[..., None, None]
        root, failed = torch.where(again, raised, root), torch.where(failed > 0, still, failed)
    return torch.cholesky_solve(right, root)


def matrix_power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of a positive semi-definite matrix, safe where it is singular."""
    return matrix_powers(matrix, exponent)[0]


def matrix_powers(matrix: Tensor, *exponents: float, floor: float = 1e-10) -> list[Tensor]:
    """Powers of a positive semi-definite matrix, its eigenvalues lifted to `floor` times the largest one.

    The lift makes negative powers safe where the matrix is singular; a zero matrix gives the identity.
    """
    values, vectors = eigh_descending(matrix)
    largest = values[..., :1]
    values = torch.where(largest > 0, values.clamp_min(floor * largest), torch.ones_like(values))
    return [(vectors * values.pow(exponent).unsqueeze(-2)) @ vectors.mT for exponent in exponents]
