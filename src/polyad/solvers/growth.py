"""Grow factors to a larger rank: the terms found so far, and a start on what they leave over."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.records import Rank
from polyad.solvers.problem import Whitened


def grow(form: Decomposition, view: Whitened, factors: Sequence[Tensor], rank: Rank) -> list[Tensor]:
    """Factors of an additive form (a sum of terms) at `rank`, the new terms fitted to the residual."""
    letter = form.rank_letters
    at = [letters.index(letter) + 1 for letters in form.inputs]
    (wanted,), have = rank, factors[0].shape[at[0]]
    residual = view.target - form.reconstruct(factors)
    extra = form.start(residual, (wanted - have,))
    return [torch.cat(pair, axis) for *pair, axis in zip(factors, extra, at, strict=True)]
