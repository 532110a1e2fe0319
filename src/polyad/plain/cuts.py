"""Ranks of forms that have several: each rank letter that parts the network belongs to an unfolding of the weight.

At rank r of that letter at most the share of energy that the unfolding's first r singular values hold is kept. What
several letters keep together is taken to be the product of their shares. The sum of what they leave out bounds the
error (De Lathauwer et al. 2000, property 10; Oseledets 2011, theorem 2.2), but where much is left out it is far from
it, and spends everything on one letter: for Tucker-2 of a 64x64x3x3 layer of ResNet-20 at a tenth of its parameters the
sum asks for ranks 64 and 1 (error .96), the product for 14 and 14 (error .74, the best of all pairs).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from polyad.linalg import eigh_descending
from polyad.records import Rank

STEP = 0.06
"""Ranks fall and rise by this share at a time."""

EXCHANGES = 40
"""At most so many exchanges between letters."""


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


def tails(factors: Sequence[str], view: str, letters: str, target: Tensor, largest: Rank) -> list[Tensor]:
    """Per rank letter its loss (top + 1,) at rank 0, 1, 2 ...: minus the logarithm of the share of energy it keeps.

    Where a letter parts nothing (rings, hyperedges) the energy is taken to rise in proportion.
    """
    total = max(float(target.square().sum()), 1e-300)
    found = []
    for letter, top in zip(letters, largest, strict=True):
        modes = side(factors, view, letter)
        energy = torch.full((top,), total / top, dtype=torch.float64)
        if modes:
            energy = torch.zeros(top, dtype=torch.float64)
            values = _spectrum(target, [view.index(mode) + 1 for mode in modes])[:top]
            energy[: len(values)] = values
        kept = torch.cat([torch.zeros(1, dtype=torch.float64), energy.cumsum(0) / total])
        found.append(-kept.clamp(1e-12, 1).log())
    return found


def unfolding(target: Tensor, axes: Sequence[int]) -> Tensor:
    """The matrix (groups, rows, columns) of a tensor (groups, ...) whose rows are these axes and columns the others."""
    rest = [axis for axis in range(1, target.dim()) if axis not in axes]
    rows, columns = prod(target.shape[axis] for axis in axes), prod(target.shape[axis] for axis in rest)
    return target.permute(0, *axes, *rest).reshape(target.shape[0], rows, columns)


def _spectrum(target: Tensor, axes: Sequence[int]) -> Tensor:
    """Squared singular values of an unfolding, summed over groups; from the smaller Gram matrix."""
    matrix = unfolding(target, axes)
    matrix = matrix if matrix.shape[1] <= matrix.shape[2] else matrix.mT
    return eigh_descending(matrix @ matrix.mT)[0].sum(0)


@dataclass(frozen=True)
class Ladder:
    """Choose ranks within an allowance of parameters.

    Attributes:
        params: rank -> parameters.
        largest: the largest rank.
        left: per rank letter what is lost at 0, 1, 2 ..., from `tails`.
        trim: rank -> the same rank without what no weight can use.
    """

    params: Callable[[Rank], int]
    largest: Rank
    left: Sequence[Tensor]
    trim: Callable[[Rank], Rank]

    def within(self, allowed: Sequence[float]) -> list[Rank]:
        """For every allowance that can be met a rank within it, found by falling from the largest and then exchanging
        a little of one letter for more of the others as long as less is lost."""
        rank, found = self.trim(self.largest), []
        for limit in sorted(allowed, reverse=True):
            while self.params(rank) > limit and max(rank) > 1:
                rank = self.trim(min(_lower(rank), key=lambda lower: self._price(rank, lower)))
            if self.params(rank) > limit:
                break
            rank = self._exchanged(rank, limit)
            found.append(rank)
        return found

    def _exchanged(self, rank: Rank, limit: float) -> Rank:
        rank = self._filled(rank, limit)
        for _ in range(EXCHANGES):
            tries = [self._filled(self.trim(lower), limit, avoid=at) for at, lower in _lowered(rank)]
            best = min(tries, key=self._loss, default=rank)
            if self._loss(best) >= self._loss(rank) * (1 - 1e-9):
                break
            rank = best
        return rank

    def _filled(self, rank: Rank, limit: float, avoid: int = -1) -> Rank:
        """Raise entries as long as they fit, each time the one that gains most per parameter."""
        while True:
            higher = [
                (*rank[:at], min(entry + max(1, int(entry * STEP)), top), *rank[at + 1 :])
                for at, (entry, top) in enumerate(zip(rank, self.largest, strict=True))
                if entry < top and at != avoid
            ]
            fitting = [more for more in higher if self.params(more) <= limit and self.trim(more) == more]
            if not fitting:
                return rank
            rank = max(fitting, key=lambda more: self._price(more, rank))

    def _loss(self, rank: Rank) -> float:
        return sum(float(tail[entry]) for tail, entry in zip(self.left, rank, strict=True))

    def _price(self, rank: Rank, lower: Rank) -> float:
        saved = self.params(rank) - self.params(lower)
        return (self._loss(lower) - self._loss(rank)) / saved if saved > 0 else float("inf")


def _lower(rank: Rank) -> list[Rank]:
    return [lower for _, lower in _lowered(rank)]


def _lowered(rank: Rank) -> list[tuple[int, Rank]]:
    """The entries that can fall, and the rank with each of them a little lower."""
    return [
        (at, (*rank[:at], entry - max(1, int(entry * STEP)), *rank[at + 1 :]))
        for at, entry in enumerate(rank)
        if entry > 1
    ]


def trimmed(factors: Sequence[str], letters: str, fixed: Mapping[str, int], rank: Rank) -> Rank:
    """The rank without what no weight can use: a letter between two factors is at most as large as the rest of each."""
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
