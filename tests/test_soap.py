"""SOAP: what it is for, where it is Adam, and that rounding stays rounding."""

import pytest
import torch
from torch import Tensor, nn

from polyad.training.soap import LARGEST, Soap


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
        self.x = nn.Parameter(torch.zeros(rows, columns, 1, 1))
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
    ours = descend(Soap([one.x], 3e-2), one, 150)
    theirs = descend(torch.optim.Adam([other.x], 3e-2, betas=(0.95, 0.95)), other, 150)
    assert ours < 0.3 * theirs < 0.3 * start


def test_a_vector_is_left_to_adam() -> None:
    torch.manual_seed(0)
    scales, start = torch.logspace(0, 1, 6), torch.randn(6)
    found = []
    for make in (Soap, torch.optim.Adam):
        x = nn.Parameter(start.clone())
        descend(make([x], 1e-2, betas=(0.95, 0.95)), lambda x=x: (scales * x.square()).sum(), 20)  # type: ignore[arg-type]
        found.append(x.detach())
    assert torch.allclose(*found, atol=1e-4) and not torch.allclose(found[0], start, atol=1e-2)


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
