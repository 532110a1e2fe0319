"""Ranks of forms that have several: each rank letter that parts the network belongs to an unfolding of the weight.

The best error at rank r of that letter is at least what the unfolding's singular values beyond r hold, and the sum over
all letters bounds the error of the sequential SVDs (De Lathauwer et al. 2000, property 10; Oseledets 2011, theorem 2.2).
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from polyad.linalg import eigh_descending
from polyad.records import Rank

STEP = 0.06
"""Ranks fall by this share at a time."""


def side(factors: Sequence[str], view: str, letter: str) -> str | None:
    """The letters of the view on one side of a rank letter, or None where taking it out does not part the network."""
    ends = [at for at, letters in enumerate(factors) if letter in letters]
    if len(ends) != 2:
        return None
    reached, waiting = {ends[0]}, [ends[0]]
    while waiting:
        here = set(factors[waiting.pop()]) - {letter}
        for at, letters in enumerate(factors):
            if at not in reached and here & set(letters):
                reached.add(at)
                waiting.append(at)
    if ends[1] in reached:
        return None
    return "".join(mode for mode in view if any(mode in factors[at] for at in reached))


def tails(
    factors: Sequence[str], view: str, letters: str, target: Tensor, largest: Rank
) -> list[Tensor]:
    """Per rank letter the energy (top + 1,) that its unfolding leaves out at rank 0, 1, 2 ...

    Where a letter parts nothing (rings, hyperedges) the energy is taken to fall in proportion.
    """
    total = float(target.square().sum())
    found = []
    for letter, top in zip(letters, largest, strict=True):
        modes = side(factors, view, letter)
        energy = torch.full((top,), total / top, dtype=torch.float64)
        if modes:
            energy = torch.zeros(top, dtype=torch.float64)
            values = _spectrum(target, [view.index(mode) + 1 for mode in modes])[:top]
            energy[: len(values)] = values
        left = (total - energy.cumsum(0)).clamp_min(0)
        found.append(torch.cat([torch.tensor([total], dtype=torch.float64), left]))
    return found


def _spectrum(target: Tensor, axes: Sequence[int]) -> Tensor:
    """Squared singular values of an unfolding, summed over groups; from the smaller Gram matrix."""
    rest = [axis for axis in range(1, target.dim()) if axis not in axes]
    rows, columns = prod(target.shape[axis] for axis in axes), prod(target.shape[axis] for axis in rest)
    matrix = target.permute(0, *axes, *rest).reshape(target.shape[0], rows, columns)
    matrix = matrix if rows <= columns else matrix.mT
    return eigh_descending(matrix @ matrix.mT)[0].sum(0)


def descend(params: Callable[[Rank], int], largest: Rank, left: Sequence[Tensor], allowed: Sequence[float]) -> list[Rank]:
    """Let the ranks fall from the largest, each time where it costs least energy per parameter saved.

    Returns:
        For every allowance that can be met the first rank on the way that meets it.
    """
    rank, found = largest, []
    for limit in sorted(allowed, reverse=True):
        while params(rank) > limit and max(rank) > 1:
            rank = min(_lower(rank), key=lambda lower: _price(params, left, rank, lower))
        if params(rank) <= limit:
            found.append(rank)
    return found


def _lower(rank: Rank) -> list[Rank]:
    """The ranks with one entry a little lower."""
    steps = [max(1, int(entry * STEP)) for entry in rank]
    return [
        (*rank[:at], entry - step, *rank[at + 1 :])
        for at, (entry, step) in enumerate(zip(rank, steps, strict=True))
        if entry > 1
    ]


def _price(params: Callable[[Rank], int], left: Sequence[Tensor], rank: Rank, lower: Rank) -> float:
    lost = sum(float(tail[b] - tail[a]) for tail, a, b in zip(left, rank, lower, strict=True))
    saved = params(rank) - params(lower)
    return lost / saved if saved > 0 else float("inf")


def trimmed(factors: Sequence[str], letters: str, fixed: Mapping[str, int], rank: Rank) -> Rank:
    """The rank without what no weight can use: a letter between two factors is at most the size of the rest of either."""
    size = dict(fixed) | dict(zip(letters, rank, strict=True))
    between = [letter for letter in letters if sum(letter in names for names in factors) == 2]
    changed = True
    while changed:
        changed = False
        for letter in between:
            for names in factors:
                bound = prod(size[other] for other in names if other != letter)
                if letter in names and size[letter] > bound:
                    size[letter], changed = bound, True
    return tuple(size[letter] for letter in letters)
