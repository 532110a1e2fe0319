"""Contract a network of tensors pair by pair with reshapes and matrix products, in the cheapest order.

No `einsum`: what runs is `permute`, `reshape` and `matmul`, which every runtime and export knows.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import opt_einsum
import torch
from torch import Tensor

Letters = tuple[str, ...]
Sizes = tuple[tuple[str, int], ...]

ROWS = "P"
"""Letter of the rows that a layer is applied to: the only size that is not known before it runs."""


@lru_cache(maxsize=4096)
def path(tensors: Letters, output: str, sizes: Sizes) -> tuple[tuple[int, int], ...]:
    """Which two tensors to contract next; the result goes to the end of the list (as in opt_einsum).

    Args:
        tensors: letters of each.
        output: letters of the result.
        sizes: of every letter.
    """
    if len(tensors) == 2:
        return ((0, 1),)
    size = dict(sizes)
    shapes = [tuple(size[letter] for letter in letters) for letters in tensors]
    equation = f"{','.join(tensors)}->{output}"
    found, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize="dp")
    return tuple(tuple(sorted(pair)) for pair in found)  # type: ignore[misc]


def products(tensors: Letters, output: str, sizes: Sizes) -> list[str]:
    """Letters of what meets in every product of the cheapest order: rows, columns and what is summed over."""
    left, found = list(tensors), []
    for one, other in path(tensors, output, sizes):
        b, a = left.pop(other), left.pop(one)
        found.append("".join(dict.fromkeys(a + b)))
        left.append("".join(_roles(a, b, left, output)[:3]))
    return found


def macs(tensors: Letters, output: str, sizes: Sizes) -> int:
    """Multiply-accumulates of the cheapest order."""
    size = dict(sizes)
    return sum(prod(size[letter] for letter in letters) for letters in products(tensors, output, sizes))


def contract(tensors: Sequence[Tensor], letters: Letters, output: str, sizes: Sizes) -> Tensor:
    """The contracted tensor, its axes in the order of `output`."""
    left, names = list(tensors), list(letters)
    for one, other in path(letters, output, sizes):
        b, a = left.pop(other), left.pop(one)
        b_letters, a_letters = names.pop(other), names.pop(one)
        roles = _roles(a_letters, b_letters, names, output)
        left.append(_pair(a, a_letters, b, b_letters, roles))
        names.append("".join(roles[:3]))
    return left[0].permute([names[0].index(letter) for letter in output])


def _roles(a: str, b: str, others: Sequence[str], output: str) -> tuple[str, str, str, str]:
    """(kept of both, of the first alone, of the second alone, summed over)."""
    needed = set(output).union(*others)
    both = [letter for letter in a if letter in b]
    batch = "".join(letter for letter in both if letter in needed)
    summed = "".join(letter for letter in both if letter not in needed)
    first = "".join(letter for letter in a if letter not in b)
    return batch, first, "".join(letter for letter in b if letter not in a), summed


def _pair(a: Tensor, a_letters: str, b: Tensor, b_letters: str, roles: tuple[str, str, str, str]) -> Tensor:
    """One matrix product, batched over the letters that stay in both."""
    batch, first, second, summed = roles
    left = a.permute([a_letters.index(letter) for letter in batch + first + summed])
    right = b.permute([b_letters.index(letter) for letter in batch + summed + second])
    ahead = len(batch + first)
    shape = left.shape[:ahead] + right.shape[len(batch + summed) :]
    inner, rows, columns = prod(left.shape[ahead:]), prod(left.shape[len(batch) : ahead]), prod(shape[ahead:])
    if batch:
        count = prod(left.shape[: len(batch)])
        left, right = left.reshape(count, rows, inner), right.reshape(count, inner, columns)
    else:
        left, right = left.reshape(rows, inner), right.reshape(inner, columns)
    return torch.matmul(left, right).reshape(shape)
