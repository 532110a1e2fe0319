"""Forms on the command line: listed, named with their variants, asked about every layer of a network."""

import json
import re
from pathlib import Path

import pytest
import yaml

from conftest import Polyad
from own_network import Own, write_own
from polyad.cli.opening import form_names
from polyad.decompositions.base import FORMS
from polyad.errors import UnknownNameError
from polyad.overrides import parse_fixed
from polyad.pipeline import settings_of

NARROW = 100


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    from polyad.cli.console import console

    monkeypatch.setattr(console, "width", NARROW)


@pytest.mark.usefixtures("narrow")
def test_the_list_fits_a_narrow_terminal_and_marks_the_default_menu(polyad: Polyad) -> None:
    lines = polyad("forms").out.splitlines()
    assert all(len(line) <= NARROW for line in lines[:-1])
    for name in FORMS:
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert ("●" in line) == FORMS[name].default and FORMS[name].equation in line
    rows = json.loads(polyad("forms", "--json").out)
    assert {row["name"] for row in rows if row["default"]} == {name for name in FORMS if FORMS[name].default}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, None),
        ("all", ("all",)),
        ("cp, svd", ("cp", "svd")),
        ("block_term/4,cp/stable", ("block_term/4", "cp/stable")),
        ("svd,tt_matrix/4x8x8,8x8x4", ("svd", "tt_matrix/4x8x8,8x8x4")),
        ("tt_matrix/4x8x8, 8x8x4,svd", ("tt_matrix/4x8x8, 8x8x4", "svd")),
    ],
)
def test_a_part_that_begins_with_a_digit_belongs_to_the_name_before_it(text: str | None, names: object) -> None:
    assert form_names(text) == names


def test_a_menu_of_forms() -> None:
    assert [form.name for form in FORMS.menu(None)] == [name for name in FORMS if FORMS[name].default]
    assert [form.name for form in FORMS.menu(("all",))] == list(FORMS)
    assert [form.name for form in FORMS.menu(("block_term/4", "cp"))] == ["block_term/4", "cp"]
    assert settings_of(forms=("all",)).forms == ("all",)
    for names in (("all", "cp"), ("cp", "all"), ("all", "all")):
        with pytest.raises(UnknownNameError, match="write --forms all, or name some without it"):
            settings_of(forms=names)
    with pytest.raises(UnknownNameError, match="There is no block_term/5"):
        settings_of(forms=("block_term/5",))


def test_variants_are_given_to_a_layer() -> None:
    found = parse_fixed(["conv1=block_term/4:8x8", "fc=tt_matrix/4x8x8,8x8x4:4x4", "a.b=tt/owhi:1x2x3"])
    assert found == {
        "conv1": ("block_term/4", (8, 8)),
        "fc": ("tt_matrix/4x8x8,8x8x4", (4, 4)),
        "a.b": ("tt", (1, 2, 3)),  # the mirror image of tt/ihwo, which is the plain train
    }
    assert all(FORMS[form].name == form for form, _ in found.values())


def test_a_recipe_holds_variants(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    matrices = "tt_matrix/2x5x1,8x8x8"
    run = (own.model, "--weights", own.weights, "--data", "digits", "--samples", "60", "--recover", "none", "--quiet")
    run += ("--budget", "params=70%", "--forms", f"{matrices},block_term/4,svd", "--set", f"head={matrices}:4x4")
    run += ("--set", "conv2=block_term/4:6x4", "--out")
    ran = polyad("compress", *run, tmp_path / "small")
    assert (ran.code, ran.err) == (0, "")
    plan = json.loads((tmp_path / "small" / "plan.json").read_text())
    chosen = {choice["site"]["name"]: (choice["form"], choice["rank"]) for choice in plan["choices"]}
    assert (chosen["head"], chosen["conv2"]) == ((matrices, [4, 4]), ("block_term/4", [6, 4]))
    recipe = tmp_path / "small" / "recipe.yaml"
    assert yaml.safe_load(recipe.read_text())["forms"] == f"{matrices},block_term/4,svd"
    assert polyad("compress", "--recipe", recipe, "--quiet", "--out", tmp_path / "again").code == 0
    written = yaml.safe_load(recipe.read_text()) | {"forms": [matrices, "block_term/4", "svd"]}
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(written))
    assert polyad("compress", "--recipe", tmp_path / "list.yaml", "--quiet", "--out", tmp_path / "list").code == 0
    for folder in ("again", "list"):
        assert (tmp_path / folder / "plan.json").read_bytes() == (tmp_path / "small" / "plan.json").read_bytes()


@pytest.mark.usefixtures("narrow")
def test_inspect_asks_every_form_about_every_kind_of_layer(polyad: Polyad) -> None:
    ran = polyad("inspect", "zoo:resnet20", "--forms", "all")
    assert ran.code == 0 and all(len(line) <= NARROW for line in ran.out.splitlines())
    assert "layer1.0.conv1 and 5 more: Conv2d, weight 1 16 16 3 3, 2,304 parameters each\n" in ran.out
    assert "layer2.0.conv1: Conv2d, weight 1 32 16 3 3, 4,608 parameters\n" in ran.out
    (block,) = [block for block in ran.out.split("\n\n") if block.startswith("layer1.0.conv1 ")] or [""]
    saves, refused = block.split("refused")
    assert "cp:56 " in saves and "tucker2:14x14" in saves and "stack_cp" in refused
    saving, refusing = (set(re.findall(r"[a-z]\w*", text)) & set(FORMS) for text in (saves, refused))
    assert saving | refusing == set(FORMS) and not saving & refusing
    assert "it is a single weight" in ran.out and ran.out.count("it tensorises the two dimensions") == 1
    assert ran.out.splitlines()[-1].startswith("20 sites, 0 refused; 269,722 parameters")


def test_inspect_with_forms_as_json(polyad: Polyad) -> None:
    found = json.loads(polyad("inspect", "zoo:resnet20", "--forms", "cp,stack_cp,block_term/16", "--json").out)
    site = next(site for site in found["sites"] if site["name"] == "layer1.0.conv1")
    assert site["forms"]["cp"] == "carries it" and "single weight" in site["forms"]["stack_cp"]
    assert site["break_even"]["cp"] == {"rank": [56], "params": 56 * (16 + 16 + 9)}
    assert set(site["break_even"]) == {"cp", "block_term/16"}
    assert (
        FORMS["cp"].default
        and "break_even" not in json.loads(polyad("inspect", "zoo:resnet20", "--json").out)["sites"][0]
    )


def test_a_form_that_never_saves_is_told(polyad: Polyad, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(2, 2))\n")
    ran = polyad("inspect", f"{tmp_path / 'net.py'}:build", "--input", "2", "--forms", "svd")
    lines = [line.split() for line in ran.out.splitlines()[1:3]]
    assert ran.code == 0 and lines == [["saves", "up", "to", "rank", "-"], ["no", "saving", "svd"]]


def test_inspect_without_forms_asks_the_default_menu(polyad: Polyad) -> None:
    found = json.loads(polyad("inspect", "zoo:resnet20", "--json").out)
    assert set(found["sites"][0]["forms"]) == {name for name in FORMS if FORMS[name].default}


def test_a_name_that_is_no_form_is_refused_before_the_network_is_built(polyad: Polyad) -> None:
    ran = polyad("inspect", "zoo:no_such_network", "--forms", "tuker2")
    assert (ran.code, ran.out) == (2, "") and "Did you mean 'tucker2'?" in ran.err
    ran = polyad("inspect", "zoo:resnet20", "--forms", "all,cp")
    assert (ran.code, ran.out) == (2, "") and "write --forms all" in ran.err
