"""Save -> load gives the same bits; what is damaged, foreign or unsafe is refused with a sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from polyad.batches import Batch
from polyad.budget import Budget
from polyad.checkpoint import load_network, read_plan, save_network, write_plan
from polyad.errors import CheckpointError, PlanError
from polyad.pipeline import Result, compress
from polyad.saving import save
from polyad.trace import trace


class Net(nn.Module):
    """Convolutions, a batch norm, tied linear layers, a non-persistent buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 16, 3, padding=1, stride=2)
        self.first = nn.Linear(16, 16)
        self.tied = nn.Linear(16, 16)
        self.tied.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(3.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2(torch.relu(self.norm(self.conv1(x)))).mean((2, 3))
        return self.tied(torch.relu(self.first(x))) * self.scale


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def teacher() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def result(teacher: Net, inputs: torch.Tensor) -> Result:
    return compress(teacher, [inputs], budget=Budget(params=0.6), evaluation=[inputs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_save_then_load_gives_the_same_bits(dtype: torch.dtype, inputs: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net().eval().to(dtype)
    result = compress(model, [inputs.to(dtype)], budget=Budget(params=0.6))
    assert any(not choice.dense for choice in result.plan.choices)
    save(result, tmp_path / "small")
    torch.manual_seed(9)
    loaded = load_network(tmp_path / "small", Net().to(dtype))
    with torch.no_grad():
        assert torch.equal(loaded(inputs.to(dtype)), result.model(inputs.to(dtype)))
    assert loaded.tied.weight is loaded.first.weight
    assert not loaded.training
    expected = {"model.safetensors", "plan.json", "report.json", "report.html", "README.md"}
    assert {path.name for path in (tmp_path / "small").iterdir()} == expected


def test_plan_json_plan_rebuilds_the_same_network(
    teacher: Net, inputs: torch.Tensor, result: Result, tmp_path: Path
) -> None:
    write_plan(result.plan, tmp_path / "plan.json")
    plan = read_plan(tmp_path / "plan.json")
    assert plan == result.plan
    again = compress(teacher, [inputs], plan=plan)
    with torch.no_grad():
        assert torch.equal(again.model(inputs), result.model(inputs))


def test_an_edited_plan_is_carried_out(teacher: Net, inputs: torch.Tensor, result: Result, tmp_path: Path) -> None:
    write_plan(result.plan, tmp_path / "plan.json")
    text = json.loads((tmp_path / "plan.json").read_text())
    text["choices"][1] |= {"form": "cp", "rank": [3]}
    (tmp_path / "plan.json").write_text(json.dumps(text))
    edited = compress(teacher, [inputs], plan=read_plan(tmp_path / "plan.json"))
    counted = trace(edited.model, Batch((inputs,)))
    assert counted.params == edited.plan.params == edited.report.params.after
    assert counted.macs == edited.plan.macs == edited.report.macs.after


def test_a_network_of_ones_own_needs_the_model(result: Result, tmp_path: Path) -> None:
    save(result, tmp_path / "small")
    with pytest.raises(CheckpointError, match="model="):
        load_network(tmp_path / "small")
    with pytest.raises(PlanError, match="which Linear does not have"):
        load_network(tmp_path / "small", nn.Linear(2, 2))


def test_loading_never_runs_a_file_that_the_folder_names(result: Result, tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\ndef build(): pass\n")
    named = result.plan.model_copy(update={"model": f"{trap}:build"})
    folder = tmp_path / "small"
    save(Result(result.model, named, result.report), folder)
    with pytest.raises(CheckpointError, match="would run that file"):
        load_network(folder)
    assert not (tmp_path / "sprung").exists()


def damage_nothing_there(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def damage_truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def damage_flipped(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))


def damage_foreign(folder: Path) -> None:
    save_file({"x": torch.zeros(3)}, folder / "model.safetensors")


def damage_weights_gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage_plan_truncated(folder: Path) -> None:
    (folder / "plan.json").write_text((folder / "plan.json").read_text()[:100])


def damage_plan_foreign(folder: Path) -> None:
    (folder / "plan.json").write_text('{"hello": 1}')


def damage_plan_newer(folder: Path) -> None:
    (folder / "plan.json").write_text(json.dumps(json.loads((folder / "plan.json").read_text()) | {"version": 99}))


def damage_plan_other_rank(folder: Path) -> None:
    text = json.loads((folder / "plan.json").read_text())
    choice = next(choice for choice in text["choices"] if choice["form"] != "dense")
    choice["rank"] = [rank + 1 for rank in choice["rank"]]
    (folder / "plan.json").write_text(json.dumps(text))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_nothing_there, "plan.json is not there"),
        (damage_truncated, "damaged"),
        (damage_flipped, "checksum differs"),
        (damage_foreign, "checksum differs"),
        (damage_weights_gone, "is missing"),
        (damage_plan_truncated, "not JSON"),
        (damage_plan_foreign, "not a plan"),
        (damage_plan_newer, "upgrade"),
        (damage_plan_other_rank, "does not fit plan.json"),
    ],
)
def test_damage_is_refused_with_a_sentence(damage, says: str, result: Result, tmp_path: Path) -> None:  # noqa: ANN001
    folder = tmp_path / "small"
    save(result, folder)
    damage(folder)
    with pytest.raises((CheckpointError, PlanError), match=says) as caught:
        load_network(folder, Net())
    assert "\n" not in str(caught.value)


def test_an_output_folder_in_use_is_left_alone(result: Result, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="not empty"):
        save(result, tmp_path / "full")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        save(result, tmp_path / "file")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_failure_while_writing_leaves_nothing(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("polyad.saving.write_report", fail)
    with pytest.raises(OSError, match="disk full"):
        save(result, tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_ordinary_keys_without_duplicates(result: Result, tmp_path: Path) -> None:
    save_network(result.model, result.plan, tmp_path)
    keys = set(load_file(tmp_path / "model.safetensors"))
    assert keys < set(result.model.state_dict())
    assert set(result.model.state_dict()) - keys == {"tied.weight"}
