"""A recipe gives the same network again, the command line has the last word, and real networks keep their accuracy."""

import json
from pathlib import Path

import pytest
import yaml

from conftest import Polyad
from own_network import Own, write_own


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def small(shell: Polyad, own: Own) -> Path:
    out = own.folder / "small"
    chosen = ("--data", "digits", "--budget", "params=50%", "--samples", "120", "--forms", "svd,cp", "--seed", "3")
    ran = shell("compress", own.model, "--weights", own.weights, *chosen, "--ignore", "conv1", "--out", out, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    return out


def test_a_recipe_gives_the_same_files_again(shell: Polyad, small: Path, tmp_path: Path) -> None:
    ran = shell("compress", "--recipe", small / "recipe.yaml", "--out", tmp_path / "again", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    for name in ("plan.json", "model.safetensors", "recipe.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (small / name).read_bytes()


def test_the_command_line_has_the_last_word(polyad: Polyad, small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    ran = polyad("compress", "--recipe", small / "recipe.yaml", "--forms", "svd", "--out", again, "--quiet")
    assert ran.code == 0
    before, after = (yaml.safe_load((folder / "recipe.yaml").read_text()) for folder in (small, again))
    assert after == before | {"forms": "svd"}
    assert {choice["form"] for choice in json.loads((again / "plan.json").read_text())["choices"]} <= {"dense", "svd"}


def test_plan_reads_a_recipe_too(polyad: Polyad, small: Path, tmp_path: Path) -> None:
    ran = polyad("plan", "--recipe", small / "recipe.yaml", "--out", tmp_path / "plan.json", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    found, expected = (json.loads(path.read_text()) for path in (tmp_path / "plan.json", small / "plan.json"))
    assert found == expected


def test_a_plan_takes_the_place_of_the_budget_of_a_recipe(polyad: Polyad, small: Path, tmp_path: Path) -> None:
    chosen = ("--recipe", small / "recipe.yaml", "--plan", small / "plan.json")
    assert polyad("compress", *chosen, "--out", tmp_path / "again", "--quiet").code == 0
    recipe = yaml.safe_load((tmp_path / "again" / "recipe.yaml").read_text())
    assert recipe["plan"] == str(small / "plan.json") and "budget" not in recipe
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()


def test_a_recipe_is_written_as_options_are(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"model: {own.model}\nweights: {own.weights}\ndata: digits\nbudget: params=60%\n"
        "batch-size: 50\nsamples: 60\nforms: [svd]\nset: [conv1=dense]\nmean: 0.5\nrecover: none\n"
    )
    ran = polyad("compress", "--recipe", recipe, "--out", tmp_path / "small", "--json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert {site["form"] for site in found["sites"]} == {"dense", "svd"} and found["recovery"] == "none"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modell: zoo:resnet20\n", "unknown key 'modell'"),
        ("out: small\n", "unknown key 'out'"),
        ("- a\n- b\n", "no names with values"),
        ("model: [\n", "is not YAML"),
        ("budget: {params: 0.5}\n", "nested under 'budget'"),
        ("", "no names with values"),
        (None, "not there"),
    ],
)
def test_a_recipe_that_is_none_is_refused(polyad: Polyad, tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    ran = polyad("compress", "--recipe", tmp_path / "bad.yaml", "--out", tmp_path / "small")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("polyad: ") and says in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "small").exists()


@pytest.fixture(scope="module")
def resnet20(data_folder: Path) -> tuple[str, ...]:
    weights = data_folder / "weights" / "cifar10_resnet20-12fca82f.th"
    data = f"npz:{data_folder / 'cifar10' / 'cifar10_lossless.npz'}"
    return ("zoo:resnet20", "--weights", str(weights), "--data", data, "--budget", "params=35%", "--samples", "256")


def test_a_trained_network_keeps_its_accuracy_at_a_third(shell: Polyad, resnet20: tuple[str, ...], tmp_path: Path):
    ran = shell("compress", *resnet20, "--out", tmp_path / "small", "--json")
    found = json.loads(ran.out)
    assert found["params"]["kept"] <= 0.35
    assert found["after"]["value"] >= found["before"]["value"] - 4


def test_the_same_seed_gives_the_same_plan(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    chosen = (own.model, "--weights", own.weights, "--data", "digits", "--samples", "60", "--budget", "params=50%")
    for name in ("one.json", "two.json", "other.json"):
        seed = "5" if name == "other.json" else "4"
        assert polyad("plan", *chosen, "--seed", seed, "--out", tmp_path / name, "--quiet").code == 0
    one, two, other = ((tmp_path / name).read_bytes() for name in ("one.json", "two.json", "other.json"))
    assert one == two != other
