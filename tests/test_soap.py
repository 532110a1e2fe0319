"""SOAP: what it is for, where it is Adam, and that rounding stays rounding."""

import pytest
import torch
from torch import Tensor, nn

from polyad.training.soap import LARGEST, LEAST, Soap


def descend(optimizer: torch.optim.Optimizer, loss: "nn.Module", steps: int) -> float:
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    return float(loss().detach())


class Mixed(nn.Module):
    """|A (X - T) B|^2 with A and B turned away from the axes and steep: what Adam sees entry by entry is no help."""

    def __init__(self, rows: int, columns: int, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x = nn.Parameter(torch.randn(rows, columns, 1, 1))
        self.target = torch.randn(rows, columns)
        self.left, self.right = (self._steep(size) for size in (rows, columns))
        self.noise = noise

    @staticmethod
    def _steep(size: int) -> Tensor:
        turned = torch.linalg.qr(torch.randn(size, size))[0]
        return turned * torch.logspace(0, -1.5, size) @ turned.T

    def forward(self) -> Tensor:
        apart = self.left @ (self.x.flatten(1) - self.target) @ self.right
        return apart.square().sum() + self.noise * self.x.sin().sum()


def test_it_goes_down_where_adam_crawls() -> None:
    one, other = Mixed(12, 20), Mixed(12, 20)
    start = float(one().detach())
    ours = descend(Soap([one.x], 3e-2), one, 250)
    theirs = descend(torch.optim.Adam([other.x], 3e-2, betas=(0.95, 0.95)), other, 250)
    assert ours < 0.3 * theirs < 0.3 * start


def test_a_vector_is_left_to_adam_at_a_rate_of_its_size() -> None:
    torch.manual_seed(0)
    scales, start = torch.logspace(0, 1, 6), torch.randn(6)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    adam = torch.optim.Adam([theirs], betas=(0.95, 0.95))
    descend(Soap([ours], 1e-2), lambda: (scales * ours.square()).sum(), 20)  # type: ignore[arg-type]
    for _ in range(20):
        adam.param_groups[0]["lr"] = 1e-2 * float(theirs.detach().square().mean().sqrt())
        descend(adam, lambda: (scales * theirs.square()).sum(), 1)  # type: ignore[arg-type]
    assert torch.allclose(ours, theirs, atol=1e-4) and not torch.allclose(ours, start, atol=1e-2)


@pytest.mark.parametrize("size", [0.05, 20.0])
@pytest.mark.parametrize("shape", [(12, 20), (20,)])
def test_one_rate_suits_weights_of_any_size(size: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    start, target, scales = torch.randn(shape), torch.randn(shape), torch.logspace(0, 1, 20)
    one, other = nn.Parameter(start.clone()), nn.Parameter(size * start)
    descend(Soap([one], 1e-2), lambda: (scales * (one - target)).square().sum(), 30)  # type: ignore[arg-type]
    descend(Soap([other], 1e-2), lambda: (scales * (other - size * target)).square().sum(), 30)  # type: ignore[arg-type]
    assert torch.allclose(other / size, one, atol=1e-3) and not torch.allclose(one, start, atol=1e-1)


def test_a_bias_of_zero_learns_too() -> None:
    bias = nn.Parameter(torch.zeros(4))
    descend(Soap([bias], 1e-2), lambda: (bias - 1).square().sum(), 10)  # type: ignore[arg-type]
    assert bias.detach().tolist() == pytest.approx([10 * 1e-2 * LEAST] * 4, rel=0.1)


def test_a_side_that_is_too_large_keeps_its_basis() -> None:
    x = nn.Parameter(torch.zeros(LARGEST + 1, 3))
    optimizer = Soap([x], 1e-2)
    descend(optimizer, lambda: (x - 1).square().sum(), 3)  # type: ignore[arg-type]
    assert {"columns", "columns_basis"} <= optimizer.state[x].keys() and "rows" not in optimizer.state[x]
    assert (x > 0).all()


def test_weights_decay_by_themselves() -> None:
    x = nn.Parameter(torch.ones(3, 2))
    optimizer = Soap([x], 0.1, weight_decay=0.5)
    x.grad = torch.zeros_like(x)
    optimizer.step()
    assert torch.allclose(x, torch.full((3, 2), 0.95))


@pytest.mark.parametrize("shape", [(12, 20), (20, 3)])
def test_rounding_stays_rounding(shape: tuple[int, int]) -> None:
    """Also where the gradients leave most of a side without any (20 rows of rank three): eigenvectors as such, which
    turn about with it there, part by 0.5 and more."""
    found = []
    for noise in (0.0, 1e-6):
        one = Mixed(*shape, noise=noise)
        descend(Soap([one.x], 1e-2), one, 60)
        found.append(one.x.detach())
    assert torch.allclose(*found, atol=1e-2) and not torch.equal(*found)
