"""Images stored channels last: only for networks that do the same with them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polyad
from polyad.batches import Batch
from polyad.memory_format import as_images


class Flat(nn.Module):
    """Looks at how its input is stored: `view` refuses another order, `as_strided` reads it wrongly."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv, self.linear = how, nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        flat = x.view(len(x), -1) if self.how == "view" else x.as_strided((len(x), 1024), (1024, 1))
        return self.linear(x.flatten(1) if self.how == "flatten" else flat)


def images(count: int = 40) -> list[Batch]:
    torch.manual_seed(0)
    return [
        Batch((part,), labels=torch.zeros(len(part), dtype=torch.int64))
        for part in torch.randn(count, 3, 8, 8).split(16)
    ]


def stored(batches: list[Batch]) -> set[bool]:
    return {batch.args[0].is_contiguous(memory_format=torch.channels_last) for batch in batches}


@pytest.mark.parametrize(("how", "last"), [("flatten", True), ("view", False), ("as_strided", False)])
def test_images_are_stored_as_the_network_takes_them(how: str, last: bool) -> None:
    found = as_images(Flat(how), images())
    assert stored(found) == {last}
    for batch, before in zip(found, images(), strict=True):
        assert torch.equal(batch.args[0], before.args[0]) and torch.equal(batch.labels, before.labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["view", "as_strided"])
def test_a_network_that_needs_them_as_they_came_is_compressed(how: str) -> None:
    """And its answer is the one on images that are stored channels first."""
    settings: dict[str, Any] = {"budget": polyad.Budget(params=0.7), "recover": "statistics", "forms": ("svd",)}
    made = []
    for one in (how, "flatten"):
        torch.manual_seed(1)
        made.append(polyad.compress(Flat(one).eval(), images(), **settings))
    found, expected = made
    assert [(c.form, c.rank) for c in found.plan.choices] == [(c.form, c.rank) for c in expected.plan.choices]
    x = images()[0].args[0]
    torch.testing.assert_close(found.model(x), expected.model(x), rtol=1e-3, atol=1e-3)


def test_every_stage_runs_them_so() -> None:
    """Of compressing and of recovering, but for the trace, on two samples."""
    seen: list[bool] = []

    class Watched(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    model = Watched(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Flatten())
    found = polyad.compress(model.eval(), images(), budget=polyad.Budget(params=0.7), finalists=2, recover="refit")
    assert all(seen) and seen
    seen.clear()
    polyad.recover(found, model, images(), level="statistics")
    assert all(seen) and seen


def test_inputs_without_images_cost_no_run() -> None:
    model = nn.Linear(8, 8)
    model.register_forward_hook(lambda *_: pytest.fail("it ran"))
    given = [Batch((torch.randn(4, 8),))]
    assert as_images(model, given)[0] is given[0]


def test_inputs_that_the_network_refuses_are_left_for_those_who_say_so() -> None:
    wrong = [Batch((torch.randn(4, 2, 8, 8),))]
    assert as_images(Flat("flatten"), wrong)[0] is wrong[0]
    with pytest.raises(polyad.errors.DataError, match="The network refuses"):
        polyad.compress(Flat("flatten"), wrong, budget=polyad.Budget(params=0.7))
