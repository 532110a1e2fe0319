"""Every preset runs, gives what it names, and can be overridden; the page of budgets names all that there is."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import polyad
from conftest import Polyad
from own_network import Own, write_own
from polyad.decompositions.base import FORMS
from polyad.errors import UnknownNameError
from polyad.presets import PRESETS
from polyad.records import DENSE, NARROW
from polyad.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"


class Small(nn.Module):
    """Two kernels and a matrix: (n, 4, 6, 6) -> (n, 6)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_and_gives_what_it_names(name: str) -> None:
    options, settings = polyad.preset(name), Settings(**polyad.preset(name))
    torch.manual_seed(1)
    plan = polyad.plan(Small(), torch.randn(24, 4, 6, 6), budget=polyad.Budget(params=0.6), **options)
    assert plan.params <= 0.6 * plan.params_before
    assert (plan.metric, plan.allocator) == (settings.metric, settings.allocator)
    named = {form.name.split("/")[0] for form in FORMS.menu(settings.forms)}
    assert {choice.form.split("/")[0] for choice in plan.choices} <= named | {DENSE, NARROW}
    assert PRESETS[name].differs


def test_the_page_of_budgets_is_as_it_would_be_written() -> None:
    spec = importlib.util.spec_from_file_location("make_budgets", DOCS / "make_budgets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (DOCS / "budgets.md").read_text(encoding="utf-8"), "run `make docs`"


def test_an_unknown_preset_is_told_what_there_is(polyad: Polyad) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'alds2021'"):
        PRESETS["alds2012"]
    ran = polyad("compress", "zoo:resnet20", "--data", "digits", "--out", "x", "--preset", "alds")
    assert ran.code == 2 and "Known: aimet, alds2021" in ran.err


def test_presets_explain_themselves(polyad: Polyad) -> None:
    listed = json.loads(polyad("presets", "--json").out)
    assert [row["name"] for row in listed] == list(PRESETS)
    shown = polyad("presets", "alds2021").out
    assert "Liebenwein" in shown and "--allocator minmax" in shown and "Frobenius" in shown
    assert json.loads(polyad("presets", "alds2021", "--json").out)["settings"]["metric"] == "weights"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


def test_options_and_recipes_go_before_a_preset(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    chosen = (own.model, "--weights", own.weights, "--data", "digits", "--samples", "40", "--budget", "params=60%")
    out = ("--json", "--out")
    found = json.loads(polyad("plan", *chosen, "--preset", "svdllm", *out, tmp_path / "a.json").out)
    assert (found["metric"], found["allocator"]) == ("inputs_full", "uniform")
    assert {choice["form"] for choice in found["choices"]} <= {"svd", "dense"}
    mixed = polyad("plan", *chosen, "--preset", "svdllm", "--metric", "weights", *out, tmp_path / "b.json")
    assert (json.loads(mixed.out)["metric"], json.loads(mixed.out)["allocator"]) == ("weights", "uniform")
    (tmp_path / "mine.yaml").write_text("allocator: greedy\n")
    recipe, preset = ("--recipe", tmp_path / "mine.yaml"), ("--preset", "svdllm")
    for order in ((*recipe, *preset), (*preset, *recipe)):
        ran = json.loads(polyad("plan", *chosen, *order, *out, tmp_path / f"{order[0]}.json").out)
        assert (ran["metric"], ran["allocator"]) == ("inputs_full", "greedy")


def test_the_recipe_of_a_preset_says_what_it_stands_for(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    chosen = (own.model, "--weights", own.weights, "--data", "digits", "--samples", "40", "--budget", "params=60%")
    ran = polyad("compress", *chosen, "--preset", "svdllm", "--out", tmp_path / "small", "--json")
    assert ran.code == 0 and json.loads(ran.out)["recovery"] == "none"
    recipe = (tmp_path / "small" / "recipe.yaml").read_text()
    assert "metric: inputs_full" in recipe and "allocator: uniform" in recipe and "forms: svd" in recipe
