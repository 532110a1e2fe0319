"""Empirical variational Bayes finds what stands out of noise, and its allocator reads the network."""

import pytest
import torch
from torch import nn

import polyad
from polyad.plain.evbmf import evbmf_rank


def noisy(rows: int, columns: int, rank: int, noise: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    a, b, e = (torch.randn(*shape, generator=generator) for shape in ((rows, rank), (rank, columns), (rows, columns)))
    return a @ b + noise * e


@pytest.mark.parametrize(("rows", "columns", "rank"), [(30, 100, 5), (100, 30, 5), (64, 64, 12), (40, 400, 20)])
def test_the_rank_behind_noise_is_found(rows: int, columns: int, rank: int) -> None:
    for seed in range(3):
        assert evbmf_rank(noisy(rows, columns, rank, 0.5, seed)) == rank


def test_noise_alone_and_nothing_at_all_have_rank_zero() -> None:
    assert [evbmf_rank(noisy(40, 120, 0, 1.0, seed)) for seed in range(5)] == [0] * 5
    assert evbmf_rank(torch.zeros(4, 9)) == 0


def test_scale_and_transpose_do_not_matter() -> None:
    matrix = noisy(30, 50, 7, 0.8, 0)
    assert evbmf_rank(matrix) == evbmf_rank(matrix.mT) == evbmf_rank(1e-4 * matrix) == 7


def test_layers_keep_what_stands_out_of_their_noise() -> None:
    """Of two layers of one shape the one with the larger rank behind its noise keeps more."""
    model = nn.Sequential(nn.Conv2d(24, 24, 3), nn.Conv2d(24, 24, 3))
    for at, rank in enumerate((3, 12)):
        weight = noisy(24, 24 * 9, rank, 0.3, at).reshape(24, 24, 3, 3)
        model[at].weight.data = weight.movedim(0, 1).contiguous()  # in the unfolding of the input channels
    plan = polyad.plan(
        model,
        torch.randn(4, 24, 8, 8),
        budget=polyad.Budget(params=0.5),
        forms=["tucker2", "svd"],
        metric="weights",
        allocator="evbmf",
    )
    kept = [choice.params / choice.site.params for choice in plan.choices]
    assert kept[0] < kept[1] and {choice.form for choice in plan.choices} == {"tucker2"}
    assert "EVBMF" in plan.rule
