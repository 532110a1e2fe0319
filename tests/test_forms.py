"""The pages of the forms: what is in docs/ is what the code says, and the pictures show the equations."""

import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from math import dist
from pathlib import Path
from types import ModuleType

import pytest

from conftest import Polyad
from polyad.decompositions.base import FORMS, Decomposition
from polyad.describe import FormPage, form_words, macs_formulas, params_formula, picture
from polyad.describe.formula import KINDS, value
from polyad.describe.graph import Network
from polyad.describe.layout import arrange
from polyad.describe.penalty import to_segment
from polyad.describe.probes import PROBES
from polyad.layers import LayerSpec
from polyad.records import Rank

DOCS = Path(__file__).parent.parent / "docs"
EQUATIONS = (
    "or,rn->on",
    "owr,rih->oihw",
    "op,pqk,qi->oik",
    "or,ir,kr->oik",
    "or,ir,hr,wr->oihw",
    "ia,ahb,bwc,co->oihw",
    "zia,ahb,bwc,coz->oihw",
    "za,abu,bcv,cdw,dex,ez->uvwx",
    "gop,gpqk,gqi->oik",
    "rab,rcd->acbd",
    "oir,ohr,owr->oihw",
    "op,Gpq,qi->Goi",
    "op,pqst,qi,sh,tw->oihw",
    "op,pr,kr,qr,qi->oik",
    "ogr,grm->ogm",
    "xau,xybv,ycw->abcuvw",
    "ia,hb,abx,xy,cdy,wc,od->oihw",
    "opq,pqi->oi",
    "ab,cd->acbd",
    "oi->oi",
    "cir,cjhr,cjwr->cjihw",
    "cxsa,aytb,bzuc->xyzstu",
    "ia,hb,abx,xcd,wc,od->oihw",
    "or,Gr,rn->Gon",
)
SVG = "{http://www.w3.org/2000/svg}"
RADIUS = 20
BACKGROUNDS = ("ffffff", "0d1117")
FIELDS = ("name", "equation", "summary", "source", "good_for")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_forms", DOCS / "make_forms.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(equation: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture(equation))


def of_class(svg: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in svg.iter() if name in element.get("class", "").split()]


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


def test_the_graph_of_an_equation() -> None:
    network = Network.of("oir,ohr,owr->oihw")
    assert (network.factors, network.dots) == (("oir", "ohr", "owr"), ("o", "r"))
    assert [link.ends for link in network.links] == [(0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4)]
    assert [(leg.node, leg.letter) for leg in network.legs] == [(3, "o"), (0, "i"), (1, "h"), (2, "w")]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_picture_shows_its_equation(equation: str) -> None:
    factors, view = equation.split("->")[0].split(","), equation.split("->")[1]
    svg = drawn(equation)
    assert svg.tag == f"{SVG}svg"
    assert [text.text for text in of_class(svg, "name")] == factors
    assert len(of_class(svg, "factor")) == len(factors)
    assert sorted(text.text or "" for text in of_class(svg, "open")) == sorted(view)
    assert len(of_class(svg, "leg")) == len(view)
    ranks = {letter for letter in "".join(factors) if letter not in view}
    assert sorted(text.text or "" for text in of_class(svg, "rank")) == sorted(ranks)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_dots_join_what_shares_a_letter(equation: str) -> None:
    factors, view = equation.split("->")[0].split(","), equation.split("->")[1]
    shares = {letter: sum(letter in factor for factor in factors) for letter in set("".join(factors))}
    joined = [count for letter, count in shares.items() if count > 2 or (count == 2 and letter in view)]
    plain = [letter for letter, count in shares.items() if count == 2 and letter not in view]
    svg = drawn(equation)
    assert len(of_class(svg, "dot")) == len(joined)
    assert len(of_class(svg, "link")) == sum(joined) + len(plain)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_nothing_is_on_top_of_anything(equation: str) -> None:
    svg = drawn(equation)
    nodes = [(int(node.get("cx", "")), int(node.get("cy", ""))) for node in of_class(svg, "factor")]
    dots = [(int(node.get("cx", "")), int(node.get("cy", ""))) for node in of_class(svg, "dot")]
    texts = [
        (int(text.get("x", "")), int(text.get("y", "")) - 5)
        for kind in ("open", "rank")
        for text in of_class(svg, kind)
    ]
    assert all(dist(a, b) >= 2 * RADIUS for a, b in combinations(nodes, 2))
    assert all(dist(node, dot) > RADIUS + 10 for node in nodes for dot in dots)
    assert all(dist(node, text) > RADIUS + 6 for node in nodes for text in texts)
    assert all(dist(a, b) > 14 for a, b in combinations(texts, 2))


@pytest.mark.parametrize("equation", EQUATIONS)
def test_no_line_crosses_another_or_runs_through_a_node(equation: str) -> None:
    network = Network.of(equation)
    layout = arrange(network)
    lines = [(set(link.ends), layout.nodes[link.ends[0]], layout.nodes[link.ends[1]]) for link in network.links]
    lines += [({leg.node}, layout.nodes[leg.node], tip) for leg, tip in zip(network.legs, layout.tips, strict=True)]
    for ends, start, end in lines:
        for node in set(range(network.size)) - ends:
            assert to_segment(layout.nodes[node], (start, end)) > (0.5 if network.is_dot(node) else 1.2)
    for (ends, a, b), (others, c, d) in combinations(lines, 2):
        if not ends & others:
            along = [(a[0] + (b[0] - a[0]) * at / 50, a[1] + (b[1] - a[1]) * at / 50) for at in range(51)]
            assert min(to_segment(point, (c, d)) for point in along) > 0.1


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_picture_fits_its_frame_and_has_whole_pixels(equation: str) -> None:
    svg = drawn(equation)
    left, top, width, height = map(int, svg.get("viewBox", "").split())
    assert (svg.get("width"), svg.get("height")) == (str(width), str(height))
    for element in [*svg.iter(f"{SVG}circle"), *svg.iter(f"{SVG}text")]:
        x, y = (int(element.get(one) or element.get(f"c{one}") or "") for one in "xy")
        assert left < x < left + width and top < y < top + height
    for path in svg.iter(f"{SVG}path"):
        assert re.fullmatch(r"M-?\d+ -?\d+ [LQ]-?\d+ -?\d+( -?\d+ -?\d+)?", path.get("d", ""))


def test_open_letters_have_words_where_the_view_is_one_of_channels_and_kernel() -> None:
    assert [text.text for text in of_class(drawn("ia,ahb,bwc,co->oihw"), "word")] == ["out", "in", "height", "width"]
    assert of_class(drawn("xau,xybv,ycw->abcuvw"), "word") == []


def luminance(colour: str) -> float:
    """Relative luminance of rrggbb (WCAG 2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", FORMS)
def test_words_have_room(name: str) -> None:
    """No word of an open line runs into another or into a circle."""
    svg = ElementTree.fromstring((DOCS / "forms" / f"{name}.svg").read_text(encoding="utf-8"))
    boxes = []
    for word in of_class(svg, "word"):
        x, y, half = int(word.get("x", "")), int(word.get("y", "")), 3.5 * len(word.text or "")
        boxes.append((x - half, y - 10, x + half, y + 2))
    for left, top, right, bottom in boxes:
        for node in of_class(svg, "factor"):
            x, y = int(node.get("cx", "")), int(node.get("cy", ""))
            nearest = min(max(x, left), right), min(max(y, top), bottom)
            assert dist(nearest, (x, y)) > RADIUS
    for one, other in combinations(boxes, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


def test_colours_read_on_light_and_on_dark_paper() -> None:
    colours = set(re.findall(r"#([0-9a-f]{6})", picture("or,rn->on")))
    assert len(colours) == 3
    for colour in colours:
        for background in BACKGROUNDS:
            high, low = sorted((luminance(colour), luminance(background)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 3.9, (colour, background)


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
