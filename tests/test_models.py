"""Opening networks: what each specification gives, and which are refused with which message."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from polyad.errors import ModelError, UnknownNameError
from polyad.hubs.base import HUBS, library
from polyad.models import build_model, open_model
from polyad.records import Preprocessing


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


# -------------------------------------------------------------------------------------------------- specifications
def test_zoo(tmp_path: Path) -> None:
    random = open_model("zoo:resnet8")
    assert not random.trained and random.weights is None and not random.module.training
    assert random.input_size == (3, 32, 32) and random.preprocessing == Preprocessing(std=(1 / 255,), size=(32, 32))
    path = tmp_path / "weights.safetensors"
    save_file(random.module.state_dict(), path)
    trained = open_model("zoo:resnet8", path)
    assert trained.trained and trained.weights == str(path) and trained.spec == "zoo:resnet8"
    assert same(trained.module.state_dict(), random.module.state_dict())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resnet20", "Did you mean zoo:resnet20"),
        ("keras:resnet", "hf:.*timm:.*torchvision:.*zoo:.*file.py:function"),
        ("zoo:", "names no network.*zoo:resnet20"),
        ("absent.py:make", "no file absent.py"),
        ("absent.py", "names no function"),
        ("absent.py:", "names no function"),
        ("hf:./absent", "no folder ./absent"),
        ("", "no specification"),
    ],
)
def test_bad_specifications(spec: str, words: str) -> None:
    for call in (open_model, build_model):
        if spec.startswith("hf:") and not _installed("transformers"):
            words = "no folder|transformers"
        with pytest.raises(ModelError, match=words):
            call(spec)


def test_unknown_zoo_network() -> None:
    with pytest.raises(UnknownNameError, match="no zoo network 'resnet21'.*Did you mean"):
        open_model("zoo:resnet21")


NEIGHBOUR = "WIDTH = 5\n"
FILE = """
import sys
from dataclasses import dataclass
from torch import nn
from neighbour_of_polyad_test import WIDTH

@dataclass
class Settings:
    width: int = WIDTH

ready = nn.Linear(2, 2)

def make():
    return nn.Linear(Settings().width, 2)

def text():
    return "network"

def fail():
    raise KeyError("depth")

def leave():
    sys.exit(3)

def needs(width):
    return nn.Linear(width, 2)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour_of_polyad_test.py").write_text(NEIGHBOUR)
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_python_file(file: Path, tmp_path: Path) -> None:
    source = open_model(f"{file}:make")
    assert isinstance(source.module, nn.Linear) and source.module.in_features == 5 and not source.module.training
    assert source.trained and source.weights is source.input_size is source.preprocessing is None
    assert isinstance(build_model(f"{file}:ready"), nn.Linear)
    torch.save(nn.Linear(5, 2).state_dict(), tmp_path / "weights.pth")
    assert open_model(f"{file}:make", tmp_path / "weights.pth").weights == str(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("absent", "no function 'absent'. It defines: Settings, fail, leave, make, needs, text"),
        ("text", "gives a str, not a torch.nn.Module"),
        ("fail", r"raised KeyError: 'depth' \(mine.py, line 20\)"),
        ("leave", r"raised SystemExit: 3 \(mine.py, line 23\)"),
        ("needs", "raised TypeError: .*width"),
        ("WIDTH", "gives a int"),
    ],
)
def test_bad_python_functions(function: str, words: str, file: Path) -> None:
    with pytest.raises(ModelError, match=words) as error:
        open_model(f"{file}:{function}")
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [("import torch\n1 / 0\n", r"ZeroDivisionError: .*line 2"), ("def make(:\n", "SyntaxError: .*line 1")],
)
def test_python_files_that_do_not_run(code: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(code)
    with pytest.raises(ModelError, match=words):
        open_model(f"{path}:make")


# ------------------------------------------------------------------------------------------------------------- hubs
def _installed(name: str) -> bool:
    try:
        library(name, "vision")
    except ModelError:
        return False
    return True


def needs(name: str) -> None:
    if not _installed(name):
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", HUBS)
def test_hub(name: str) -> None:
    assert HUBS[name].name == name and HUBS[name].example.startswith(f"{name}:")


@pytest.mark.parametrize(
    ("spec", "module", "extra"),
    [
        ("torchvision:resnet18", "torchvision", "vision"),
        ("timm:resnet18", "timm", "vision"),
        ("hf:gpt2", "transformers", "text"),
    ],
)
def test_library_that_is_not_installed(spec: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.models", raising=False)
    for call in (open_model, build_model):
        with pytest.raises(ModelError, match=re.escape(f"pip install polyad[{extra}]")):
            call(spec)


FAKE_TIMM = """
from torch import nn
def list_models(): return ["tiny"]
def is_model(name): return name in list_models()
def create_model(name, pretrained):
    if pretrained: raise ConnectionError("no route to the hub\\nRetry later.")
    return nn.Linear(2, 2)
"""


@pytest.fixture
def fake_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    path = tmp_path / "timm.py"
    path.write_text(FAKE_TIMM)
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop("timm", None)


def test_weights_that_cannot_be_downloaded(fake_timm: Path) -> None:
    with pytest.raises(ModelError, match=r"weights of timm:tiny could not be had .*no route to the hub\).*--weights"):
        open_model("timm:tiny")
    assert isinstance(build_model("timm:tiny"), nn.Linear)
    with pytest.raises(ModelError, match="no network 'tinny'. Did you mean timm:tiny"):
        open_model("timm:tinny")


def test_library_that_is_broken(fake_timm: Path) -> None:
    fake_timm.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(ModelError, match=r"timm is installed but cannot be imported .*nms.*belongs to torch"):
        open_model("timm:tiny")


def test_torchvision(tmp_path: Path) -> None:
    """Our MobileNetV2 has torchvision's keys and computes what it computes."""
    needs("torchvision.models")
    theirs = build_model("torchvision:mobilenet_v2").eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    source = open_model("torchvision:mobilenet_v2", tmp_path / "weights.pth")
    ours = open_model("zoo:mobilenet_v2", tmp_path / "weights.pth")
    assert (source.input_size, source.preprocessing) == (ours.input_size, ours.preprocessing)
    x = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(ours.module(x), theirs(x))


def test_timm(tmp_path: Path) -> None:
    needs("timm")
    torch.save(build_model("timm:test_resnet").state_dict(), tmp_path / "weights.pth")
    source = open_model("timm:test_resnet", tmp_path / "weights.pth")
    assert source.input_size == (3, 160, 160) and source.preprocessing is not None
    assert source.module(torch.randn(1, 3, 160, 160)).shape == (1, 1000)


def test_transformers(tmp_path: Path) -> None:
    needs("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel  # type: ignore[import-not-found]

    small = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=32))
    small.save_pretrained(tmp_path)
    source = open_model(f"hf:{tmp_path}")
    assert source.trained and source.preprocessing is None
    assert same(source.module.state_dict(), small.state_dict())
    assert build_model(f"hf:{tmp_path}").state_dict().keys() == small.state_dict().keys()
