"""Truncated singular value decompositions of unfoldings: of one matrix, of several modes, along a train, up a tree."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from polyad.linalg import eigh_descending

SWEEPS = 3
"""Sweeps of higher-order orthogonal iteration."""

SMALL = 8
"""Ranks up to which the order of the modes is tried both ways."""


def pad_to(tensor: Tensor, size: int, axis: int) -> Tensor:
    """Zeros behind the end of one axis: a rank that the tensor does not have."""
    missing = size - tensor.shape[axis]
    if missing <= 0:
        return tensor
    return F.pad(tensor.movedim(axis, -1), (0, missing)).movedim(-1, axis)


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (..., m, r), s (..., r), V' (..., r, n) of the best approximation, filled up with zeros to the rank."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return pad_to(u[..., :rank], rank, -1), pad_to(s[..., :rank], rank, -1), pad_to(vh[..., :rank, :], rank, -2)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (..., m, r) and (..., r, n) of the best approximation: the matrix projected on its leading directions on
    its shorter side, which a small symmetric problem gives, several times as fast as a singular value decomposition."""
    if matrix.shape[-2] > matrix.shape[-1]:
        right, left = low_rank(matrix.mT, rank)
        return left.mT, right.mT
    left = pad_to(eigh_descending(matrix @ matrix.mT)[1][..., :rank], rank, -1)
    return left, left.mT @ matrix


def left_orthogonal(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same with orthonormal columns on the left whatever the shape."""
    if matrix.shape[-2] <= matrix.shape[-1]:
        return low_rank(matrix, rank)
    u, s, vh = truncated_svd(matrix, rank)
    return u, s.unsqueeze(-1) * vh


def basis(tensor: Tensor, axis: int, rank: int) -> Tensor:
    """The leading directions (groups, size, rank) of one mode of (groups, *modes); zeros beyond its size."""
    unfolded = tensor.movedim(axis, 1).flatten(2)
    return pad_to(eigh_descending(unfolded @ unfolded.mT)[1][..., :rank], rank, -1)


def multiply(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """One mode of (groups, *modes) times a matrix (groups, size, new)."""
    moved = tensor.movedim(axis, -1)
    product = moved.flatten(1, -2) @ matrix
    return product.reshape(*moved.shape[:-1], matrix.shape[-1]).movedim(-1, axis)


def hooi(tensor: Tensor, ranks: Mapping[int, int], sweeps: int = SWEEPS) -> tuple[Tensor, dict[int, Tensor]]:
    """Higher-order orthogonal iteration (De Lathauwer, De Moor, Vandewalle, SIAM J. Matrix Anal. 2000).

    At small ranks the order in which modes are updated decides the optimum: the most and the least reduced mode first
    are both tried, and per group the larger core is kept.

    Args:
        tensor: (groups, *modes).
        ranks: axis -> rank, of the modes to be projected; others are kept.

    Returns:
        The core, and per axis the basis (groups, size, rank).
    """
    axes = sorted(ranks, key=lambda axis: ranks[axis] / tensor.shape[axis])
    first = {axis: basis(tensor, axis, ranks[axis]) for axis in axes}
    core, bases = _iterated(tensor, ranks, axes[::-1], first, sweeps)
    if min(ranks.values()) > SMALL:
        return core, bases
    other_core, other_bases = _iterated(tensor, ranks, axes, first, sweeps)
    better = other_core.flatten(1).norm(dim=1) > core.flatten(1).norm(dim=1) * (1 + 1e-9)

    def chosen(this: Tensor, other: Tensor) -> Tensor:
        return torch.where(better.view(-1, *(1,) * (this.dim() - 1)), other, this)

    return chosen(core, other_core), {axis: chosen(bases[axis], other_bases[axis]) for axis in axes}


def _iterated(
    tensor: Tensor, ranks: Mapping[int, int], axes: Sequence[int], first: Mapping[int, Tensor], sweeps: int
) -> tuple[Tensor, dict[int, Tensor]]:
    """Core and bases after so many sweeps over the modes in this order, from the bases `first`."""
    bases = dict(first)
    for _ in range(sweeps):
        for axis in axes:
            narrow = tensor
            for other in axes:
                if other != axis:
                    narrow = multiply(narrow, bases[other], other)
            bases[axis] = basis(narrow, axis, ranks[axis])
    core = tensor
    for axis in axes:
        core = multiply(core, bases[axis], axis)
    return core, bases


def tensor_train(tensor: Tensor, ranks: Sequence[int], first: int = 1) -> list[Tensor]:
    """TT-SVD (Oseledets, SIAM J. Sci. Comput. 2011, algorithm 1), or TR-SVD (Zhao et al. 2016, algorithm 1).

    Args:
        tensor: (groups, *modes) in the order of the train.
        ranks: one fewer than the modes.
        first: rank of the bond that closes a ring; 1 for a train.

    Returns:
        Cores (groups, left, mode, right); the first left and the last right rank are `first`.
    """
    groups, *modes = tensor.shape
    size, rank = modes[0], ranks[0]
    left, right = left_orthogonal(tensor.reshape(groups, size, -1), first * rank)
    cores = [left.reshape(groups, size, first, rank).transpose(1, 2)]
    rest = right.reshape(groups, first, rank, -1).movedim(1, -1)  # the ring's bond goes to the end
    for size, after in zip(modes[1:-1], ranks[1:], strict=True):
        left, rest = left_orthogonal(rest.reshape(groups, rank * size, -1), after)
        cores.append(left.reshape(groups, rank, size, after))
        rank = after
    return [*cores, rest.reshape(groups, rank, modes[-1], first)]
