"""The report: numbers arrive on the page, in the file, in the terminal and on the card, and nothing else is loaded."""

import io
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import made_up
import polyad
from polyad.errors import CheckpointError
from polyad.outcome import Evaluation, Report
from polyad.report import model_card, print_report, read_report, render_html, write_report
from polyad.report.wording import figure, headline, percent, signed, size

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}|`*"


class Loads(HTMLParser):
    """Collects what a page would load, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def parsed(page: str) -> Loads:
    found = Loads()
    found.feed(page)
    return found


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def printed(report: Report, width: int = 120) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width))
    return stream.getvalue()


def renamed(report: Report, name: str) -> Report:
    rows = tuple(row.model_copy(update={"name": name, "why": name}) for row in report.sites)
    refused = tuple(row.model_copy(update={"name": name, "reason": name}) for row in report.refused)
    notes = {"recovered": (name,), "provenance": {name: name}, "seconds": {name: 1.0}, "model": name, "budget": name}
    return report.model_copy(update={"sites": rows, "refused": refused, **notes})


def test_page_has_names_and_numbers() -> None:
    report = made_up.report()
    text = without_scripts(render_html(report))
    for row in report.sites:
        assert row.name in text
        assert f"{row.params_before:,}" in text and f"{row.params:,}" in text
        assert figure(row.held_out_error) in text
    for refusal in report.refused:
        assert refusal.name in text and refusal.reason in text
    for expected in ("269,722", "80,900", "30.0 %", "70.0 %", "91.64 %", "90.10 %", "0.0412", "11.7 s", "2.13.0+cpu"):
        assert expected in text
    assert report.recovered[0].split(",")[0] in text


def test_page_is_self_contained() -> None:
    page = render_html(made_up.report())
    found = parsed(page)
    assert found.loads == []
    assert {"link", "iframe", "object", "embed", "img"}.isdisjoint(found.tags)
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1
    assert "@import" not in without_scripts(page) and "url(" not in without_scripts(page)


def test_page_escapes_names() -> None:
    page = render_html(renamed(made_up.report(), EVIL))
    assert "<script>alert" not in page and "<img" not in without_scripts(page)
    assert "img" not in parsed(page).tags
    assert "{{ 7*7 }}" in page and "{{ 49 }}" not in page
    assert "<script>" not in model_card(renamed(made_up.report(), EVIL))


def test_json_round_trip(tmp_path: Path) -> None:
    report = made_up.report()
    write_report(report, tmp_path / "new")
    assert read_report(tmp_path / "new") == report
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["report.html", "report.json"]
    write_report(made_up.bare(), tmp_path / "new")
    assert read_report(tmp_path / "new") == made_up.bare()


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"report\.json is not there"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"model": "x"}')
    with pytest.raises(CheckpointError, match="compress again"):
        read_report(tmp_path)


def test_terminal_has_totals() -> None:
    text = printed(made_up.report())
    for expected in ("269,722", "80,900", "30.0 %", "70.0 %", "layer3.2.conv2", "stem.depthwise", "43 predictions"):
        assert expected in text
    assert "[bold]" in printed(renamed(made_up.report(), "[bold]x"))
    tables, _, sentences = printed(made_up.report(), 60).rpartition("\n\n")
    assert max(map(len, tables.splitlines())) <= 60
    assert sentences.splitlines()[-1].endswith("43 predictions changed)")  # whole, wherever it is wrapped when shown


def test_everything_optional_missing() -> None:
    report = made_up.bare()
    assert "None" not in without_scripts(render_html(report)) and "–" in render_html(report)
    assert "110" in printed(report) and "None" not in printed(report)
    assert 'polyad.load("FOLDER", model=my_network)' in model_card(report)
    render_html(report.model_copy(update={"sites": ()}))
    printed(report.model_copy(update={"sites": ()}))


def test_headline() -> None:
    report = made_up.report()
    cost = "zoo:resnet20: 269,722 → 80,900 parameters (30.0 % kept, 70.0 % removed)"
    quality = "accuracy 91.64 % → 90.10 % (−1.54 ± 0.60 points on 1,017 samples, 43 predictions changed)"
    assert headline(report) == f"{cost}; {quality}"
    assert headline(made_up.bare()).endswith("removed)")
    unlabelled = Evaluation(metric="divergence", value=0.01234, loss=None, samples=64)
    told = headline(report.model_copy(update={"before": None, "after": unlabelled}))
    assert told.endswith("divergence 0.0123 from the original on 64 samples")


def test_perplexity_is_told_as_such() -> None:
    before = Evaluation(metric="perplexity", value=3.3116, loss=1.1974, samples=6989)
    paired = {"divergence": 0.0532, "changed": 1, "difference": 0.2484, "standard_error": 0.0123}
    after = Evaluation(metric="perplexity", value=3.56, loss=1.2698, samples=6989, **paired)
    report = made_up.report().model_copy(update={"before": before, "after": after})
    assert headline(report).endswith(
        "; perplexity 3.312 → 3.560 (+0.248 ± 0.0123 on 6,989 tokens, 1 prediction changed)"
    )
    for text in (printed(report), without_scripts(render_html(report)), model_card(report)):
        rows = ("perplexity (lower is better)", "loss (nats per token)", "tokens", "6,989", "+0.0724")
        assert all(row in text for row in rows)
        assert "points" not in text and "accuracy" not in text and "\nsamples" not in text
    better = after.model_copy(update={"value": 123456.0, "difference": -0.05, "standard_error": None})
    assert "perplexity 3.312 → 1.23e+05 (−0.0500 on" in headline(report.model_copy(update={"after": better}))


def test_card_says_how_to_load() -> None:
    card = model_card(made_up.report())
    assert 'polyad.load("FOLDER")' in card and "polyad evaluate FOLDER --data DATA" in card
    assert "80,900" in card and "layer3.2.conv2" in card


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (figure(0.0123456), "0.0123"),
        (figure(0.0), "0"),
        (figure(None), "–"),
        (figure(-1.5e-9), "−1.50e-09"),
        (percent(0.3), "30.0 %"),
        (percent(1e-6), "0.0001 %"),
        (percent(None), "–"),
        (signed(-0.001), "0.00"),
        (signed(0.5), "+0.50"),
        (size(999), "999 bytes"),
        (size(1084808), "1.08 MB"),
        (size(999_999), "1 MB"),
    ],
)
def test_wording(shown: str, expected: str) -> None:
    assert shown == expected


def test_the_page_says_which_forms_could_not_carry_which_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1), nn.Flatten()).eval()
    images = [torch.randn(20, 3, 9, 9)]
    result = polyad.compress(model, images, budget=polyad.Budget(params=0.7), forms=("svd", "tucker2"), samples=20)
    found = {(refusal.form, site): refusal.reason for refusal in result.report.form_refusals for site in refusal.sites}
    assert "depthwise" in found["tucker2", "1"] and "one position" in found["tucker2", "2"]
    assert ("svd", "0") not in found and ("tucker2", "0") not in found
    page = render_html(result.report)
    assert all(escape(reason, quote=False) in page for reason in found.values())
