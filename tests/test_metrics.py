"""What a fit promises is what is measured: errors, shifts of biases and batch norms, costs of layers run twice."""

import pytest
import torch
from torch import nn

from polyad.batches import Batch
from polyad.budget import Budget
from polyad.metrics import METRICS
from polyad.metrics.moments import input_moment, shrinkage
from polyad.observe import observe
from polyad.pipeline import compress
from polyad.propose import propose
from polyad.rebuild import factorise, rebuild
from polyad.settings import Settings
from polyad.trace import trace


def network(*, bias: bool, norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(4, 12, 3, padding=1, bias=bias)]
    if norm:
        layers.append(nn.BatchNorm2d(12))
        nn.init.uniform_(layers[1].running_mean, -1, 1)
        nn.init.uniform_(layers[1].running_var, 0.5, 2)
    return nn.Sequential(*layers).eval()


def images(seed: int) -> torch.Tensor:
    """Correlated, far from zero mean."""
    x = torch.randn(12, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x + 0.8 * x.roll(1, 1) + torch.tensor([2.0, -1.0, 3.0, 0.0]).view(4, 1, 1)


CASES = pytest.mark.parametrize(("bias", "norm"), [(True, False), (False, True), (True, True), (False, False)])


@CASES
def test_the_promised_held_out_error_is_measured(bias: bool, norm: bool) -> None:
    model, fitted, unseen = network(bias=bias, norm=norm), images(0), images(1)
    found = trace(model, Batch((fitted,)))
    statistics = observe(model, found.sites, [Batch((fitted,))], [Batch((unseen,))])
    plan = compress(model, [fitted], budget=Budget(params=0.5), recover="none").plan
    (made,) = factorise(model, plan, statistics)
    student = rebuild(model, [made])
    with torch.no_grad():
        behind = model[1] if norm else nn.Identity()
        seen, wanted = student(unseen).double(), model(unseen).double()
        # An error of the site reaches the output through the batch norm, channel by channel.
        scale = (behind.running_var + behind.eps).sqrt().view(-1, 1, 1).double() if norm else 1.0
        error = ((seen - wanted) * scale).square().sum()
        output = model[0](unseen).double()
        if bias or norm:  # a constant can be absorbed: what counts is what varies around the fitted inputs' mean
            output = output - model[0](fitted).double().mean((0, 2, 3), keepdim=True)
    assert made.held_out_error == pytest.approx(float(error / output.square().sum()), rel=1e-3)


@CASES
def test_the_mean_of_the_output_stays_where_it_can(bias: bool, norm: bool) -> None:
    model, fitted = network(bias=bias, norm=norm), images(0)
    found = trace(model, Batch((fitted,)))
    statistics = observe(model, found.sites, [Batch((fitted,))])
    plan = compress(model, [fitted], budget=Budget(params=0.5), recover="none").plan
    student = rebuild(model, factorise(model, plan, statistics))
    with torch.no_grad():
        moved = (student(fitted) - model(fitted)).mean((0, 2, 3)).abs().max()
    assert (moved < 1e-4) == (bias or norm)


@pytest.mark.parametrize("bias", [True, False])
def test_the_input_norm_is_the_covariance_where_a_constant_is_free(bias: bool) -> None:
    model, x = network(bias=bias, norm=False), images(0)
    (site,) = trace(model, Batch((x,))).sites
    seen = observe(model, [site], [Batch((x,))])[site.name]
    rows = nn.functional.unfold(x.double(), 3, padding=1).transpose(1, 2).flatten(0, 1)
    expected = torch.cov(rows.T, correction=0) if bias else rows.T @ rows / len(rows)
    full, shrunk, diagonal = (
        METRICS[name].matrix(site, seen)[0] for name in ("inputs_full", "inputs", "inputs_diagonal")
    )
    off = ~torch.eye(len(expected), dtype=torch.bool)
    weight = float(shrinkage(input_moment(site, seen), seen.noise))
    assert 0 < weight < 0.5
    assert torch.allclose(full[off], expected[off], rtol=1e-4, atol=1e-4)
    assert torch.allclose(shrunk[off], (1 - weight) * expected[off], rtol=1e-4, atol=1e-4)
    for found in (full.diagonal(), shrunk.diagonal(), diagonal):
        assert torch.allclose(found, expected.diagonal(), rtol=1e-4)


def test_the_damage_of_the_menu_is_on_inputs_that_no_fit_has_seen() -> None:
    model, fitted, unseen = network(bias=True, norm=False), images(0), images(1)
    found = trace(model, Batch((fitted,)))
    statistics = observe(model, found.sites, [Batch((fitted,))], [Batch((unseen,))])
    menu = propose(model, found, statistics, Settings(forms=("svd",)))
    candidate = menu.candidates["0"][1]  # the first one that was fitted
    fixed = {"0": ("svd", candidate.rank)}
    plan = compress(model, [fitted], budget=Budget(params=1.0), fixed=fixed, recover="none").plan
    (made,) = factorise(model, plan, statistics)
    assert candidate.damage == pytest.approx(made.held_out_error, rel=1e-6)
    assert candidate.damage != pytest.approx(made.error, rel=1e-3)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(self.conv(x))[..., ::2, ::2])


def test_a_layer_run_several_times_costs_that_often() -> None:
    torch.manual_seed(0)
    model, x = Twice().eval(), torch.randn(8, 6, 8, 8)
    found = trace(model, Batch((x,)))
    assert found.macs == 324 * (2 * 64 + 16)
    menu = propose(model, found, observe(model, found.sites, [Batch((x,))]))
    assert all(c.macs / found.macs == pytest.approx(c.params / 330, abs=0.02) for c in menu.candidates["conv"])
    result = compress(model, [x], budget=Budget(params=0.6), recover="none")
    assert trace(result.model, Batch((x,))).macs == result.plan.macs < found.macs
