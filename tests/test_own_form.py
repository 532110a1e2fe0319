"""A form costs one file: a person's own is listed, inspected, chosen, saved, loaded, and obeys the laws."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import polyad as package
from conftest import Polyad
from own_network import Own, write_own
from polyad.decompositions.base import FORMS
from polyad.errors import FormError, UnknownNameError
from polyad.plugins import forget_forms

TESTS = Path(__file__).parent
EXAMPLE = (TESTS.parent / "docs" / "own_form.py").read_text(encoding="utf-8")
NAME = "rows_first"


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """A copy of the documented example; the registry is as before when the test is over."""
    before = FORMS.names()
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE)
    yield path
    forget_forms(path)
    assert FORMS.names() == before


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


def test_it_is_listed_and_has_a_page(polyad: Polyad, plugin: Path) -> None:
    assert polyad("forms", NAME).code == 2
    ran = polyad("forms", "--plugin", plugin)
    assert ran.code == 0 and f"\n{NAME} " in ran.out
    page = json.loads(polyad("forms", NAME, "--plugin", plugin, "--json").out)
    assert (page["params"], page["macs"]) == ("o h r + r i w", ["o h r + r i w"])


def test_inspect_says_where_it_saves(polyad: Polyad, plugin: Path) -> None:
    ran = polyad("inspect", "zoo:resnet20", "--forms", "all", "--plugin", plugin)
    assert ran.code == 0 and f"{NAME}:23" in ran.out  # 23 * (16 * 3 + 3 * 16) < 16 * 16 * 9
    found = json.loads(polyad("inspect", "zoo:resnet20", "--forms", NAME, "--plugin", plugin, "--json").out)
    assert found["sites"][1]["break_even"] == {NAME: {"rank": [23], "params": 2208}}


def test_a_network_is_compressed_with_it_saved_and_loaded(
    polyad: Polyad, own: Own, plugin: Path, tmp_path: Path
) -> None:
    out, mine = tmp_path / "small", ("--plugin", plugin)
    run = (own.model, "--weights", own.weights, "--data", "digits", "--budget", "params=60%", "--samples", "60")
    run += ("--forms", f"{NAME},svd", "--set", f"conv2={NAME}:20", "--recover", "none")
    ran = polyad("compress", *run, *mine, "--out", out, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert [site["form"] for site in found["sites"] if site["name"] == "conv2"] == [NAME]
    assert found["params"]["kept"] <= 0.6
    again = json.loads(polyad("evaluate", out, "--model", own.model, "--data", "digits", *mine, "--json").out)
    assert (again["value"], again["loss"]) == (found["after"]["value"], found["after"]["loss"])
    timed = polyad("benchmark", out, "--model", own.model, "--input", "1,8,8", "--runs", "3", *mine)
    assert timed.code == 0
    recipe = out / "recipe.yaml"
    assert yaml.safe_load(recipe.read_text())["plugin"] == [str(plugin)]
    forget_forms(plugin)
    ran = polyad("evaluate", out, "--model", own.model, "--data", "digits")
    assert ran.code == 2 and f"There is no form {NAME!r}" in ran.err and "--plugin FILE.py" in ran.err
    assert polyad("compress", "--recipe", recipe, "--out", tmp_path / "again", "--quiet").code == 0
    for name in ("plan.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_it_is_chosen_from_python(plugin: Path) -> None:
    assert package.load_forms(plugin) == [NAME]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3)).eval()
    images = torch.rand(40, 3, 8, 8)
    result = package.compress(model, [images], budget=package.Budget(params=0.6), forms=(NAME,), recover="none")
    assert NAME in {choice.form for choice in result.plan.choices}
    package.save(result, plugin.parent / "small")
    with torch.no_grad():
        assert torch.equal(package.load(plugin.parent / "small", model)(images), result.model(images))


def test_it_obeys_the_laws(plugin: Path) -> None:
    """The suite of the built-in forms, in a process of its own that has loaded the file."""
    loader = plugin.parent / "loads_it.py"
    loader.write_text(f"import polyad\npolyad.load_forms({str(plugin)!r})\n")
    path = os.pathsep.join([str(plugin.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "loads_it", "-p", "no:cacheprovider", "-k", NAME]
    done = subprocess.run(
        [*command, str(TESTS / "test_laws.py")],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = int(done.stdout.split(" passed")[0].split()[-1])
    assert passed > 200, done.stdout[-500:]


def test_a_file_is_loaded_again_after_an_edit(plugin: Path) -> None:
    package.load_forms(plugin)
    plugin.write_text(EXAMPLE.replace('summary = "rows first', 'summary = "edited'))
    assert package.load_forms(plugin) == [NAME]
    assert FORMS[NAME].summary.startswith("edited")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("FORMS.register(RowsFirst.name, RowsFirst())", "", "registers no form"),
        ("FORMS.register(RowsFirst.name, RowsFirst())", "1 / 0", "ZeroDivisionError"),
        ("RowsFirst())", "RowsFirst)", "not an instance of a form"),
        ('name = "rows_first"', 'name = "svd"', "registered twice"),
        ('name = "rows_first"', 'name = "rows/first"', "take a name"),
        ('name = "rows_first"', 'name = "all"', "take a name"),
        ("RowsFirst.name, ", '"other", ', "have to be the same"),
        ('source = "docs/own_form.py"', 'source = ""', "says nothing about its source"),
        ("ohr,riw->oihw", "ohr,riw", "is not understood"),
        ('"ohr,riw->oihw"', '"ahr,riw->aihw"', "is not understood"),
    ],
)
def test_a_file_that_holds_no_form_is_refused(plugin: Path, old: str, new: str, says: str) -> None:
    assert old in EXAMPLE
    plugin.write_text(EXAMPLE.replace(old, new))
    before = FORMS.names()
    with pytest.raises(FormError, match=says):
        package.load_forms(plugin)
    assert FORMS.names() == before


def test_a_file_that_is_not_there_is_a_bad_request(polyad: Polyad, tmp_path: Path) -> None:
    ran = polyad("forms", "--plugin", tmp_path / "none.py")
    assert (ran.code, ran.out) == (2, "") and "There is no file" in ran.err


def test_a_form_that_takes_the_place_of_another_brings_its_own_variants() -> None:
    class Varied:
        default = False

        def variant(self, text: str) -> "Varied":
            return self

    for form in (Varied(), Varied()):
        FORMS.register("varied", form)  # type: ignore[arg-type]
        assert FORMS["varied/2"] is form
        FORMS.remove("varied")
    with pytest.raises(UnknownNameError, match="There is no form 'varied'"):
        FORMS["varied/2"]
