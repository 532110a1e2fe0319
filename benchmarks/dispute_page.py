"""docs/which-norm.md and its picture, from the results of benchmarks/dispute.py.

    python benchmarks/dispute_page.py

What is between the tables is in dispute_text.py.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import HERE
from dispute_candidates import NORMS
from dispute_statistics import Rows, correlation, gain_of_fit, within_layers
from dispute_svg import picture
from dispute_text import PARTS

NUMBERS = (*NORMS, "measured")
"""What is compared as a prediction; the last one is `inputs` times a measured sensitivity of the layer."""

TITLES = {
    "stories260k": "stories260K",
    "resnet20": "ResNet-20",
    "mobilenet_v2": "MobileNetV2",
    "resnet56": "ResNet-56",
}
FEWEST = 8
"""Candidates below which a correlation is not given."""


def write_page() -> None:
    """The page of all networks whose results are there."""
    files = {name: HERE / "results" / f"dispute_{name}.json" for name in TITLES}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.exists()}
    if not found:
        return
    rows = {TITLES[name]: one["rows"] for name, one in found.items()}
    docs = Path(HERE).parent / "docs"
    plans = {name: _of(own, "network") for name, own in rows.items()}
    title = "Predicted damage of whole networks (across) against measured divergence, before recovery"
    (docs / "which-norm.svg").write_text(picture(plans, title), encoding="utf-8")
    tables = {
        "SIZES": _sizes(rows),
        "LAYERS": _predictions(rows, "layer", _pooled),
        "WITHIN": _predictions(rows, "layer", within_layers),
        "NETWORKS": _predictions(rows, "network", _pooled),
        "OTHERS": _others(rows),
        "FITS": _fits(rows),
        "PROVENANCE": _provenance(found),
    }
    text = "\n\n".join(PARTS)
    for name, table in tables.items():
        text = text.replace(f"[{name}]", table)
    (docs / "which-norm.md").write_text(text + "\n", encoding="utf-8")


def _of(rows: Rows, kind: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def _pooled(rows: Rows, number: str, when: str) -> Any:
    return correlation(rows, number, when)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in body)])


def _sizes(rows: Mapping[str, Rows]) -> str:
    body = []
    for name, own in rows.items():
        layers, networks = _of(own, "layer"), _of(own, "network")
        sites = len({row["site"] for row in layers})
        plans, recovered = ({row["plan"] for row in networks if when in row} for when in ("before", "after"))
        body.append([name, str(sites), str(len(layers)), str(len(plans)), str(len(networks)), str(len(recovered))])
    head = (
        "network",
        "single layers",
        "candidates of them",
        "random plans",
        "networks made of them",
        "plans recovered",
    )
    return _table(head, body)


def _predictions(rows: Mapping[str, Rows], kind: str, figure: Callable[[Rows, str, str], Any]) -> str:
    """A line per network and state, a column per number; the highest of a line is bold."""
    body = []
    for name, own in rows.items():
        for when in ("before", "after"):
            there = [row for row in _of(own, kind) if when in row]
            if len(there) < FEWEST or (when == "after" and not _recovers(there)):
                continue
            found = {number: figure(there, number, when) for number in NUMBERS}
            best = max(found, key=lambda number: found[number].value)
            cells = [f"**{one}**" if number == best else str(one) for number, one in found.items()]
            body.append([name, when, *cells])
    return _table(("network", "recovery", *NUMBERS), body)


def _recovers(rows: Rows) -> bool:
    """Whether recovery can change anything there: not without a bias or batch norm."""
    return any(row["after"]["divergence"] != row["before"]["divergence"] for row in rows)


def _others(rows: Mapping[str, Rows]) -> str:
    """Other figures of the same candidates, before recovery: Pearson of logarithms; loss and accuracy by rank."""
    body = []
    for name, own in rows.items():
        for kind, title in (("layer", "layers"), ("network", "plans")):
            there = [row for row in _of(own, kind) if "before" in row]
            asked = (("pearson", "divergence"), ("spearman", "loss"), ("spearman", "accuracy"))
            for way, measure in asked:
                found = [correlation(there, number, "before", measure, way) for number in NUMBERS]
                what = "divergence, Pearson of logs" if way == "pearson" else f"{measure}, Spearman"
                body.append([name, title, what, *map(str, found)])
    return _table(("network", "of", "measured", *NUMBERS), body)


def _fits(rows: Mapping[str, Rows]) -> str:
    """Divergence of fits in other norms over that of fits in the weight norm."""
    body = []
    for name, own in rows.items():
        for kind, title in (("layer", "layers"), ("network", "plans")):
            for when in ("before", "after"):
                there = [row for row in _of(own, kind) if when in row]
                if len(there) < FEWEST or (when == "after" and not _recovers(there)):
                    continue
                cells = []
                for norm in NORMS[1:]:
                    ratio, wins = gain_of_fit(there, norm, when)
                    cells.append(f"{ratio}, {wins:.0%}".replace("%", " %"))
                body.append([name, title, when, *cells])
    return _table(("network", "of", "recovery", *NORMS[1:]), body)


def _provenance(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, one in found.items():
        where = one["provenance"]
        versions = ", ".join(f"{key} {value}" for key, value in where["versions"].items())
        lines.append(
            f"- {TITLES[name]}: commit {where['commit'][:10]}, {versions}, {where['machine']}, {where['date']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    write_page()
