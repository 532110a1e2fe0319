"""Plans and single choices that do not fit the network are refused, like every bad request, with one sentence."""

import json
from pathlib import Path

import pytest

from conftest import Polyad
from refusals import Place, compress, refused, write_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return write_place(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def other_plan(shell: Polyad, place: Place) -> str:
    """The plan of another network, made by the command itself."""
    path = place["other.json"]
    chosen = ("--data", "digits", "--budget", "params=50%", "--samples", "20", "--forms", "svd", "--metric", "weights")
    assert shell("plan", "zoo:digits_cnn", *chosen, "--out", path).code == 0
    return path


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


def test_a_plan_of_almost_the_same_network(polyad: Polyad, place: Place, other_plan: str) -> None:
    plan = json.loads(Path(other_plan).read_text())
    wider = json.loads(Path(other_plan).read_text())
    next(c for c in wider["choices"] if c["site"]["name"] == "features.3")["site"]["layer"]["out_features"] = 48
    chosen = {"model": "zoo:digits_cnn", "weights": None, "budget": None, "forms": None, "plan": place["edited.json"]}
    for edited, says in (
        (plan | {"params_before": plan["params_before"] + 1}, "65,835 parameters, this one 65,834"),
        (wider, "features.3 differs (Conv2d (1, 48, 32, 3, 3) in the plan, Conv2d (1, 32, 32, 3, 3) here)"),
    ):
        Path(place["edited.json"]).write_text(json.dumps(edited))
        refused(polyad, place, compress(place, **chosen), "made for another network (zoo:digits_cnn)", says)


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
