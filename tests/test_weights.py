"""Reading weights: what is understood, and what is refused with which message."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from polyad.errors import ModelError, NumericalError
from polyad.weights import load_weights, read_state_dict


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return network().state_dict()


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def refused(path: Path, *words: str, model: nn.Module | None = None) -> None:
    """The file is refused with one sentence that names it and has these words."""
    with pytest.raises(ModelError) as error:
        load_weights(model or network(), path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# ------------------------------------------------------------------------------------------------------ understood
@pytest.mark.parametrize("suffix", ["pth", "pt", "th", "PTH", "safetensors", "npz"])
def test_formats(suffix: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "npz":
        np.savez(path, **{key: tensor.numpy() for key, tensor in state.items()})  # type: ignore[arg-type]
    else:
        torch.save(state, path)
    assert same(read_state_dict(path), state)
    model = network()
    load_weights(model, path)
    assert same(model.state_dict(), state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_wrappings(wrapper: str, prefix: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({wrapper: {prefix + key: tensor for key, tensor in state.items()}, "epoch": 3, "best": 91.7}, path)
    assert same(read_state_dict(path), state)


def test_old_files(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """The format before PyTorch 1.6, without the counters of batch norms."""
    path = tmp_path / "old.pth"
    del state["1.num_batches_tracked"]
    torch.save(state, path, _use_new_zipfile_serialization=False)
    model = network()
    load_weights(model, path)
    assert same({key: tensor for key, tensor in model.state_dict().items() if key in state}, state)


def test_foreign_byte_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "big.npz", a=np.arange(3, dtype=">f4"))
    assert read_state_dict(tmp_path / "big.npz")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions(dtype: torch.dtype, tmp_path: Path) -> None:
    """The network keeps its own precision."""
    save_file({"weight": torch.full((2, 2), 1.5, dtype=dtype), "bias": torch.zeros(2)}, tmp_path / "other.safetensors")
    model = nn.Linear(2, 2)
    load_weights(model, tmp_path / "other.safetensors")
    assert model.weight.dtype == torch.float32 and (model.weight == 1.5).all()


def test_tied_weights_may_be_stored_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    head = model[1]
    head.weight = model[0].weight
    stored = torch.randn(7, 4)
    save_file({"0.weight": stored}, tmp_path / "tied.safetensors")
    load_weights(model, tmp_path / "tied.safetensors")
    assert torch.equal(model.state_dict()["1.weight"], stored) and head.weight is model[0].weight


# --------------------------------------------------------------------------------------------------------- refused
class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["torch", "pickle2", "pickle5"])
def test_no_code_is_executed(how: str, tmp_path: Path) -> None:
    path, target = tmp_path / "malicious.pth", tmp_path / "executed"
    checkpoint = {"a": torch.ones(2), "b": Malicious(target)}
    if how == "torch":
        torch.save(checkpoint, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(target), protocol=int(how[-1])))
    refused(path, "executing code" if how == "pickle5" else "execute code", "state_dict()")
    assert not target.exists()
    array = np.array([Malicious(target)], dtype=object)
    np.savez(tmp_path / "malicious.npz", a=array)
    refused(tmp_path / "malicious.npz")
    assert not target.exists()


def test_whole_networks_are_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "whole.pt")
    refused(tmp_path / "whole.pt", "Sequential", "save model.state_dict()")


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    refused(tmp_path / "absent.pth", "no file")
    refused(tmp_path / "weights.h5", ".pth", ".safetensors", ".npz")
    (tmp_path / "folder.pth").mkdir()
    refused(tmp_path / "folder.pth", "no file")


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "npz"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "changed"])
def test_damaged_files(suffix: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    tensor = torch.randn(5000)
    if suffix == "npz":
        np.savez(path, a=tensor.numpy())
    elif suffix == "pth":
        torch.save({"a": tensor}, path)
    else:
        save_file({"a": tensor}, path)
    whole = path.read_bytes()
    if damage == "changed" and suffix == "safetensors":
        pytest.skip("safetensors has no checksum")
    middle = len(whole) // 2
    changed = whole[:middle] + bytes(byte ^ 1 for byte in whole[middle : middle + 8]) + whole[middle + 8 :]
    damages = {"empty": b"", "garbage": b"no weights at all. " * 40, "truncated": whole[:middle], "changed": changed}
    path.write_bytes(damages[damage])
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (torch.ones(3), ["Tensor", "not a state dict"]),
        ([1, 2], ["list", "not a state dict"]),
        ({}, ["no tensors"]),
        ({"epoch": 3, "weights": {"a": torch.ones(2)}}, ["no tensors", "epoch, weights"]),
    ],
)
def test_files_without_a_state_dict(checkpoint: object, words: list[str], tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", *words)


def test_arrays_that_are_no_weights(tmp_path: Path) -> None:
    np.savez(tmp_path / "text.npz", a=np.array(["x"]))
    refused(tmp_path / "text.npz", "a in", "numbers")
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.ones(3))
    refused(tmp_path / "single.npz", "unnamed")


def test_weights_of_another_network(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state["extra"] = state.pop("3.bias")
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    state["1.bias"] = torch.zeros(4, dtype=torch.int8)
    torch.save(state, path)
    model = network()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    words = ["1 missing (3.bias)", "1 unexpected (extra)", "0.weight expected (4, 3, 3, 3), came (4, 3, 5, 5)"]
    refused(path, *words, "1.bias expected floating-point numbers, came torch.int8", "Sequential", model=model)
    assert same(model.state_dict(), before)


def test_only_the_first_few_keys_are_named(tmp_path: Path) -> None:
    torch.save({f"layer{i}": torch.ones(1) for i in range(9)}, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", "9 unexpected (layer0, layer1, layer2, ...)")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(value: float, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state["3.weight"][1, 2] = value
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(NumericalError, match=r"3\.weight in .*diverged\.pth"):
        load_weights(network(), tmp_path / "diverged.pth")
