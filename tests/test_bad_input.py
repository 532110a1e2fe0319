"""A request that cannot be met: exit code 2, one sentence on standard error, nothing on standard output or on disk."""

from collections.abc import Callable

import pytest

from conftest import Polyad
from refusals import Place, compress, refused, write_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return write_place(tmp_path_factory.mktemp("bad"))


NAMES = [
    ({"model": "zoo:resnet21", "weights": None}, ["'resnet21'", "Did you mean 'resnet20'?"]),
    ({"model": "zooo:resnet20", "weights": None}, ["'zooo:resnet20'", "zoo:resnet20"]),
    ({"model": "resnet20", "weights": None}, ["Did you mean zoo:resnet20?"]),
    ({"model": "zoo:", "weights": None}, ["names no network"]),
    ({"forms": "svd,tuker2"}, ["form 'tuker2'", "Did you mean 'tucker2'?"]),
    ({"forms": ""}, ["form ''"]),
    ({"allocator": "backpack"}, ["allocator 'backpack'", "Known: energy"]),
    ({"metric": "input"}, ["metric 'input'", "Did you mean 'inputs'?"]),
    ({"recover": "statistic"}, ["recovery level 'statistic'", "Did you mean 'statistics'?"]),
    ({"data": "digit"}, ["'digit'", "Did you mean digits?"]),
    ({"data": "ftp:x"}, ["'ftp:x'", "npz:FILE"]),
]


@pytest.mark.parametrize(("changes", "says"), NAMES, ids=str)
def test_unknown_names(polyad: Polyad, place: Place, changes: dict[str, str | None], says: list[str]) -> None:
    if not {"model", "data"} & set(changes):
        changes = changes | {"data": "npz:nowhere.npz"}  # settings are looked at before any file is
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
    says = ("does not fit CifarResNet", "missing (bn1.weight", "unexpected (conv1.bias", "conv1.weight expected (16, 3")
    refused(polyad, place, compress(place, model="zoo:resnet20"), *says)


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
    ({"data": "digits", "mean": "nan"}, ["mean is (nan,)"]),
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
    refused(polyad, place, grey, "(2, 1, 32, 32)")


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


OTHER_COMMANDS: list[tuple[list[str], str]] = [
    (["inspect", "{mynet.py}:build"], "give --input C,H,W"),
    (["inspect", "zoo:resnet20", "--input", "3,x"], "--input '3,x'"),
    (["inspect", "zoo:resnet20", "--input", "1,8,8"], "(1, 1, 8, 8)"),
    (["inspect", "{mynet.py}:build", "--input", "0,8,8"], "(1, 0, 8, 8)"),
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


USAGE = [
    (["compress"], "Missing argument 'MODEL'"),
    (["compress", "zoo:resnet20", "--out", "x"], "Missing option '--data'"),
    (["compress", "zoo:resnet20", "--data", "digits", "--out", "x", "--samples", "1"], "--samples"),
    (["compress", "zoo:resnet20", "--dta", "digits"], "--data"),
    (["compres"], "compress"),
]


@pytest.mark.parametrize(("arguments", "says"), USAGE, ids=str)
def test_what_the_command_line_does_not_know(polyad: Polyad, arguments: list[str], says: str) -> None:
    ran = polyad(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err and "Traceback" not in ran.err


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
