"""Alternating least squares over the factors of a network in which each mode of the weight belongs to one factor."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from polyad.plain.cp import with_ridge

AFFORDABLE = 2e8
"""Work of the largest step, unknowns squared times equations, beyond which sweeps take tenths of a second."""


def affordable(letters: Sequence[str], view: str, factors: Sequence[Tensor]) -> bool:
    """Whether a sweep takes milliseconds: wide layers at high ranks have systems of hundreds of unknowns."""
    size = {letter: length for names, factor in zip(letters, factors, strict=True)
            for letter, length in zip(names, factor.shape[1:], strict=True)}  # fmt: skip
    work = [
        prod(size[letter] for letter in names if letter not in view) ** 2
        * prod(size[letter] for letter in view if letter not in names)
        for names in letters
    ]
    return max(work) * len(factors[0]) <= AFFORDABLE


def alternating(
    letters: Sequence[str], view: str, target: Tensor, factors: Sequence[Tensor], sweeps: int
) -> list[Tensor]:
    """Solve for one factor after another, the others fixed: no step depends on how they are scaled or rotated.

    For trains Holtz, Rohwedder and Schneider, "The Alternating Linear Scheme for Tensor Optimization in the Tensor
    Train Format", SIAM J. Sci. Comput. 2012; for rings Zhao et al., "Tensor Ring Decomposition", 2016, algorithm 2.

    Args:
        letters: of each factor, without the groups; none is shared by all groups.
        view: letters of the target, each in one factor.
        target: (groups, *view).
        factors: (groups, ...) each.
        sweeps: how often each factor is solved for.
    """
    size = {letter: length for names, factor in zip(letters, factors, strict=True)
            for letter, length in zip(names, factor.shape[1:], strict=True)}  # fmt: skip
    found = list(factors)
    for _ in range(sweeps):
        for at in range(len(found)):
            found[at] = _solved(letters, view, target, found, at, size)
    return found


def _solved(
    letters: Sequence[str], view: str, target: Tensor, factors: Sequence[Tensor], at: int, size: Mapping[str, int]
) -> Tensor:
    """The best factor `at` for the others: one system in its rank letters, for all positions of its modes at once."""
    modes = "".join(letter for letter in letters[at] if letter in view)
    ranks = "".join(letter for letter in letters[at] if letter not in view)
    rest = "".join(letter for letter in view if letter not in modes)
    others = [*range(at + 1, len(letters)), *range(at)]  # neighbours follow each other along a train or ring
    shape = len(target), prod(size[letter] for letter in ranks), prod(size[letter] for letter in rest)
    names, tensors = [letters[other] for other in others], [factors[other] for other in others]
    design = _contracted(names, tensors, ranks + rest).reshape(shape)
    wanted = target.permute(0, *(view.index(letter) + 1 for letter in rest + modes)).reshape(shape[0], shape[2], -1)
    gram = _gram(names, tensors, view, ranks)
    solution = torch.linalg.solve(with_ridge(gram.reshape(shape[0], shape[1], -1)), design @ wanted)
    order = ranks + modes
    solution = solution.reshape(shape[0], *(size[letter] for letter in order))
    return solution.permute(0, *(order.index(letter) + 1 for letter in letters[at]))


def _gram(letters: Sequence[str], factors: Sequence[Tensor], view: str, ranks: str) -> Tensor:
    """(groups, *ranks, *ranks): the network of the other factors times itself, one pair of factors after another.

    With bonds of 20 this takes a tenth of the product of the contracted networks.
    """
    pairs, doubled = [], []
    for one, factor in zip(letters, factors, strict=True):
        pairs += [one, "".join(letter if letter in view else letter.upper() for letter in one)]
        doubled += [factor, factor]
    return _contracted(pairs, doubled, ranks + ranks.upper())


def _contracted(letters: Sequence[str], factors: Sequence[Tensor], kept: str) -> Tensor:
    """(groups, *kept) of a network, one factor after another: the search for an order would take longer than that."""
    found, held = factors[0], letters[0]
    for at in range(1, len(letters)):
        later = set("".join(letters[at + 1 :])) | set(kept)
        last = at == len(letters) - 1
        new = kept if last else "".join(letter for letter in dict.fromkeys(held + letters[at]) if letter in later)
        found, held = torch.einsum(f"G{held},G{letters[at]}->G{new}", found, factors[at]), new
    return found
