"""The budget spent again in the middle of a training: the budget holds and the better network stays."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import Polyad
from own_network import write_own
from polyad import respending
from polyad.batches import as_batches
from polyad.budget import Budget
from polyad.errors import PolyadError
from polyad.evaluation import divergence, outputs
from polyad.models import build_model
from polyad.pipeline import Result, compress
from polyad.recovering import open_result
from polyad.respending import learned
from polyad.settings import Training


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(12 * 64, 5),
    ).eval()  # fmt: skip


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))


def shrunk(share: float, **more: Any) -> Result:
    training = Training(epochs=6, batch=32, rate=1e-2, respend=share, augment="none")
    options = {"recover": "distillation", "training": training, "damage": "relative", "learn_from": images(300)}
    return compress(network(), [images(60)], **({"budget": Budget(params=0.3)} | options | more))


def distance(student: nn.Module) -> float:
    unseen = as_batches([images(200)])
    return divergence(outputs(network(), unseen), outputs(student, unseen))


def test_what_is_learned_is_added_to_the_original() -> None:
    original, start = network(), shrunk(0.0, recover="none")
    same = learned(original, start.model, start.model, start.plan.choices)
    assert all(torch.equal(a, b) for a, b in zip(original.parameters(), same.parameters(), strict=True))
    now = deepcopy(start.model)
    with torch.no_grad():
        for parameter in now.parameters():
            parameter.mul_(1.1).add_(0.01)
    found = learned(original, start.model, now, start.plan.choices)
    assert any(not choice.dense for choice in start.plan.choices)
    before, after = (dense_weights(model) for model in (start.model, now))
    for name, weight in dense_weights(found).items():
        torch.testing.assert_close(weight - original.get_parameter(name), after[name] - before[name])


def dense_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and biases of a network by the names that they have in the original, by running its layers alone."""
    found = {}
    for at, size in ((0, 1), (3, 8), (6, 12 * 64)):
        layer = model[at]
        shape = (size,) if at == 6 else (size, 3, 3)
        units = torch.eye(int(torch.tensor(shape).prod())).view(-1, *shape)
        zero = layer(torch.zeros_like(units[:1]))
        answers = layer(units) - zero
        if at != 6:  # the middle of the image sees the kernel as it is
            answers, zero = answers[:, :, 1, 1], zero[:, :, 1, 1]
        found[f"{at}.weight"] = answers.T.reshape(-1, *shape)
        found[f"{at}.bias"] = zero.flatten()
    return found


def test_the_budget_holds_and_a_better_network_stays() -> None:
    straight, again = shrunk(0.0), shrunk(0.5)
    note = again.report.recovered[-1]
    assert note.startswith("respend: ") and "as they were" not in note
    levels = [word.split(":")[0] for word in again.report.recovered]
    assert levels == ["distillation", "refit", "statistics", "distillation", "respend"]
    assert again.plan.params <= 0.3 * again.plan.params_before
    assert sum(p.numel() for p in again.model.parameters()) == again.plan.params
    assert again.report.params.after == again.plan.params
    before, behind, after = map(float, note.split("divergence ")[1].split(" -> "))
    assert after < behind and after <= before
    assert distance(again.model) < 1.5 * distance(straight.model)


def test_where_it_does_not_pay_the_network_from_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(respending, "REACH", 0.0)  # nothing is near enough
    plain, again = shrunk(0.0, recover="none"), shrunk(0.5)
    assert again.report.recovered[-1].endswith("so the ranks are as they were")
    assert again.plan.choices == plain.plan.choices
    assert distance(again.model) < distance(plain.model)


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    first = shrunk(0.5, work=tmp_path)
    assert list(tmp_path.glob("training-*"))
    again = shrunk(0.5, work=tmp_path)  # everything is there already
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"recover": "refit"}, "recover by distillation or finetune"),
        ({"budget": Budget(drop=1.0)}, "without a drop"),
        ({"training": Training(epochs=1, respend=0.5)}, "give two or more"),
    ],
)
def test_refusals(more: dict[str, Any], says: str) -> None:
    with pytest.raises(PolyadError, match=says):
        shrunk(0.5, **more)


def test_the_command_line_spends_again_and_the_folder_loads(polyad: Polyad, tmp_path: Path) -> None:
    own = write_own(tmp_path)
    options = ("--budget", "params=30%", "--forms", "svd", "--damage", "relative", "--samples", "100", "--epochs", "4")
    arguments = ("compress", own.model, "--weights", own.weights, "--data", "digits", *options, "--quiet")
    more = ("--recover", "distillation", "--training", "respend=0.5", "--train-samples", "400")
    ran = polyad(*arguments, *more, "--out", tmp_path / "small")
    assert ran.code == 0, ran.err
    loaded = open_result(tmp_path / "small", build_model(own.model))
    assert loaded.report.recovered[-1].startswith("respend: ")
    assert sum(p.numel() for p in loaded.model.parameters()) == loaded.plan.params
    ran = polyad("recover", tmp_path / "small", "--model", own.model, "--weights", own.weights, "--data", "digits",
                 "--out", tmp_path / "out", "--level", "distillation", "--training", "respend=0.5")  # fmt: skip
    assert ran.code == 2 and "in polyad compress" in ran.err
