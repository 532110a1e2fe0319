"""Refit: moments of pairs, the target that is made from them, and the level itself."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from threading import active_count
from typing import Any

import pytest
import torch
from torch import nn

import awkward
from conftest import Polyad
from own_network import write_own
from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.decompositions.base import FORMS
from polyad.errors import DataError
from polyad.evaluation import divergence, outputs
from polyad.followers import Follower, followers
from polyad.gate import gated
from polyad.layers import LayerSpec
from polyad.lockstep import walk
from polyad.metrics.propagated import RIDGES, Regression, best_shift, output_error, propagated_norm
from polyad.pairs import output_rows, pairs_of
from polyad.patches import patch_blocks, sampled_blocks
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


def lesson(name: str, share: float = 0.3, **options: Any) -> Lesson:
    torch.manual_seed(0)
    teacher = networks()[name]().eval()
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
    inputs = torch.randn(80, 3, 8, 8)
    inputs = inputs + 0.7 * inputs.roll(1, -1)
    found = compress(
        teacher, [inputs], budget=Budget(params=share), forms=("svd", "tucker2", "cp"), recover="none", **options
    )
    calibration, held_out = as_batches([inputs[:30], inputs[30:60]]), as_batches([inputs[60:]])
    return Lesson(found.model, teacher, found.plan, calibration, held_out, silent)


def changed(first: nn.Module, second: nn.Module) -> list[str]:
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return [name for (name, a), b in pairs if not torch.equal(a, b)]


def distance(work: Lesson, batches: Sequence[Batch]) -> float:
    return divergence(outputs(work.teacher, batches), outputs(work.student, batches))


@pytest.mark.parametrize("name", networks())
def test_outputs_come_closer_the_plan_stays_and_twice_gives_the_same(name: str) -> None:
    work = lesson(name)
    again = replace(work, student=deepcopy(work.student))
    original, compressed = deepcopy(work.teacher), deepcopy(work.student)
    before = [distance(work, batches) for batches in (work.calibration, work.held_out)]
    notes = RECOVERIES["refit"].run(work)
    after = [distance(work, batches) for batches in (work.calibration, work.held_out)]
    assert after[0] < before[0] and after[1] <= before[1]
    assert changed(work.student, compressed) and not changed(work.teacher, original)
    example = work.held_out[0]
    counted, wanted = trace(work.student, example), trace(compressed, example)
    assert (counted.params, counted.macs) == (wanted.params, wanted.macs)
    assert RECOVERIES["refit"].run(again) == notes
    assert not changed(work.student, again.student)


def test_a_network_without_errors_stays_as_it_is() -> None:
    """Weights that have the rank of their forms: nothing is lacking, so nothing changes beyond rounding."""
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 12), nn.ReLU(), nn.Linear(12, 4)
    )
    with torch.no_grad():
        for at, rank in ((0, 2), (3, 3)):
            left, values, right = torch.linalg.svd(teacher[at].weight.flatten(1), full_matrices=False)
            low = (left[:, :rank] * values[:rank]) @ right[:rank]
            teacher[at].weight.copy_(low.reshape(teacher[at].weight.shape))  # type: ignore[operator, union-attr]
    inputs, fixed = torch.randn(60, 3, 8, 8), {"0": ("svd", (2,)), "3": ("svd", (3,)), "5": ("dense", ())}
    found = compress(teacher, [inputs], budget=Budget(params=0.9), fixed=fixed, recover="none")
    work = Lesson(found.model, teacher, found.plan, as_batches([inputs[:40]]), as_batches([inputs[40:]]), silent)
    before = distance(work, work.held_out)
    RECOVERIES["refit"].run(work)
    assert max(before, distance(work, work.held_out)) < 1e-9


def test_stacks_and_what_runs_twice_are_left_with_a_word() -> None:
    torch.manual_seed(0)
    twice = nn.Linear(16, 16)
    teacher = nn.Sequential(
        *(nn.Linear(16, 16) for _ in range(2)), nn.ReLU(), twice, nn.ReLU(), twice, nn.Linear(16, 4)
    )
    fixed = {name: ("svd", (4,)) for name in ("[01]", "3", "6")}
    inputs = torch.randn(40, 16)
    found = compress(teacher, [inputs], budget=Budget(params=0.9), stack=["[01]"], fixed=fixed, recover="refit")
    assert found.report.recovered[0].startswith(
        "refit: 1 of 1 sites refitted (left as they are: [01] (a stack), 3 (it runs"
    )


def test_the_command_line_refits(polyad: Polyad, tmp_path: Path) -> None:
    own = write_own(tmp_path)
    out = tmp_path / "small"
    chosen = (
        "--data",
        "digits",
        "--budget",
        "params=25%",
        "--samples",
        "100",
        "--forms",
        "svd,tucker2",
        "--recover",
        "refit",
    )
    ran = polyad("compress", own.model, "--weights", own.weights, *chosen, "--out", out, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["recovery"] == "refit" and "sites refitted" in found["recovered"][0]
    again = json.loads(polyad("evaluate", out, "--model", own.model, "--data", "digits", "--json").out)
    assert again["value"] == found["after"]["value"]


class Block(nn.Module):
    """A residual block whose shortcut has a layer of its own, and a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)
        self.side, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.second(nn.functional.relu6(self.first(x))))
        return self.last(torch.relu_(y + self.side(x)))


def test_what_follows_a_layer_is_seen() -> None:
    model = Block().eval()
    inputs = Batch((torch.randn(5, 4),))
    found = followers(model, trace(model, inputs).sites, inputs)
    assert found == {
        "first": Follower(False, 6.0),
        "second": Follower(False, None),  # its sum belongs to the layer that runs later
        "side": Follower(True, inf),
        "last": Follower(False, None),
    }


@pytest.mark.parametrize("summed", [(), ("side",)])
def test_networks_meet_layer_by_layer_and_later_layers_see_what_was_changed(summed: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    teacher = Block().eval()
    student, inputs = deepcopy(teacher), torch.randn(5, 4)
    sites = trace(teacher, Batch((inputs,))).sites
    met = {}
    for meeting in walk(teacher, student, sites, as_batches([inputs[:3], inputs[3:]]), summed):
        met[meeting.name] = [torch.cat(list(part)) for part in (meeting.seen, meeting.wanted)]
        if meeting.beside is not None:
            met["sum"] = [torch.cat(parts) for parts in zip(*meeting.beside)]
        with torch.no_grad():
            student.get_submodule(meeting.name).weight.add_(1)  # type: ignore[operator, union-attr]
    assert list(met) == ["first", "second", "side", *(["sum"] if summed else []), "last"]
    with torch.no_grad():
        hidden, other = (nn.functional.relu6(one.first(inputs)) for one in (student, teacher))
        mine, theirs = (one.norm(one.second(x)) for one, x in ((student, hidden), (teacher, other)))
        ends = [torch.relu(y + one.side(inputs)) for y, one in ((mine, student), (theirs, teacher))]
        assert torch.equal(met["first"][0], inputs)
        assert torch.allclose(met["second"][0], hidden) and torch.allclose(met["second"][1], teacher.second(other))
        assert torch.allclose(met["last"][0], ends[0]) and torch.allclose(met["last"][1], teacher.last(ends[1]))
        if summed:
            assert torch.allclose(met["sum"][0], mine) and torch.allclose(met["sum"][1], theirs)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in [*student.modules(), *teacher.modules()]
    )


def test_an_error_on_the_way_ends_both_runs() -> None:
    teacher = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    student = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 4))
    inputs = torch.randn(5, 4)
    sites, threads = trace(teacher, Batch((inputs,))).sites, active_count()
    with pytest.raises(DataError, match="refuses a calibration batch"):
        list(walk(teacher, student, sites, as_batches([inputs])))
    with closing(walk(teacher, teacher, sites, as_batches([inputs]))) as meetings:  # and so does losing interest
        next(meetings)
    assert active_count() == threads
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in [*student, *teacher])


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
