"""Part the dimensions of a matrix into several: a balanced factorisation, or the one that is asked for."""

import re
from functools import cache
from math import log, prod

from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec


@cache
def balanced(number: int, parts: int) -> tuple[int, ...]:
    """The factorisation of a number into so many factors, ascending, whose largest is smallest; ones fill it up."""
    found = [factors for factors in _factorisations(number, parts, 1)]
    return min(found, key=lambda factors: (max(factors), [-factor for factor in factors]))


def _factorisations(number: int, parts: int, least: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(number,)] if number >= least else []
    return [
        (first, *rest)
        for first in range(least, int(round(number ** (1 / parts) + 0.5)) + 1)
        if number % first == 0
        for rest in _factorisations(number // first, parts - 1, first)
    ]


@cache
def two_factors(out: int, inp: int, kernel: int) -> tuple[int, int]:
    """(a, b) with a | out and b | inp for which a Kronecker term, a * b + (out / a) * (inp / b) * kernel, costs least.

    Of equals the one nearest to a square.
    """
    choices = [(a, b) for a in range(1, out + 1) if out % a == 0 for b in range(1, inp + 1) if inp % b == 0]
    return min(choices, key=lambda c: (c[0] * c[1] + out * inp * kernel // (c[0] * c[1]), abs(log(c[0] / c[1])), c))


def parse_sizes(text: str, form: str, groups: int, count: int | None = None) -> list[tuple[int, ...]]:
    """ "4x8x8,8x8x4" -> [(4, 8, 8), (8, 8, 4)].

    Raises:
        UnknownNameError: it is not `groups` lists of `count` sizes.
    """
    lists = [
        tuple(map(int, part.split("x"))) for part in text.split(",") if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", part)
    ]
    right = len(lists) == groups == len(text.split(",")) and len({len(sizes) for sizes in lists}) == 1
    if not right or (count is not None and len(lists[0]) != count):
        example = ",".join(["x".join("48882"[: count or 3])] * groups)
        raise UnknownNameError(f"{form}/{text} is not understood: write the sizes as in {form}/{example}.")
    return lists


def matrix_sizes(layer: LayerSpec, shapes: list[tuple[int, ...]] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Factors of the outputs and of the inputs of a matrix, three each: the given ones, or balanced ones of which the
    small ones of one dimension meet the large ones of the other."""
    if shapes:
        return shapes[0], shapes[1]
    return balanced(layer.out_features, 3), balanced(layer.in_features, 3)[::-1]


def not_tensorised(layer: LayerSpec, shapes: list[tuple[int, ...]] | None) -> str | None:
    """Why a matrix form of tensorised dimensions refuses a layer, or None."""
    if not layer.matrix:
        return "it tensorises the two dimensions of a matrix, and this layer has a kernel: use tt or tr"
    numbers = (layer.out_features, layer.in_features)
    for number, sizes in zip(numbers, matrix_sizes(layer, shapes), strict=True):
        if prod(sizes) != number:
            return f"{'x'.join(map(str, sizes))} is {prod(sizes)}, and this dimension has {number}"
        if not shapes and max(sizes) == number:
            return f"its dimension {number} is a prime number (or one) and has no factors to part it into"
    return None
