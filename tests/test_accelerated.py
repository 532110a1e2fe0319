"""Accelerated alternating least squares: never worse, faster than plain sweeps, the same optimum."""

import pytest
import torch
from torch import Tensor

from kernels import random_kernel
from polyad.plain.accelerated import accelerated
from polyad.plain.cp import als, largest_first

SHAPES = [(1, 6, 9, 5), (2, 12, 10, 3, 3), (3, 8, 7)]
"""Groups and modes."""


def error(tensor: Tensor, factors: list[Tensor]) -> float:
    modes = "abcd"[: len(factors)]
    found = torch.einsum(f"{','.join(f'G{mode}r' for mode in modes)}->G{modes}", *factors)
    return float((found - tensor).square().sum() / tensor.square().sum())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_error_never_rises_with_the_sweeps(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    start = largest_first(tensor, 4)
    errors = [error(tensor, start)] + [
        error(tensor, accelerated(tensor, start, sweeps, 0)) for sweeps in (1, 3, 10, 40)
    ]
    assert all(b <= a * (1 + 1e-5) for a, b in zip(errors, errors[1:], strict=False)), errors
    assert [factor.shape for factor in accelerated(tensor, start, 2)] == [factor.shape for factor in start]


@pytest.mark.parametrize("name", ["gaussian-16x16x3-0", "low_rank-24x24x3-1", "decaying-32x16x3-2"])
def test_forty_sweeps_err_less_than_a_hundred_plain_ones(name: str) -> None:
    kernel = random_kernel(name).flatten(2).unsqueeze(0)
    start = largest_first(kernel, 12)
    assert error(kernel, accelerated(kernel, start, 40)) < error(kernel, als(kernel, start, 100)) * 1.01


def test_a_tensor_of_zeros_and_equal_terms_stay_finite() -> None:
    zeros = torch.zeros(2, 5, 4, 3)
    ones = [torch.ones(2, size, 3) for size in (5, 4, 3)]
    for tensor in (zeros, torch.ones(2, 5, 4, 3)):
        assert all(factor.isfinite().all() for factor in accelerated(tensor, ones, 20))
