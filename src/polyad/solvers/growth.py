"""Grow factors to a larger rank: what was found so far, and a start on what it leaves over."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.records import Rank
from polyad.solvers.problem import Whitened


def grow(
    form: Decomposition,
    layer: LayerSpec,
    view: Whitened,
    factors: Sequence[Tensor],
    rank: Rank,
    *,
    single: bool = False,
) -> list[Tensor]:
    """Factors of an additive form (a sum of terms) at `rank`, the new terms fitted to the residual.

    Args:
        single: whether those in float32 do.
    """
    letter = form.rank_letters(layer)
    at = [letters.index(letter) + 1 for letters in form.letters]
    (wanted,), have = rank, factors[0].shape[at[0]]
    residual = view.target - form.contracted(factors)
    extra = form.start(residual.float() if single else residual, (wanted - have,))
    return [
        torch.cat([pair[0], pair[1].to(pair[0].dtype)], axis) for *pair, axis in zip(factors, extra, at, strict=True)
    ]


def padded(factors: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor] | None:
    """The same weight at a rank that is nowhere smaller, filled up with zeros; None where some entry is smaller."""
    grown = []
    for factor, shape in zip(factors, shapes, strict=True):
        if any(have > want for have, want in zip(factor.shape, shape, strict=True)):
            return None
        larger = factor.new_zeros(shape)
        larger[tuple(slice(0, have) for have in factor.shape)] = factor
        grown.append(larger)
    return grown
