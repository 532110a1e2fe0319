"""Refit: moments of pairs, the target that is made from them, and the level itself."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn

import awkward
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.lockstep import walk
from polyad.metrics.moments import FLOOR
from polyad.metrics.propagated import best_shift, output_error, propagated_norm, propagated_target
from polyad.pairs import output_rows, pairs_of
from polyad.patches import patch_blocks
from polyad.pipeline import compress
from polyad.progress import silent
from polyad.records import Site
from polyad.recovery.base import RECOVERIES, Lesson
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
    assert torch.allclose(found.energy, lack.square().sum((1, 2)) / count)


@pytest.mark.parametrize("name", CHOSEN)
def test_the_target_is_least_squares_on_the_raw_rows(name: str) -> None:
    """With held-out inputs that are the fitted ones the smallest ridge and the whole step are best."""
    site, dense, seen, wanted = site_of(name, 60)
    pairs = pairs_of(site, dense, [seen], [wanted])
    weight = weight_of(nn.Sequential(dense), site).flatten(2)
    found = propagated_target(site, weight, pairs, pairs)
    x, y = rows_of(site, seen), output_rows(site.layer, wanted)
    if site.bias_may_move:
        x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    moment = x @ x.mT / x.shape[-1]
    mean = moment.diagonal(dim1=-2, dim2=-1).mean(-1).view(-1, 1, 1)
    eye = torch.eye(moment.shape[-1], dtype=torch.float64)
    cross = (y - weight @ x) @ x.mT / x.shape[-1]
    raised = moment + (found.ridge * (mean + FLOOR * mean.mean()) + FLOOR * mean.mean()) * eye
    assert torch.allclose(found.weight, weight + found.share * cross @ torch.linalg.inv(raised), atol=1e-9)
    assert found.ridge == 1e-4 and found.share > 0.99
    if not (moment.flatten(1) == 0).all(1).any():
        best = torch.linalg.lstsq(x.mT, y.mT).solution.mT
        error = ((y - found.weight @ x).square().sum() / (y - best @ x).square().sum()).item()
        assert error < 1.001


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
        weight = weight_of(model, site)
        found = propagated_target(site, weight, pairs, check)
        free = pairs.cross @ torch.linalg.inv(pairs.moment)
    assert float((found.weight - weight).norm()) < 0.3 * float(free.norm())


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


def networks() -> dict[str, Callable[[], nn.Module]]:
    def norms() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2),
            nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
        )  # fmt: skip

    def biases() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, groups=2), nn.ReLU(), nn.Flatten(2),
            nn.Linear(64, 12), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(96, 10, bias=False),
        )  # fmt: skip

    return {"norms": norms, "biases": biases}


def lesson(name: str, metric: str = "inputs") -> Lesson:
    torch.manual_seed(0)
    teacher = networks()[name]().eval()
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
    inputs = torch.randn(80, 3, 8, 8)
    inputs = inputs + 0.7 * inputs.roll(1, -1)
    found = compress(teacher, [inputs], budget=Budget(params=0.3), metric=metric, recover="none")
    calibration, held_out = as_batches([inputs[:30], inputs[30:60]]), as_batches([inputs[60:]])
    return Lesson(found.model, teacher, found.plan, calibration, held_out, silent)


@pytest.mark.parametrize("name", networks())
def test_the_same_twice(name: str) -> None:
    first, second = lesson(name), lesson(name)
    assert RECOVERIES["refit"].run(first) == RECOVERIES["refit"].run(second)
    pairs = zip(first.student.state_dict().values(), second.student.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_networks_meet_layer_by_layer_and_later_layers_see_what_was_changed() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), nn.ReLU(inplace=True))
    student, inputs = deepcopy(teacher), torch.randn(5, 4)
    met = {}
    for meeting in walk(teacher, student, ["0", "2"], as_batches([inputs[:3], inputs[3:]])):
        met[meeting.name] = [part.clone() for part in meeting.seen], [part.clone() for part in meeting.wanted]
        with torch.no_grad():
            student.get_submodule(meeting.name).bias.add_(1)  # type: ignore[operator, union-attr]
    assert list(met) == ["0", "2"]
    assert torch.equal(torch.cat(met["0"][0]), inputs)
    with torch.no_grad():
        assert torch.allclose(torch.cat(met["2"][0]), student[1](student[0](inputs)))
        assert torch.allclose(torch.cat(met["2"][1]), teacher[:3](inputs))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in [*student, *teacher])


def test_an_error_on_the_way_ends_both_runs() -> None:
    teacher = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    student = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 4))
    with pytest.raises(Exception, match="refuses a calibration batch"):
        list(walk(teacher, student, ["0", "1"], as_batches([torch.randn(5, 4)])))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in [*student, *teacher])


def test_a_propagated_norm_is_positive_definite() -> None:
    site, dense, seen, wanted = site_of("conv_grouped")
    found = propagated_norm(site, pairs_of(site, dense, [seen], [wanted], halves=True))
    assert float(torch.linalg.eigvalsh(found).min()) > 0
