"""The model card: README.md of a saved folder."""

import re
from collections.abc import Sequence

from polyad.outcome import Report
from polyad.report import wording


def model_card(report: Report) -> str:
    """What the network is, how it was made, how to load it, in Markdown."""
    parts = [
        _FRONT,
        f"# {_plain(report.model)}, compressed",
        _plain(wording.headline(report)) + ".",
        _table(("cost", "before", "after", "kept", "removed"), wording.cost_rows(report)),
    ]
    quality = wording.quality_rows(report)
    if quality:
        parts.append(_table(("quality", "before", "after", "change"), quality))
    if report.curve:
        parts.append(_table(wording.CURVE_TITLES, wording.curve_rows(report)))
    parts += [_usage(report.model), _method(report), _layers(report)]
    if report.provenance:
        parts.append("Made with " + "; ".join(f"{_plain(k)} {_plain(v)}" for k, v in report.provenance.items()) + ".")
    return "\n\n".join(parts) + "\n"


_FRONT = """---
library_name: polyad
tags: [model-compression, tensor-decomposition, pytorch]
---"""

_FILES = (
    "`plan.json` says what every layer became, `report.html` shows what that saves and costs, `model.safetensors`"
    " holds the weights. The layers are plain PyTorch layers."
)


def _usage(model: str) -> str:
    """How to load it; a network that no specification builds, or a file of one's own, is handed in."""
    known = ":" in model and ".py:" not in model
    python = 'polyad.load("FOLDER")' if known else 'polyad.load("FOLDER", model=my_network)'
    option = "" if known else f" --model {_one_line(model) if '.py:' in model else 'FILE.py:FUNCTION'}"
    lines = (
        "## Use",
        f"`FOLDER` is the folder of this file. {_FILES}",
        f"```python\nimport polyad\n\nmodel = {python}\n```",
        f"```bash\npolyad evaluate FOLDER{option} --data DATA\n```",
    )
    return "\n\n".join(lines)


def _method(report: Report) -> str:
    rule = f" ({_plain(report.rule)})" if report.rule else ""
    lines = [
        "## Method",
        f"Budget: {_plain(report.budget or wording.NONE)}. Layers were fitted in the norm `{report.metric}`,"
        f" ranks chosen by `{report.allocator}`{rule} over `{report.damage}` damage,"
        f" recovery: `{report.recovery or 'none'}`.",
    ]
    if notes := (*wording.latency_lines(report), *report.recovered):
        lines.append("\n".join(f"- {_plain(note)}" for note in notes))
    if report.refused:
        left = "\n".join(f"- {_plain(refusal.name)}: {_plain(refusal.reason)}" for refusal in report.refused)
        lines.append(f"Layers that were left as they are:\n\n{left}")
    return "\n\n".join(lines)


def _layers(report: Report) -> str:
    rows = [
        (
            site.name,
            site.form,
            wording.rank(site.rank),
            f"{wording.count(site.params_before)} → {wording.count(site.params)}",
            wording.figure(site.output_error),
            wording.figure(site.held_out_error),
        )
        for site in report.sites
    ]
    titles = ("layer", "form", "rank", "parameters", "output error, fit", "held out")
    return "## Layers\n\n" + (_table(titles, rows) if rows else "None was replaceable.")


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    rule = "| --- |" + " ---: |" * (len(titles) - 1)
    head, *body = ("| " + " | ".join(map(_plain, row)) + " |" for row in (titles, *rows))
    return "\n".join((head, rule, *body))


def _plain(text: str) -> str:
    """Text that Markdown and HTML take literally, on one line."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())
