"""Streamed moments equal those of all patches held at once; patches are what the layer multiplies with."""

import pytest
import torch
from torch import nn

from awkward import LAYERS, build
from polyad import patches
from polyad.batches import Batch, as_batches
from polyad.errors import DataError, NumericalError
from polyad.observe import observe
from polyad.patches import patch_blocks
from polyad.trace import trace


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "embedding"])
def test_weight_times_patches_is_the_layer(name: str) -> None:
    model, inputs = build(name, torch.float64)
    (site,) = trace(model, Batch((inputs,))).sites
    rows = torch.cat(list(patch_blocks(site.layer, inputs)), -1)
    output = site.layer.canonical(model[0].weight).flatten(2) @ rows
    expected = model(inputs)
    channels = -1 if site.layer.kind == "linear" else 1
    expected = expected.movedim(channels, 0).flatten(1)
    if model[0].bias is not None:
        expected = expected - model[0].bias[:, None]
    assert torch.allclose(output.flatten(0, 1), expected)


@pytest.mark.parametrize("name", ["conv_grouped", "conv3x3", "linear_tokens", "transposed"])
def test_blocks_and_batches_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build(name, torch.float64, samples=7)
    (site,) = trace(model, Batch((inputs,))).sites
    whole = observe(model, [site], [Batch((inputs,))], [Batch((inputs[:3],))])[site.name]
    monkeypatch.setattr(patches, "BLOCK", 300)
    parts = observe(model, [site], as_batches(inputs.split(2)), [Batch((inputs[:3],))])[site.name]
    assert whole.count == parts.count
    assert torch.allclose(whole.moment, parts.moment)
    assert torch.allclose(whole.mean, parts.mean)
    rows = torch.cat(list(patch_blocks(site.layer, inputs)), -1)
    assert torch.allclose(whole.moment, rows @ rows.mT / rows.shape[-1])
    assert torch.allclose(whole.mean, rows.mean(-1))
    held = torch.cat(list(patch_blocks(site.layer, inputs[:3])), -1)
    assert torch.allclose(whole.held_out, held @ held.mT / held.shape[-1])


def test_inputs_that_are_not_finite_name_the_layer() -> None:
    class Poison(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 0

    model = nn.Sequential(nn.Linear(3, 3), Poison(), nn.Linear(3, 3))
    sites = trace(nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.Linear(3, 3)), Batch((torch.ones(1, 3),))).sites
    with pytest.raises(NumericalError, match="inputs of 2"):
        observe(model, sites, [Batch((torch.ones(1, 3),))])


def test_a_site_that_sees_nothing_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(DataError, match="reached 0"):
        observe(model, trace(model, Batch((torch.ones(1, 3),))).sites, [])
