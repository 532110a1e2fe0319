"""Starts for canonical polyadic decompositions: nested singular value decompositions, and alternating least squares."""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from polyad.linalg import raised

ALS_RIDGE = 1e-9
"""Tikhonov term of a least-squares step, relative to the largest diagonal entry."""


def nested_svd(tensor: Tensor, rank: int) -> list[Tensor]:
    """The strongest rank-one terms of an SVD of the first mode against the rest, of each right vector likewise, ...

    Where the rank covers all positions of all modes but the first, the terms that each pick one position are exact.

    Args:
        tensor: (groups, *modes).

    Returns:
        Per mode (groups, size, rank), filled up with zeros.
    """
    groups, size, *rest = tensor.shape
    if rank >= prod(rest):
        return _unit_terms(tensor, rank)
    factors, strength = _terms(tensor, rank)
    factors[0] = factors[0] * strength.unsqueeze(1)
    return [F.pad(factor, (0, rank - factor.shape[-1])) for factor in factors]


def _terms(tensor: Tensor, rank: int) -> tuple[list[Tensor], Tensor]:
    """Unit factors (groups, size, terms) and strengths (groups, terms) of at most `rank` terms, the strongest first."""
    groups, size, *rest = tensor.shape
    u, s, vh = torch.linalg.svd(tensor.reshape(groups, size, -1), full_matrices=False)
    if len(rest) == 1:
        return [u[..., :rank], vh.mT[..., :rank]], s[..., :rank]
    outer = min(rank, s.shape[1])
    inner, inner_strength = _terms(vh[:, :outer].reshape(groups * outer, *rest), rank)
    strength = s[:, :outer, None] * inner_strength.reshape(groups, outer, -1)
    count = min(rank, strength[0].numel())
    found = strength.flatten(1).topk(count, dim=1).indices
    at, term = found // strength.shape[2], found % strength.shape[2]
    group = torch.arange(groups)[:, None]
    factors = [u.mT[group, at].mT]
    for factor in inner:
        factors.append(factor.reshape(groups, outer, *factor.shape[1:])[group, at, :, term].mT)
    return factors, strength.flatten(1).gather(1, found)


def _unit_terms(tensor: Tensor, rank: int) -> list[Tensor]:
    """Every position of the modes behind the first as a term of its own: exact, and zero beyond their number."""
    groups, size, *rest = tensor.shape
    factors = [tensor.reshape(groups, size, -1)]
    grids = torch.meshgrid(*(torch.arange(length) for length in rest), indexing="ij")
    for length, at in zip(rest, grids, strict=True):
        factors.append(F.one_hot(at.flatten(), length).mT.to(tensor).expand(groups, -1, -1))
    return [F.pad(factor, (0, rank - factor.shape[-1])) for factor in factors]


def largest_first(tensor: Tensor, rank: int) -> list[Tensor]:
    """`nested_svd` with the longest mode first; the factors in the order of the modes."""
    order = sorted(range(1, tensor.dim()), key=lambda axis: tensor.shape[axis], reverse=True)
    found = nested_svd(tensor.permute(0, *order), rank)
    return [found[order.index(axis)] for axis in range(1, tensor.dim())]


def with_ridge(gram: Tensor) -> Tensor:
    """A Gram matrix (groups, r, r) that can be solved with, also where it is zero."""
    largest = gram.diagonal(dim1=-2, dim2=-1).amax(-1)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return raised(gram, ALS_RIDGE * largest)


def als(tensor: Tensor, factors: Sequence[Tensor], sweeps: int) -> list[Tensor]:
    """Alternating least squares (Kolda and Bader, SIAM Review 2009, section 3.4).

    Args:
        tensor: (groups, *modes).
        factors: per mode (groups, size, rank).
        sweeps: how often each factor is solved for.
    """
    found = list(factors)
    letters = "abcdef"[: len(found)]
    for _ in range(sweeps):
        for at in range(len(found)):
            others = [factor for other, factor in enumerate(found) if other != at]
            gram = torch.stack([factor.mT @ factor for factor in others]).prod(0)
            names = [f"G{letter}r" for other, letter in enumerate(letters) if other != at]
            product = torch.einsum(f"G{letters},{','.join(names)}->G{letters[at]}r", tensor, *others)
            found[at] = torch.linalg.solve(with_ridge(gram), product.mT).mT
            if at < len(found) - 1:  # the last one keeps the scale
                norms = found[at].norm(dim=1, keepdim=True)
                found[at] = found[at] / torch.where(norms > 0, norms, torch.ones_like(norms))
    return found
