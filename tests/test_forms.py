"""The pages of the forms: what is in docs/ is what the code says."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from conftest import Polyad
from polyad.decompositions.base import FORMS, Decomposition
from polyad.describe import FormPage, form_words, macs_formulas, params_formula
from polyad.describe.formula import KINDS, value
from polyad.describe.probes import PROBES
from polyad.layers import LayerSpec
from polyad.records import Rank

DOCS = Path(__file__).parent.parent / "docs"
FIELDS = ("name", "equation", "summary", "source", "good_for")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_forms", DOCS / "make_forms.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_rank(form: Decomposition, layer: LayerSpec) -> Rank:
    return tuple(min(top, 2 + at) for at, top in enumerate(form.max_rank(layer)))


def carried(form: Decomposition) -> list[LayerSpec]:
    return [layer for layer in PROBES.values() if layer.groups == 1 and form.refuses(layer) is None]


def sizes_of(form: Decomposition, layer: LayerSpec, rank: Rank) -> dict[str, int]:
    """Of every letter; weights that share nothing are counted one by one, as the formulas are."""
    return form.letter_sizes(layer, rank) | {"G": layer.stack}


def test_the_pages_in_docs_are_what_the_forms_say_now() -> None:
    module = generator()
    for name, text in module.written().items():
        assert (DOCS / name).is_file(), f"docs/{name} is missing: make docs"
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name} is old: make docs"
    assert module.stale() == [], "pictures of forms that are no more: make docs"


def test_every_form_has_its_section_and_its_picture() -> None:
    text = (DOCS / "forms.md").read_text(encoding="utf-8")
    for name in FORMS:
        assert f"\n## {name}\n" in text and f"(forms/{name}.svg)" in text and f"[{name}](#{name})" in text


def test_a_picture_of_a_form_that_is_gone_is_stale(tmp_path: Path) -> None:
    (tmp_path / "forms").mkdir()
    for name in ("gone.svg", f"{next(iter(FORMS))}.svg"):
        (tmp_path / "forms" / name).touch()
    assert [path.name for path in generator().stale(tmp_path)] == ["gone.svg"]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_says_all_of_itself(name: str) -> None:
    form = FORMS[name]
    for field in FIELDS:
        text = getattr(form, field, "")
        assert isinstance(text, str) and text.strip() == text != "", field
    assert form.good_for.endswith(".") and len(form.good_for) > 40
    assert FormPage.of(form).carries


@pytest.mark.parametrize("name", FORMS)
def test_the_formula_counts_the_parameters(name: str) -> None:
    form = FORMS[name]
    formula = params_formula(form.equation)
    assert formula.count(" + ") == form.equation.count(",")
    for layer in carried(form):
        rank = small_rank(form, layer)
        weights = 1 if any(form.shared) else layer.stack
        counted = form.params(layer.model_copy(update={"bias": False}), rank)
        assert weights * value(formula, sizes_of(form, layer, rank)) == counted


@pytest.mark.parametrize("name", FORMS)
def test_the_formula_counts_the_macs(name: str) -> None:
    """On layers and ranks that the formulas were not found with."""
    form = FORMS[name]
    formulas = macs_formulas(form)
    layer = next(PROBES[kind] for kind in KINDS if form.refuses(PROBES[kind]) is None)
    for inputs, outputs in ((64, 64), (256, 64), (48, 192)):
        sized = layer.model_copy(update={"in_features": inputs, "out_features": outputs})
        rank = small_rank(form, sized)
        fewest = min(value(formula, sizes_of(form, sized, rank)) for formula in formulas)
        assert fewest * 5**layer.dims == form.macs(sized, rank, (5,) * layer.dims)


def test_macs_that_differ_from_the_parameters_have_their_own_formula() -> None:
    """Forms with a factor that runs once for every value of a letter that it does not have."""
    assert same(macs_formulas(FORMS["tr"])[0], "z i a + z a h b + z b w c + c o z")
    assert same(macs_formulas(FORMS["stack_tucker"])[0], "o p + p q k + q i")
    orders = macs_formulas(FORMS["kronecker"])  # the small matrix or the small layer first
    assert len(orders) == 2 and "whichever is fewer" in FormPage.of(FORMS["kronecker"]).macs_text
    assert any(same(order, "b r c d k + c r a b") for order in orders)


def same(formula: str, other: str) -> bool:
    """Whether two formulas are one, however their products and sums are ordered."""
    return terms(formula) == terms(other)


def terms(formula: str) -> list[list[str]]:
    return sorted(sorted(term.split()) for term in formula.split(" + "))


def test_macs_without_a_formula_are_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FORMS["tucker2"]), "macs", lambda *_: 7)
    page = FormPage.of(FORMS["tucker2"])
    assert page.macs == [] and "polyad plan" in page.macs_text


def test_words_of_the_letters() -> None:
    parts = {"a": "part of out", "c": "part of out", "b": "part of in", "d": "part of in", "k": "kernel"}
    assert form_words(FORMS["kronecker"]) == parts
    assert form_words(FORMS["stack_cp"]) == {"G": "weight", "o": "out", "n": "in × kernel"}
    assert form_words(FORMS["coupled_cp"])["j"] == "part of out"


@pytest.mark.parametrize("name", FORMS)
def test_every_letter_is_explained(name: str) -> None:
    """Ranks, the letters of the weight, and letters whose sizes belong to the form."""
    form = FORMS[name]
    page = FormPage.of(form)
    layer = carried(form)[0]
    assert page.ranks == form.rank_letters(layer) and len(page.ranks) == len(form.max_rank(layer))
    assert set(page.ranks) | set(page.letters) | set(page.own) == set(form.equation) - set(",->")
    for letter, text in page.own.items():
        assert text.startswith(f"{form.letter_sizes(layer, small_rank(form, layer))[letter]} ")
        assert f"{letter}: {text}" in page.letters_text
    assert set(form.structure(layer)) <= set(page.own)
    assert ("which weight of the stack" in page.letters_text) == ("G" in form.equation)


@pytest.mark.parametrize("name", FORMS)
def test_variants_are_written_as_they_are_asked_for(name: str) -> None:
    page = FormPage.of(FORMS[name])
    for variant in [*page.variants, *page.on_request]:
        assert FORMS[variant].name == variant and variant in page.variants_text
        own = FormPage.of(FORMS[variant])
        assert own.variants == [] and own.on_request == {} and f"--forms {variant}" in own.menu_text


@pytest.mark.parametrize("name", FORMS)
def test_the_page_in_the_terminal(polyad: Polyad, name: str) -> None:
    page = FormPage.of(FORMS[name])
    ran = polyad("forms", name)
    shown = " ".join(ran.out.split())
    assert (ran.code, ran.err) == (0, "")
    shown_texts = (page.equation, page.summary, page.params, page.good_for, page.source, page.refuses_text)
    for text in (*shown_texts, page.letters_text, page.variants_text, page.menu_text):
        assert " ".join(text.split()) in shown
    ran = polyad("forms", name, "--json")
    assert json.loads(ran.out)["equation"] == page.equation
    assert {*FIELDS, "params", "macs", "factors", "own", "variants", "carries", "refuses"} <= set(json.loads(ran.out))


def test_an_unknown_form_has_no_page(polyad: Polyad) -> None:
    ran = polyad("forms", "tuker2")
    assert (ran.code, ran.out) == (2, "")
    assert "There is no form 'tuker2'" in ran.err and "Did you mean 'tucker2'?" in ran.err
