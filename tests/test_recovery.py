"""Recovery laws: plan and counts unchanged, the held-out divergence never rises, the teacher is untouched."""

from pathlib import Path

import pytest
import torch
from torch import nn

from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.channels import LARGEST_SCALE
from polyad.errors import BudgetError
from polyad.evaluation import divergence, outputs
from polyad.pipeline import compress
from polyad.progress import silent
from polyad.records import Plan
from polyad.recovery.base import RECOVERIES, Lesson, rose
from polyad.trace import trace


def norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def biases() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, groups=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(2),
        nn.Linear(64, 12),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def neither() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10, bias=False))


NETWORKS = {"norms": norms, "biases": biases, "neither": neither}


def lesson(name: str) -> tuple[Lesson, torch.Tensor]:
    torch.manual_seed(0)
    teacher = NETWORKS[name]().eval()
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
    inputs = torch.randn(60, 3, 8, 8)
    options = {"metric": "weights", "damage": "relative", "recover": "none"}
    found = compress(teacher, [inputs], budget=Budget(params=0.3), **options)
    calibration, held_out = as_batches([inputs[:40]]), as_batches([inputs[40:]])
    return Lesson(found.model, teacher, found.plan, calibration, held_out, silent), inputs


@pytest.mark.parametrize("level", RECOVERIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_counts_stay_and_held_out_divergence_never_rises(name: str, level: str) -> None:
    work, _ = lesson(name)
    example = work.held_out[0]
    before = divergence(outputs(work.teacher, work.held_out), outputs(work.student, work.held_out))
    counted = trace(work.student, example)
    original = {key: tensor.clone() for key, tensor in work.teacher.state_dict().items()}
    RECOVERIES[level].run(work)
    after = divergence(outputs(work.teacher, work.held_out), outputs(work.student, work.held_out))
    assert after <= before
    again = trace(work.student, example)
    assert (again.params, again.macs) == (counted.params, counted.macs)
    assert all(torch.equal(original[key], tensor) for key, tensor in work.teacher.state_dict().items())
    assert not any(module._forward_hooks for module in (*work.student.modules(), *work.teacher.modules()))


@pytest.mark.parametrize("name", ["norms", "biases"])
def test_statistics_bring_the_outputs_closer(name: str) -> None:
    work, _ = lesson(name)
    before = divergence(outputs(work.teacher, work.held_out), outputs(work.student, work.held_out))
    (note,) = RECOVERIES["statistics"].run(work)
    after = divergence(outputs(work.teacher, work.held_out), outputs(work.student, work.held_out))
    assert after < 0.9 * before, note


@pytest.mark.parametrize("name", ["norms", "biases"])
def test_a_kept_correction_matches_mean_and_variance(name: str) -> None:
    """Behind the first replaced site, its bias or batch norm included, the teacher's statistics are back."""
    work, _ = lesson(name)
    first = next(choice for choice in work.plan.choices if not choice.dense)
    single = work.plan.model_copy(update={"choices": (first,)})
    end = int(first.site.name) + (2 if first.site.norm_behind else 1)
    batch = work.calibration[0].args[0]
    with torch.no_grad():
        before, wanted = work.student[:end](batch), work.teacher[:end](batch)
    RECOVERIES["statistics"].run(Lesson(work.student, work.teacher, single, work.calibration, work.held_out, silent))
    with torch.no_grad():
        after = work.student[:end](batch)
    assert not torch.allclose(before.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=1e-3)
    assert torch.allclose(after.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=1e-5)
    reachable = wanted.var((0, 2, 3)) <= LARGEST_SCALE**2 * before.var((0, 2, 3))
    assert reachable.sum() > len(reachable) / 2
    assert torch.allclose(after.var((0, 2, 3))[reachable], wanted.var((0, 2, 3))[reachable], rtol=1e-3)


def test_without_bias_or_norm_it_says_so() -> None:
    work, _ = lesson("neither")
    (note,) = RECOVERIES["statistics"].run(work)
    assert "no site has a bias or a batch norm" in note


def test_a_single_sample_is_not_held_out() -> None:
    torch.manual_seed(0)
    found = compress(norms().eval(), [torch.randn(1, 3, 8, 8)], budget=Budget(params=0.5))
    assert "left out" in found.report.recovered[0]


def test_a_loop_of_ones_own_serves_as_data(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, inputs = norms().eval(), torch.randn(30, 3, 8, 8)
    found = compress(teacher, lambda model: model(inputs), budget=Budget(params=0.5))
    assert isinstance(found.plan, Plan)
    assert trace(found.model, Batch((inputs,))).params == found.plan.params


def test_a_budget_out_of_reach_is_refused_before_the_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def observed(*args: object, **kwargs: object) -> None:
        raise AssertionError("the budget could have been refused before")

    monkeypatch.setattr("polyad.looking.gather", observed)
    with pytest.raises(BudgetError, match=r"params=6 .* keeps from 296 "):
        compress(norms().eval(), [torch.randn(10, 3, 8, 8)], budget=Budget(params=6))


def test_a_divergence_has_risen_where_it_is_more_than_chance() -> None:
    before = torch.full((50,), 0.1)
    one = before.clone()
    one[7] = 3.0  # a single sample that flipped, most others closer
    one[10:] -= 0.02
    assert not rose(before, one) and rose(before, before + torch.linspace(0, 0.1, 50))
    assert not rose(before, before) and not rose(before[:1], before[:1] - 0.01) and rose(before[:1], before[:1] + 0.01)
    broken = before.clone()
    broken[0] = torch.inf
    assert rose(before, broken) and not rose(broken, before) and not rose(broken, broken)
