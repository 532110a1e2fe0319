"""Write docs/results.md from the JSON files of presets.py, recovery.py, recipe.py and observe.py.

python benchmarks/table.py
"""

import json
from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

from common import HERE
from presets import ABLATED, AUTO, BUDGETS, VARIANTS
from recovery import LEVELS

Row = dict[str, Any]

TITLES = {
    "resnet20": "ResNet-20",
    "resnet56": "ResNet-56",
    "vdsr": "VDSR on Set5, decibels, mean of three scales",
    "stories260k": "stories260K, per cent of perplexity",
    "mobilenet_v2": "MobileNetV2 (batch norm folded), on 744 images of an ImageNet sample",
}
UNITS = {"kernels": "parameters of the 3x3 convolutions", "params": "parameters", "macs": "MACs"}
FIRST_TEST = {
    "resnet20": "lossless",
    "resnet56": "lossless",
    "vdsr": "Set5",
    "stories260k": "stories",
    "mobilenet_v2": "sample",
}

INTRODUCTION = """# Results

What a network loses against the original on the same test samples: points of accuracy where nothing else is said,
smaller is better, below zero is a gain. No labels and no training: 1,000 unlabelled calibration images (256 of the
ImageNet sample), then `statistics` recovery for every method alike; `auto+refit` refits in sequence instead, `auto-1`
does not compare whole networks. CIFAR-10 *lossless* are 1,017 original test images, *jpeg* all 10,000 re-encoded
ones, on which the originals lose about ten points. ± is the paired standard error over the test samples of one draw
of the calibration images; where there are several draws, their number and the standard deviation between them. The
presets are the methods of papers as settings of Polyad, without the training that most of them go on with (`polyad
presets`). "-" was not measured, "no" cannot give so little.

Written by `benchmarks/table.py` from what `benchmarks/presets.py`, `recovery.py`, `recipe.py` and `observe.py`
have left in `benchmarks/results/`, where each row has its commit.
"""

RECOVERING = """## Recovery, level by level

`benchmarks/recovery.py`, networks of `auto`. Levels that train start from what the refit made of them, whose seconds
are in theirs; other jobs ran beside them. CIFAR: they learn from 7,068 lossless images, 1,000 others judge;
MobileNetV2: 500 images of the sample, tested on the others; VDSR: 384 patches, 96 judge."""

CASES = {
    "resnet20-25": "ResNet-20, 25% of the parameters of the 3x3 convolutions",
    "resnet20-15": "ResNet-20, 15% of the parameters of the 3x3 convolutions",
    "resnet56-25": "ResNet-56, 25% of the parameters of the 3x3 convolutions",
    "resnet56-macs30": "ResNet-56, 30% of the MACs",
    "resnet56-10": "ResNet-56, 10% of the parameters of the 3x3 convolutions",
    "mobilenet_v2-60": "MobileNetV2, 60% of the parameters",
    "vdsr-15": "VDSR, 15% of the parameters of the 3x3 convolutions",
}
"""Of recovery_cases.py."""

ORDER = ("auto+refit", "auto", "auto-1", *sorted(name for name in VARIANTS if "auto" not in name))


def read(name: str) -> dict[str, Any] | None:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def source(found: dict[str, Any]) -> str:
    """Where figures come from, in a line."""
    where = found["provenance"]
    versions = ", ".join(f"{key} {value}" for key, value in where["versions"].items())
    return f"Last rows: {where['machine']}; {versions}; {where['date']}."


def title(budget: str) -> str:
    unit, share = budget.split()
    return f"{share} of the {UNITS[unit]}"


def cell(rows: Iterable[Row], test: str) -> str:
    """One draw with its standard error, or several with their deviation."""
    rows = list(rows)
    if not rows:
        return "-"
    if any("refused" in row for row in rows):
        return "no"
    lost = [row["tests"][test]["lost"] for row in rows]
    error = rows[0]["tests"][test].get("standard_error")
    digits = 2 if error is None else 1  # decibels
    if len(lost) > 1:
        return f"{mean(lost):z.{digits}f} (sd {stdev(lost):z.{digits}f}, {len(lost)})"
    return f"{lost[0]:z.{digits}f}" + ("" if error is None else f" ± {error:.1f}")


def pivot(rows: list[Row], names: Iterable[str], budgets: Iterable[str], test: str) -> list[str]:
    """Methods down, budgets across."""
    budgets = [budget for budget in budgets if any(row["budget"] == budget for row in rows)]
    lines = ["| | " + " | ".join(map(title, budgets)) + " |", "|---" * (len(budgets) + 1) + "|"]
    for name in names:
        cells = [cell((r for r in rows if (r["preset"], r["budget"]) == (name, b)), test) for b in budgets]
        if any(found != "-" for found in cells):
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return [*lines, ""]


def ahead(rows: list[Row], budgets: Iterable[str], test: str) -> list[str]:
    """Where another method loses less than `auto`, with refit or without: by how much, and whether by chance."""
    said = []
    for budget in budgets:
        found = {name: standing(rows, name, budget, test) for name in ORDER}
        standings = {name: one for name, one in found.items() if one is not None}
        ours = min((one for name, one in standings.items() if name in ("auto", "auto+refit")), default=None)
        for name, (lost, error, changed, apart) in standings.items():
            if ours is None or "auto" in name or lost >= ours[0]:
                continue
            text = f"`{name}` at {title(budget)} by {ours[0] - lost:.1f}"
            if ours[0] - lost <= (error**2 + ours[1] ** 2) ** 0.5:
                said.append(f"{text}, within the error of a difference")
            else:
                said.append(
                    f"{text}, where it changes {changed:.0f} predictions and `auto` {ours[2]:.0f}, the divergence from"
                    f" the original is {apart:.2g} and {ours[3]:.2g}"
                )
    return [f"Ahead of `auto`: {'; '.join(said)}.", ""] if said else []


def standing(rows: list[Row], name: str, budget: str, test: str) -> tuple[float, ...] | None:
    """What a method loses, its standard error, how many predictions it changes, the divergence; means over draws."""
    tests = [row["tests"][test] for row in rows if (row["preset"], row["budget"]) == (name, budget) and "tests" in row]
    if not tests:
        return None
    return tuple(mean(t.get(key) or 0 for t in tests) for key in ("lost", "standard_error", "changed", "divergence"))


def section(network: str) -> list[str]:
    """All methods on one network; then one factor at a time, then calibration on other images, where there are rows."""
    found = read(f"presets_{network}")
    if found is None:
        return []
    budgets, test = [f"{unit} {share:.0%}" for unit, share in BUDGETS[network]], FIRST_TEST[network]
    own = [row for row in found["rows"] if row["calibration"] == "lossless"]
    lines = [f"## {TITLES[network]}", "", source(found), "", *pivot(own, ORDER, budgets, test)]
    lines += ahead(own, budgets, test)
    if network.startswith("resnet"):
        lines += [f"### {TITLES[network]}, the same networks on the JPEG test images", ""]
        lines += pivot(own, ORDER, budgets, "jpeg") + ahead(own, budgets, "jpeg")
    ablated = [name for name in VARIANTS if ":" in name]
    if any(row["preset"] in ablated for row in own):
        said = ", ".join(f"{key} {value}" for key, value in AUTO.items())
        lines += [f"### {TITLES[network]}, one factor at a time from `auto` ({said})", ""]
        tests = (test, "jpeg") if network.startswith("resnet") else (test,)
        for one in tests:
            lines += [f"{one} test images:", ""] if len(tests) > 1 else []
            lines += pivot(own, ("auto", "auto-1", "auto+refit", *ablated), ABLATED, one)
    other = [row for row in found["rows"] if row["calibration"] == "jpeg"]
    if other:
        for test in ("jpeg", "lossless"):
            lines += [f"### {TITLES[network]}, calibrated on JPEG images, {test} test images", ""]
            lines += pivot(other, ORDER, budgets, test)
    return lines


def recovering() -> list[str]:
    """What each recovery level makes of one network, case by case."""
    lines = []
    for case, title in CASES.items():
        found = read(f"recovery_{case}")
        if found is None:
            continue
        tests = list(found["rows"][0]["tests"])
        lines += [f"### {title}", "", source(found), ""]
        lines += [
            f"| level | limit | threads or card | seconds | {' | '.join(tests)} |",
            "|---" * (len(tests) + 4) + "|",
        ]
        kinds: dict[tuple[str, ...], list[Row]] = {}
        for row in found["rows"]:
            kinds.setdefault((row["level"], limit(row), where(row)), []).append(row)
        for head, rows in sorted(kinds.items(), key=lambda kind: LEVELS.index(kind[0][0])):
            figures = (f"{mean(row['seconds'] for row in rows):.0f}", *(cell(rows, test) for test in tests))
            lines.append("| " + " | ".join((*head, *figures)) + " |")
        lines.append("")
    return [RECOVERING, "", *lines] if lines else []


def limit(row: Row) -> str:
    """Of a level that trains."""
    if row.get("epochs"):
        return f"{row['epochs']} epochs"
    return "" if row["minutes"] is None else f"{row['minutes']:g} min"


def where(row: Row) -> str:
    return row["device"] if row.get("device", "cpu") != "cpu" else str(row["threads"])


def recipe() -> list[str]:
    found = read("recipe")
    if found is None:
        return []
    lines = ["## The full recipe: fine-tuning with the original's outputs and labels, beside the dense control", ""]
    lines += [
        source(found),
        "",
        "`benchmarks/recipe.py`: learned from 17,500 JPEG images, judged by 2,500; points lost",
        "",
    ]
    lines += [
        "| network | epochs | batch norm | seconds | jpeg before | after | lossless before | after |",
        "|---" * 8 + "|",
    ]
    for row in sorted(found["rows"], key=lambda row: (row["network"].split("-")[0], row["network"])):
        figures = [
            f"{row[when][test]['lost']:z.1f} ± {row[when][test]['standard_error']:.1f}"
            for test in ("jpeg", "lossless")
            for when in ("before", "after")
        ]
        head = (row["network"], str(row["epochs"]), row["norms"], f"{row['seconds']:.0f} ({row['device']})")
        lines.append("| " + " | ".join((*head, *figures)) + " |")
    return [*lines, ""]


def observing() -> list[str]:
    found = read("observe")
    if found is None:
        return []
    row = found["rows"][0]
    return [
        "## Observing",
        "",
        f"1,000 images through ResNet-56: {row['seconds']} s, {row['ratio_to_forward']} times a plain forward pass over"
        f" the same images (median of {row['runs']}); the whole process peaks at {row['peak_gib']} GiB.",
        "",
    ]


def main() -> None:
    lines = [INTRODUCTION, *(line for name in TITLES for line in section(name)), *recovering(), *recipe(), *observing()]
    (HERE.parent / "docs" / "results.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
