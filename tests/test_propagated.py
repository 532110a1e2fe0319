"""What a refit is made of: moments of pairs, the target regressed from them, what a ReLU wants, factors read back."""

from copy import deepcopy
from itertools import pairwise
from math import inf

import pytest
import torch
from torch import nn

import awkward
from polyad.batches import Batch
from polyad.decompositions.base import FORMS
from polyad.gate import gated
from polyad.layers import LayerSpec
from polyad.metrics.propagated import RIDGES, Regression, best_shift, output_error, propagated_norm
from polyad.pairs import output_rows, pairs_of
from polyad.patches import patch_blocks, sampled_blocks
from polyad.records import Site
from polyad.sites import weight_of
from polyad.solvers import Problem, fit
from polyad.trace import trace

CHOSEN = ["linear", "linear_tokens", "linear_no_bias", "conv3x3", "conv3x3_no_bias", "conv_strided", "conv_grouped",
          "conv_reflect", "conv1d", "conv3d", "transposed", "transposed_grouped", "transposed_plain"]  # fmt: skip


def site_of(name: str, samples: int = 6) -> tuple[Site, nn.Module, torch.Tensor, torch.Tensor]:
    """Site, dense layer, inputs that a student would see, and what the teacher gives, in float64."""
    model, inputs = awkward.build(name, torch.float64, samples)
    with torch.no_grad():
        wanted = model(inputs)
    seen = inputs + 0.3 * torch.randn_like(inputs)
    return trace(model, Batch((inputs,))).sites[0], model[0], seen, wanted


def rows_of(site: Site, x: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(patch_blocks(site.layer, x)), -1)


@pytest.mark.parametrize("name", CHOSEN)
def test_moments_of_pairs_are_those_of_the_raw_rows(name: str) -> None:
    site, dense, seen, wanted = site_of(name)
    parts = [seen[:4], seen[4:]], [wanted[:4], wanted[4:]]
    found = pairs_of(site, dense, *parts, halves=True)
    x, y = rows_of(site, seen), output_rows(site.layer, wanted)
    weight = weight_of(nn.Sequential(dense), site).flatten(2)
    bias = torch.zeros(site.layer.out_features).double() if dense.bias is None else dense.bias.detach()
    lack = y - weight @ x - bias.reshape(len(x), -1, 1)
    count = x.shape[-1]
    assert found.count == count
    assert torch.allclose(found.mean, x.mean(-1))
    assert torch.allclose(found.moment, x @ x.mT / count)
    assert torch.allclose(found.lack, lack.mean(-1), atol=1e-12)
    assert torch.allclose(found.cross, lack @ x.mT / count, atol=1e-12)
    assert torch.allclose(found.energy, lack.square().sum(2) / count)


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in awkward.LAYERS if name != "embedding"])
def test_sampled_patches_are_some_of_all_patches(name: str, every: int) -> None:
    model, inputs = awkward.build(name)
    layer = LayerSpec.of(model[0])
    whole, some = (
        torch.cat(list(rows), -1) for rows in (patch_blocks(layer, inputs), sampled_blocks(layer, inputs, every))
    )
    assert torch.equal(some, whole[..., ::every])


@pytest.mark.parametrize("name", CHOSEN)
def test_the_target_is_least_squares_on_the_raw_rows(name: str) -> None:
    """With held-out inputs that are the fitted ones the smallest ridge and the whole step are best."""
    site, dense, seen, wanted = site_of(name, 60)
    pairs = pairs_of(site, dense, [seen], [wanted])
    weight = weight_of(nn.Sequential(dense), site).flatten(2)
    regression = Regression.on(site, pairs)
    ridge, share = regression.best(pairs, pairs)
    assert ridge == min(RIDGES) and share > 0.99
    target = weight + share * regression.step(pairs, ridge)
    x, y = rows_of(site, seen), output_rows(site.layer, wanted)
    if site.bias_may_move:
        x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    best = torch.linalg.lstsq(x.mT, y.mT).solution.mT
    least, found, before = ((y - one @ x).square().sum().item() for one in (best, target, weight))
    assert least <= found < 1.001 * least < before


@pytest.mark.parametrize("name", CHOSEN)
def test_the_error_of_an_output_follows_from_the_moments(name: str) -> None:
    site, dense, seen, wanted = site_of(name)
    pairs = pairs_of(site, dense, [seen], [wanted])
    weight = weight_of(nn.Sequential(dense), site).flatten(2)
    other = weight + 0.1 * torch.randn_like(weight)
    shift = torch.randn(weight.shape[:2], dtype=torch.float64)
    changed = deepcopy(dense)
    with torch.no_grad():
        changed.weight.copy_(site.layer.native(other))
        direct = wanted - changed(seen)
    rows = output_rows(site.layer, direct) - shift.unsqueeze(-1)
    assert output_error(pairs, weight - other, shift) == pytest.approx(float(rows.square().sum() / pairs.count))
    best = best_shift(pairs, weight - other)
    assert torch.allclose(best, output_rows(site.layer, direct).mean(-1), atol=1e-12)
    assert output_error(pairs, weight - other, best) <= output_error(pairs, weight - other, shift)


def test_noise_alone_leaves_the_weight_as_it_is() -> None:
    """Few samples whose errors have nothing to do with the inputs: W* falls back towards W."""
    torch.manual_seed(0)
    layer = nn.Linear(40, 6).double()
    model = nn.Sequential(layer)
    fitted, unseen = torch.randn(50, 40).double(), torch.randn(500, 40).double()
    site = trace(model, Batch((fitted,))).sites[0]
    with torch.no_grad():
        pairs, check = (
            pairs_of(site, layer, [x], [layer(x) + torch.randn(len(x), 6).double()]) for x in (fitted, unseen)
        )
        regression = Regression.on(site, pairs)
        ridge, share = regression.best(pairs, check)
        step = share * regression.step(pairs, ridge)
    assert float(step.norm()) < 0.2 * float(regression.step(pairs, 0).norm())


FORMS_HERE = [
    "cp",
    "cp/stable",
    "tucker2",
    "tt",
    "tr",
    "block_term",
    "spatial_svd",
    "svd",
    "group_svd",
    "filter_cp",
    "kronecker",
]


@pytest.mark.parametrize("form_name", FORMS_HERE)
@pytest.mark.parametrize("name", ["conv_wide", "conv_grouped", "linear", "transposed_grouped"])
def test_factors_are_read_as_they_were_loaded(form_name: str, name: str) -> None:
    model, _ = awkward.build(name, torch.float64)
    layer = LayerSpec.of(model[0])
    form = next(iter(FORMS[form_name].variants(layer)), None)
    if form is None:
        pytest.skip(f"{form_name} cannot carry {name}")
    rank = form.ranks(layer, layer.canonical(model[0].weight.detach()).reshape(-1, *form.sizes(layer).values()), [0.6])
    if not rank:
        pytest.skip("no rank is small enough")
    problem = Problem(layer.canonical(model[0].weight.detach()).flatten(2), None)
    found = fit(form, layer, problem, rank[-1], steps=3)
    module = form.skeleton(layer, rank[-1], torch.float64)
    form.load(module, layer, found.factors, None)
    again = form.read(module, layer, rank[-1])
    assert all(torch.equal(a, b) for a, b in zip(again, found.factors, strict=True))
    more = fit(form, layer, problem, rank[-1], steps=10, init=again)
    assert more.error <= found.error + 1e-12


@pytest.mark.parametrize("ceiling", [inf, 6.0])
@pytest.mark.parametrize("name", ["linear", "conv3x3", "conv_grouped", "transposed"])
def test_the_loss_in_front_of_a_relu_falls_in_every_round(name: str, ceiling: float) -> None:
    site, dense, seen, wanted = site_of(name, 20)
    scale = torch.linspace(-4, 9, site.layer.out_features).double()
    channels = scale.reshape(-1, *(1,) * site.layer.dims)
    before = [(wanted * channels + 0.3, torch.full_like(wanted, 0.3))]
    rows = gated(site.layer, [seen], before, scale, ceiling)
    weight, bias = weight_of(nn.Sequential(dense), site).flatten(2), dense.bias.detach().reshape(len(rows.patches), -1)
    with torch.no_grad():
        passed, given = (y.clamp(0, ceiling) for y in (0.5 * (dense(seen) * channels + 0.3), before[0][0]))
    half = rows.error(0.5 * weight, 0.5 * bias - 0.15 / scale.reshape(bias.shape))
    direct = ((passed - given) / channels).square().sum() / rows.given.shape[-1]
    assert half == pytest.approx(float(direct))
    moments = pairs_of(site, dense, [seen], [wanted])
    target = rows.sign * (rows.target(rows.before(0.5 * weight, bias + 1)) - rows.beside)
    lack = target - weight @ rows.patches - bias.unsqueeze(-1)
    pairs = rows.pairs(moments, (weight, bias), (0.5 * weight, bias + 1))
    assert torch.allclose(pairs.lack, lack.mean(-1)) and torch.allclose(pairs.energy, lack.square().mean(-1))
    assert torch.allclose(pairs.cross, lack @ rows.patches.mT / pairs.count)
    regression, now = Regression.on(site, moments), (0.5 * weight, bias)
    losses = [rows.loss(*now)]
    for _ in range(6):
        pairs = rows.pairs(moments, (weight, bias), now)
        found = weight + regression.step(pairs, 0.0)
        now = found, bias + best_shift(pairs, weight - found)
        losses.append(rows.loss(*now))
        assert rows.error(*now) <= losses[-1] * (1 + 1e-9)
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(losses)) and losses[-1] < 0.5 * losses[0]


def test_a_propagated_norm_is_positive_definite() -> None:
    site, dense, seen, wanted = site_of("conv_grouped")
    found = propagated_norm(site, pairs_of(site, dense, [seen], [wanted], halves=True))
    assert float(torch.linalg.eigvalsh(found).min()) > 0
