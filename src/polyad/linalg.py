"""Linear algebra that several parts need; batched over leading dimensions, float64 unless said."""

import torch
from torch import Tensor


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part."""
    return (matrix + matrix.mT) / 2


def eigh_descending(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (largest first, negative rounding set to 0) and eigenvectors of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(symmetric(matrix))
    return values.flip(-1).clamp_min(0), vectors.flip(-1)


def matrix_power(matrix: Tensor, exponent: float, floor: float = 1e-10) -> Tensor:
    """Power of a positive semi-definite matrix, its eigenvalues lifted to `floor` times the largest one.

    The lift makes negative powers safe where the matrix is singular; a zero matrix gives the identity.
    """
    values, vectors = eigh_descending(matrix)
    largest = values[..., :1]
    values = torch.where(largest > 0, values.clamp_min(floor * largest), torch.ones_like(values))
    return (vectors * values.pow(exponent).unsqueeze(-2)) @ vectors.mT
