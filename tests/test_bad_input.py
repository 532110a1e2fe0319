"""A request that cannot be met: exit code 2, one sentence on standard error, nothing on standard output or on disk."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Polyad, Ran
from own_network import Own, write_own
from safetensors.torch import load_file, save_file

OTHERS = """
import torch
from torch import nn

def only_activations():
    return nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Softmax(1))

def one_by_one():
    return nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.ReLU())

def raises():
    raise ValueError("no such file of mine")

def a_number():
    return 3

def nan_inputs():
    return [(torch.full((4, 1, 8, 8), float("nan")), torch.zeros(4, dtype=torch.long))] * 5
"""


@dataclass(frozen=True)
class Place:
    """A folder with a network, its weights, and files that are wrong in every way."""

    folder: Path
    own: Own

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("bad")
    own = write_own(folder)
    (folder / "others.py").write_text(OTHERS)
    (folder / "broken.py").write_text("def build(:\n")
    state = load_file(own.weights)
    save_file(state | {"conv2.weight": torch.full_like(state["conv2.weight"], torch.nan)}, folder / "nan.safetensors")
    save_file(state | {"head.weight": torch.zeros(10, 99)}, folder / "shapes.safetensors")
    (folder / "corrupt.pth").write_bytes((folder / "mynet.pth").read_bytes()[:500])
    (folder / "text.safetensors").write_text("hello")
    (folder / "corrupt.npz").write_bytes(b"PK\x03\x04 not a zip after all")
    np.savez(folder / "numbers.npz", numbers=np.zeros(3))
    np.savez(folder / "unlabelled.npz", images=np.zeros((9, 8, 8), np.uint8))
    (folder / "garbage.json").write_text("{ this is no plan")
    (folder / "list.json").write_text("[1, 2]")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("keep")
    (folder / "empty").mkdir()
    return Place(folder, own)


@pytest.fixture(scope="module")
def other_plan(shell: Polyad, place: Place) -> str:
    """The plan of another network, made by the command itself."""
    path = place["other.json"]
    chosen = ("--data", "digits", "--budget", "params=50%", "--samples", "20", "--forms", "svd", "--metric", "weights")
    assert shell("plan", "zoo:digits_cnn", *chosen, "--out", path).code == 0
    return path


def listing(folder: Path) -> dict[str, int]:
    """Every file, hidden ones too, with its size; what Python itself caches is left out."""
    return {str(path): path.stat().st_size for path in folder.rglob("*") if "__pycache__" not in str(path)}


def refused(polyad: Polyad, place: Place, arguments: list[str], *says: str) -> Ran:
    """Run it, and check all that holds for every refusal."""
    before = listing(place.folder)
    ran = polyad(*arguments)
    assert (ran.code, ran.out) == (2, ""), ran
    assert ran.err.startswith("polyad: ") and ran.err.endswith("\n") and ran.err.count("\n") == 1, ran.err
    for text in says:
        assert text in ran.err, ran.err
    assert listing(place.folder) == before
    return ran


def compress(place: Place, **changes: str | None) -> list[str]:
    """A request that could be met, but for the changes; None leaves an option out, a list repeats it."""
    options: dict[str, str | None] = {
        "weights": str(place.own.weights),
        "data": "digits",
        "budget": "params=60%",
        "samples": "20",
        "forms": "svd",
        "out": place["small"],
    }
    options |= {name.replace("_", "-"): value for name, value in changes.items() if name != "model"}
    found = ["compress", changes.get("model") or place.own.model]
    for name, value in options.items():
        found += [] if value is None else [f"--{name}", value]
    return found


NAMES = [
    ({"model": "zoo:resnet21", "weights": None}, ["'resnet21'", "Did you mean 'resnet20'?"]),
    ({"model": "zooo:resnet20", "weights": None}, ["'zooo:resnet20'", "zoo:resnet20"]),
    ({"model": "resnet20", "weights": None}, ["Did you mean zoo:resnet20?"]),
    ({"model": "zoo:", "weights": None}, ["names no network"]),
    ({"forms": "svd,tuker2"}, ["form 'tuker2'", "Did you mean 'tucker2'?"]),
    ({"forms": ""}, ["form ''"]),
    ({"allocator": "backpack"}, ["allocator 'backpack'", "Known: knapsack"]),
    ({"metric": "input"}, ["metric 'input'", "Did you mean 'inputs'?"]),
    ({"recover": "statistic"}, ["recovery level 'statistic'", "Did you mean 'statistics'?"]),
    ({"data": "digit"}, ["'digit'", "Did you mean digits?"]),
    ({"data": "ftp:x"}, ["'ftp:x'", "npz:FILE"]),
]


@pytest.mark.parametrize(("changes", "says"), NAMES, ids=str)
def test_unknown_names(polyad: Polyad, place: Place, changes: dict[str, str | None], says: list[str]) -> None:
    refused(polyad, place, compress(place, **changes), *says)


BUDGETS = [
    ("flops=50%", "'flops=50%'"),
    ("50%", "UNIT=AMOUNT"),
    ("params=", "params="),
    ("params=0%", "above 0 %"),
    ("params=101%", "at most at 100 %"),
    ("params=-5%", "is no budget"),
    ("params=0.5", "params=50%"),
    ("params=50%,params=40%", "twice"),
    ("params=0.5%", "cannot be reached: what these forms offer here keeps from"),
    ("macs=3", "cannot be reached: what these forms offer here keeps from"),
]


@pytest.mark.parametrize(("budget", "says"), BUDGETS)
def test_budgets(polyad: Polyad, place: Place, budget: str, says: str) -> None:
    refused(polyad, place, compress(place, budget=budget), says)


WEIGHTS = [
    ("missing.pth", ["There is no file", "missing.pth"]),
    ("corrupt.pth", ["corrupt.pth is damaged"]),
    ("text.safetensors", ["text.safetensors is damaged"]),
    ("others.py", ["not a known format of weights"]),
    ("shapes.safetensors", ["1 mismatched", "head.weight expected (10, 512), came (10, 99)"]),
    ("nan.safetensors", ["conv2.weight", "NaN"]),
]


@pytest.mark.parametrize(("file", "says"), WEIGHTS, ids=str)
def test_weights(polyad: Polyad, place: Place, file: str, says: list[str]) -> None:
    refused(polyad, place, compress(place, weights=place[file]), *says)


def test_weights_of_another_network(polyad: Polyad, place: Place) -> None:
    says = ("does not fit ResNet", "missing (conv1.weight", "unexpected (conv1.bias, conv2.bias, conv2.weight, ...)")
    refused(polyad, place, compress(place, model="zoo:resnet20"), "does not fit", *says[2:])


DATA: list[tuple[dict[str, str | None], list[str]]] = [
    ({"data": "npz:{missing.npz}"}, ["There is no file", "missing.npz"]),
    ({"data": "npz:{corrupt.npz}"}, ["cannot be read as .npz"]),
    ({"data": "npz:{numbers.npz}"}, ["holds no images", "It has: numbers"]),
    ({"data": "npz:{unlabelled.npz}"}, ["needs the array 'labels'"]),
    ({"data": "digits#tset"}, ["no split 'tset'", "test"]),
    ({"data": "{others.py}:nan_inputs"}, ["NaN"]),
    ({"data": "imagefolder:{missing}"}, ["missing"]),
    ({"data": "digits", "mean": "a,b"}, ["--mean 'a,b'"]),
    ({"data": "digits", "mean": "0.5,0.5,0.5"}, ["1 channel", "mean has 3 values"]),
    ({"data": "digits", "mean": "nan"}, ["mean"]),
    ({"data": "digits", "std": "0"}, ["std", "positive"]),
    ({"data": "digits", "size": "8,8,8"}, ["--size '8,8,8'"]),
    ({"data": "digits", "size": "4"}, ["shape"]),
]


@pytest.mark.parametrize(("changes", "says"), DATA, ids=str)
def test_data(polyad: Polyad, place: Place, changes: dict[str, str | None], says: list[str]) -> None:
    changes["data"] = str(changes["data"]).replace("{", f"{place.folder}/").replace("}", "")
    refused(polyad, place, compress(place, **changes), *says)


def test_images_that_do_not_fit_the_network(polyad: Polyad, place: Place) -> None:
    refused(polyad, place, compress(place, model="zoo:resnet20", weights=None), "digits", "1 channel")
    grey = compress(place, model="zoo:resnet20", weights=None, mean="0.5", std="0.5")
    refused(polyad, place, grey, "(1, 8, 8)")


OUTPUTS = [("full", "is not empty"), ("mynet.py", "is a file"), ("mynet.py/inside", "cannot be written")]


@pytest.mark.parametrize(("out", "says"), OUTPUTS)
def test_outputs(polyad: Polyad, place: Place, out: str, says: str) -> None:
    refused(polyad, place, compress(place, out=place[out]), out, says)
    refused(polyad, place, ["demo", "--out", place[out]], out, says)


def test_a_plan_needs_a_place(polyad: Polyad, place: Place) -> None:
    arguments = ["plan", *compress(place, out=place["nowhere/plan.json"])[1:]]
    refused(polyad, place, arguments, "nowhere")
    refused(polyad, place, ["plan", *compress(place, out=place["empty"])[1:]], "empty", "is a folder")


NETWORKS = [
    ("others.py:only_activations", ["nothing to compress"]),
    ("others.py:one_by_one", ["Nothing to compress", "0:"]),
    ("others.py:raises", ["raised ValueError: no such file of mine (others.py, line "]),
    ("others.py:a_number", ["gives a int, not a torch.nn.Module"]),
    ("others.py:missing", ["no function 'missing'", "It defines:", "one_by_one"]),
    ("others.py", ["names no function"]),
    ("broken.py:build", ["raised SyntaxError"]),
    ("absent.py:build", ["There is no file"]),
    ("empty", ["is a folder without plan.json"]),
]


@pytest.mark.parametrize(("model", "says"), NETWORKS, ids=str)
def test_networks(polyad: Polyad, place: Place, model: str, says: list[str]) -> None:
    refused(polyad, place, compress(place, model=place[model], weights=None), *says)


def test_plans(polyad: Polyad, place: Place, other_plan: str) -> None:
    for plan, says in (
        (other_plan, "The plan was made for another network (zoo:digits_cnn): there is no layer features.0"),
        (place["missing.json"], "missing.json is not there"),
        (place["garbage.json"], "garbage.json is not JSON"),
        (place["list.json"], "list.json is not a plan"),
    ):
        refused(polyad, place, compress(place, budget=None, forms=None, plan=plan), says)


def test_a_plan_that_names_a_wrong_rank_or_form(polyad: Polyad, place: Place, other_plan: str) -> None:
    plan = json.loads(Path(other_plan).read_text())
    chosen = {"model": "zoo:digits_cnn", "weights": None, "budget": None, "forms": None, "plan": place["edited.json"]}
    for edit, says in (
        ({"form": "svdd", "rank": [3]}, "form 'svdd'"),
        ({"form": "svd", "rank": [9999]}, "features.3"),
        ({"form": "svd", "rank": [3, 3]}, "features.3"),
    ):
        choices = [c | edit if c["site"]["name"] == "features.3" else c for c in plan["choices"]]
        Path(place["edited.json"]).write_text(json.dumps(plan | {"choices": choices}))
        refused(polyad, place, compress(place, **chosen), says)


def test_a_plan_or_a_budget(polyad: Polyad, place: Place, other_plan: str) -> None:
    refused(polyad, place, compress(place, budget=None), "--budget params=50%", "--plan FILE")
    refused(polyad, place, compress(place, forms=None, plan=other_plan), "one of the two")
    refused(polyad, place, compress(place, budget=None, plan=other_plan), "--plan", "--forms would do nothing")
    refused(polyad, place, ["plan", *compress(place, budget=None, out=None)[1:]], "--budget params=50%")


CHOICES = [
    ({"ignore": "conv9"}, "'conv9' matches no layer"),
    ({"ignore": "re:("}, "no regular expression"),
    ({"set": "conv9=dense"}, "--set names conv9, but there is no such layer"),
    ({"set": "conv2"}, "write LAYER=dense"),
    ({"set": "conv2=svd:many"}, "write LAYER=dense"),
    ({"set": "conv2=svdd:4"}, "form 'svdd'"),
    ({"set": "conv2=svd:4x4"}, "conv2"),
    ({"set": "conv2=svd:999"}, "conv2"),
    ({"set": "conv1=dense", "ignore": "conv1"}, "it is refused: ignored on request"),
]


@pytest.mark.parametrize(("changes", "says"), CHOICES, ids=str)
def test_choices_for_single_layers(polyad: Polyad, place: Place, changes: dict[str, str | None], says: str) -> None:
    refused(polyad, place, compress(place, **changes), says)


OTHER_COMMANDS: list[tuple[list[str], str]] = [
    (["inspect", "{mynet.py}:build"], "give --input C,H,W"),
    (["inspect", "zoo:resnet20", "--input", "3,x"], "--input '3,x'"),
    (["inspect", "zoo:resnet20", "--input", "1,8,8"], "(1, 1, 8, 8)"),
    (["inspect", "{mynet.py}:build", "--input", "0,8,8"], "--input"),
    (["evaluate", "{empty}", "--data", "digits"], "without plan.json"),
    (["evaluate", "zoo:digits_cnn", "--data", "digits", "--reference", "zoo:digits_cn"], "Did you mean 'digits_cnn'?"),
    (["benchmark", "{missing}"], "is no specification of a network"),
    (["report", "{missing}"], "report.json is not there"),
    (["report", "{empty}"], "report.json is not there"),
]


@pytest.mark.parametrize(("arguments", "says"), OTHER_COMMANDS, ids=str)
def test_other_commands(polyad: Polyad, place: Place, arguments: list[str], says: str) -> None:
    named = [text.replace("{", f"{place.folder}/").replace("}", "") for text in arguments]
    refused(polyad, place, named, says)


Changes = Callable[[Place], list[str]]


@pytest.mark.parametrize(
    "request_",
    [
        lambda place: compress(place, model="zoo:resnet21", weights=None),
        lambda place: compress(place, budget="params=0.5%"),
        lambda place: compress(place, weights=place["nan.safetensors"]),
    ],
    ids=["name", "budget", "weights"],
)
def test_the_installed_command_does_the_same(shell: Polyad, place: Place, request_: Changes) -> None:
    refused(shell, place, request_(place))
