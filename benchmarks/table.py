"""Write docs/results.md from the JSON files of the benchmarks.

python benchmarks/table.py
"""

import json
from typing import Any

from common import HERE

TITLES = {
    "resnet20": "ResNet-20, share of the parameters of its 3x3 convolutions",
    "resnet56": "ResNet-56",
    "mobilenet_v2": "MobileNetV2 (batch norm folded), on 744 images of an ImageNet sample",
    "side_by_side": "Side by side: norm, allocator, forms (ResNet-20, lossless)",
}

INTRODUCTION = """# Results

No labels and no training: calibration on unlabelled images, then `statistics` recovery. Every figure is a difference on
the same test images; ± is the paired standard error. CIFAR-10 *lossless* are 1,017 original test images; *jpeg* are all
10,000 as re-encoded JPEG, calibrated on re-encoded training images (a shifted domain, on which the dense networks lose
about ten points). One draw of the calibration images (seed 0). The MobileNetV2 sample is for differences only, it is no
ImageNet accuracy.

This page is written by `benchmarks/table.py` from the files in `benchmarks/results/`, which `benchmarks/accuracy.py`
and `benchmarks/observe.py` write.
"""


def read(name: str) -> dict[str, Any] | None:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def section(name: str) -> list[str]:
    """One suite as a heading, its provenance and a table."""
    found = read(name)
    if found is None:
        return []
    where = found["provenance"]
    versions = ", ".join(f"{key} {value}" for key, value in where["versions"].items())
    source = f"{where['machine']}; {versions}; commit {where['commit'][:12]}; {where['date']}"
    lines = [f"## {TITLES[name]}", "", source, ""]
    lines += ["| data | kept | options | dense | compressed | points | changed | params | MACs | forms | seconds |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in found["rows"]:
        options = ", ".join(_option(key, value) for key, value in row["options"].items()) or "default"
        forms = ", ".join(f"{form} {count}" for form, count in sorted(row["forms"].items()))
        lines.append(
            f"| {row['data']} | {row['budget']} | {options} | {row['dense']:.2f} | {row['accuracy']:.2f} |"
            f" {-row['lost']:+.2f} ± {row['standard_error']:.2f} | {row['changed']:,} of {row['samples']:,} |"
            f" {row['params_kept']:.1%} | {row['macs_kept']:.1%} | {forms} | {row['seconds']:.0f} |"
        )
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


def _option(key: str, value: Any) -> str:
    return f"{key} {'+'.join(value) if isinstance(value, list) else value}"


def main() -> None:
    lines = [INTRODUCTION, *(line for name in TITLES for line in section(name)), *observing()]
    (HERE.parent / "docs" / "results.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
