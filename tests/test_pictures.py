"""The pictures of the forms show their equations, and nothing in them is on top of anything else."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from math import dist
from pathlib import Path

import pytest

from polyad.decompositions.base import FORMS
from polyad.describe import picture
from polyad.describe.graph import Network
from polyad.describe.layout import arrange
from polyad.describe.penalty import to_segment

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


def drawn(equation: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture(equation))


def of_class(svg: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in svg.iter() if name in element.get("class", "").split()]


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
