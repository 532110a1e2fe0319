"""Products of one mode of a weight or norm with a matrix, or a diagonal, and what whitens a mode."""

import torch
from torch import Tensor

from polyad.linalg import matrix_powers

WHITENING_FLOOR = 1e-4
"""Modes are not whitened beyond this share of their strongest direction: a start, not the solution, depends on it."""

WIDE = 1 << 26
"""Bytes of a norm from which on only one view of it, a copy, is kept at a time."""


def times(rows: Tensor, matrix: Tensor | None) -> Tensor:
    """(groups, s, n) times the norm: a matrix (groups, n, n), a diagonal (groups, n), or None for the identity."""
    if matrix is None:
        return rows
    return rows * matrix.unsqueeze(1) if matrix.dim() == 2 else rows.to(matrix.dtype) @ matrix


def along(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one axis of (groups, ...) by a symmetric matrix (groups or 1, size, size), or a diagonal (.., size)."""
    moved = tensor.movedim(axis, -1)
    shape = moved.shape
    moved = times(moved.reshape(shape[0], -1, shape[-1]), matrix)
    return moved.reshape(shape).movedim(-1, axis)


def transform(matrix: Tensor, inverse: Tensor, axis: int, count: int) -> None:
    """Multiply one mode on both sides of (groups, *modes, *modes), in place; of a wide norm so many entries of another
    mode at a time that what is computed meanwhile stays small beside it."""
    parts = -(-matrix.nbytes // WIDE)
    for here, there in ((axis, 1 + count), (axis + count, 1)):
        longest = max(range(there, there + count), key=lambda at: matrix.shape[at])
        for part in matrix.split(-(-matrix.shape[longest] // parts), longest):
            part.copy_(along(part, inverse, here))


def partial_trace(matrix: Tensor, axis: int, count: int) -> Tensor:
    """Moment of one mode (groups, size, size) of (groups, *modes, *modes), averaged over all the others."""
    letters = "abcdefgh"[:count]
    here = letters[axis]
    total = torch.einsum(f"G{letters}{letters.replace(here, 'y')}->G{here}y", matrix)
    return total / (matrix[0].numel() ** 0.5) * matrix.shape[axis + 1]


def partial_sum(diagonal: Tensor, axis: int, count: int) -> Tensor:
    """The same (groups, size) of a diagonal (groups, *modes)."""
    others = [at + 1 for at in range(count) if at != axis]
    return diagonal.mean(others) if others else diagonal


def root_and_inverse(moment: Tensor) -> list[Tensor]:
    """The square root of a moment, a matrix or a diagonal, and the inverse of that."""
    if moment.dim() == 3:
        return matrix_powers(moment, 0.5, -0.5, floor=WHITENING_FLOOR)
    largest = moment.amax(-1, keepdim=True)
    lifted = torch.where(largest > 0, moment.clamp_min(WHITENING_FLOOR * largest), torch.ones_like(moment))
    return [lifted**0.5, lifted**-0.5]
