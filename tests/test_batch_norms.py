"""Batch norms of every kind behind a layer serve a recovery as PyTorch's own does."""

import pytest
import torch
from torch import Tensor, nn

from polyad.batch_norms import is_norm
from polyad.batches import as_batches
from polyad.budget import Budget
from polyad.evaluation import outputs
from polyad.pipeline import compress
from polyad.trace import trace
from test_recovery import norms


class Frozen(nn.Module):
    """As torchvision and detectron2 have it: no parameters, four buffers."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


class Another(Frozen):
    """One that does something else with them."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def network(kind: str) -> nn.Module:
    """The network of the recovery laws: one and the same function, whatever the kind."""
    torch.manual_seed(0)
    model = norms().eval()
    for at, module in enumerate(model):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
            other = KINDS[kind](module.num_features)
            other.load_state_dict(module.state_dict(), strict=False)
            model[at] = other.eval()
    return model


KINDS = {
    "plain": nn.BatchNorm2d,
    "affine-free": lambda channels: nn.BatchNorm2d(channels, affine=False),
    "synchronised": nn.SyncBatchNorm,
    "frozen": Frozen,
}


FIXED = {"0": ("cp", (4,)), "3": ("cp", (9,)), "8": ("dense", ())}
"""Chosen beforehand: a budget counts the parameters of batch norms, which not all kinds have."""


@pytest.mark.parametrize("level", ["statistics", "refit"])
def test_every_kind_recovers_as_the_plain_one(level: str) -> None:
    inputs = [torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(1))]
    found = {}
    for kind in KINDS:
        model = network(kind)
        result = compress(model, inputs, budget=Budget(params=0.9), metric="weights", fixed=FIXED, recover=level)
        assert [choice.site.norm_behind for choice in result.plan.choices] == ["1", "4", None]
        found[kind] = (
            outputs(result.model, as_batches(inputs)),
            torch.cat([result.model[at].running_mean for at in (1, 4)]),
        )
        assert not torch.equal(found[kind][1], torch.cat([model[at].running_mean for at in (1, 4)]))
    for said, mean in found.values():
        torch.testing.assert_close(said, found["plain"][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mean, found["plain"][1], rtol=1e-4, atol=1e-5)


def test_what_does_something_else_is_none() -> None:
    model = network("frozen")
    strange = Another(16)
    strange.load_state_dict(model[1].state_dict())
    assert is_norm(model[1])
    assert not is_norm(strange)
    model[1] = strange
    found = {site.name: site.norm_behind for site in trace(model, as_batches([torch.randn(2, 3, 8, 8)])[0]).sites}
    assert found == {"0": None, "3": "4", "8": None}


def test_channels_in_front_of_a_frozen_norm_are_not_left_out() -> None:
    """`--narrow` knows how to leave out channels of PyTorch's batch norms alone."""
    inputs = [torch.randn(80, 3, 8, 8)]
    found = compress(
        network("frozen"), inputs, budget=Budget(params=0.5), metric="weights", damage="relative", narrow=True
    )
    assert not found.plan.narrowed
