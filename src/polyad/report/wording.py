"""Numbers and sentences, the same on the page, in the terminal and on the model card."""

from collections.abc import Callable
from typing import NamedTuple

from polyad.outcome import Amount, Evaluation, Report
from polyad.records import Rank, rank_text

NONE = "–"
MINUS = "\N{MINUS SIGN}"

LARGE = 10_000
"""From here on a perplexity is written with three significant digits."""

LABELS = {"perplexity": ("perplexity (lower is better)", "loss (nats per token)")}
"""How metric and loss are called in the table, where that is not their plain name."""


class CostRow(NamedTuple):
    """A cost as it is shown."""

    name: str
    before: str
    after: str
    kept: str
    removed: str


class QualityRow(NamedTuple):
    """A figure of quality as it is shown."""

    name: str
    before: str
    after: str
    change: str


def count(number: int | None) -> str:
    """1234567 -> "1,234,567"."""
    return NONE if number is None else f"{number:,}"


def percent(share: float | None) -> str:
    """0.3 -> "30.0 %"; a share that rounds to nothing keeps three digits."""
    if share is None:
        return NONE
    value = 100 * share
    return f"{value:.3g} %" if 0 < abs(value) < 0.05 else f"{value:.1f} %"


def figure(number: float | None) -> str:
    """Three significant digits: 0.0123456 -> "0.0123", 1.2e-9 -> "1.2e-09"."""
    if number is None:
        return NONE
    if number == 0:
        return "0"
    text = f"{number:#.3g}".rstrip(".")
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def signed(number: float, digits: int = 2) -> str:
    """-1.5 -> "−1.50"; 1.5 -> "+1.50"; what rounds to nothing has no sign."""
    text = f"{abs(number):.{digits}f}"
    return text if not float(text) else ("+" if number > 0 else MINUS) + text


def size(number: int) -> str:
    """Decimal units: 1078888 -> "1.08 MB"."""
    value, units = float(number), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{number:,} bytes" if units[0] == "bytes" else f"{value:.3g} {units[0]}"


def time(nanoseconds: int) -> str:
    """1234567 -> "1.235 ms"."""
    return f"{nanoseconds / 1e6:.3f} ms"


def latency_lines(report: Report) -> list[str]:
    """Where the latency was measured, how far the prediction was off, and each solution; empty where it was not."""
    found = report.latency
    if found is None:
        return []
    text = f"latency measured on {found.bench}: {percent(found.kept)} kept"
    if found.predicted is not None and found.error is not None:
        text += f"; the table of single layers predicted {percent(found.predicted)}, {signed(100 * found.error, 1)} %"
    rounds = [
        f"latency, round {at}: predicted {time(one.predicted)}, measured {time(one.measured)}"
        for at, one in enumerate(found.rounds, 1)
    ]
    return [text, *rounds]


def rank(chosen: Rank) -> str:
    """(8, 12) -> "8x12"; a dense layer has none."""
    return rank_text(chosen) if chosen else NONE


def removed(amount: Amount) -> float:
    """The share that is gone; negative where it grew."""
    return 1 - amount.kept


def headline(report: Report) -> str:
    """The one sentence: what it cost before and after, and what happened to the quality."""
    amount = report.params
    sentence = (
        f"{report.model}: {count(amount.before)} → {count(amount.after)} parameters"
        f" ({percent(amount.kept)} kept, {percent(removed(amount))} removed)"
    )
    quality = outcome(report)
    return f"{sentence}; {quality}" if quality else sentence


def outcome(report: Report) -> str:
    """The quality half of the headline; empty where nothing was evaluated."""
    after = report.after
    if after is None:
        return ""
    change = _changes(after)
    samples = f"on {count(after.samples)} {unit_of(after)}"
    if report.before is None or after.metric == "divergence":
        text = f"{after.metric} {value_text(after)}" + (" from the original" if after.metric == "divergence" else "")
        return f"{text} {samples}" + (f" ({change})" if change else "")
    text = f"{after.metric} {value_text(report.before)} → {value_text(after)}"
    difference = difference_text(after)
    inside = ", ".join(part for part in (f"{difference} {samples}".strip(), change) if part)
    return f"{text} ({inside})"


def value_text(evaluation: Evaluation | None) -> str:
    """The metric with its unit."""
    if evaluation is None:
        return NONE
    if evaluation.metric == "perplexity":
        return f"{evaluation.value:,.3f}" if evaluation.value < LARGE else figure(evaluation.value)
    return f"{evaluation.value:.2f} %" if evaluation.metric == "accuracy" else figure(evaluation.value)


def unit_of(evaluation: Evaluation) -> str:
    """What `samples` counts."""
    return "tokens" if evaluation.metric == "perplexity" else "samples"


def difference_text(after: Evaluation) -> str:
    """The paired difference with its standard error; empty where it is not known."""
    if after.difference is None:
        return ""
    if after.metric == "accuracy":
        error = "" if after.standard_error is None else f" ± {after.standard_error:.2f}"
        return f"{signed(after.difference)}{error} points"
    error = "" if after.standard_error is None else f" ± {figure(after.standard_error)}"
    return f"{'+' if after.difference > 0 else ''}{figure(after.difference)}{error}"


def cost_rows(report: Report) -> list[CostRow]:
    """Parameters, MACs, bytes and, where they were asked for, memory and latency; before and after."""
    named: list[tuple[str, Amount, Callable[[int], str]]] = [
        ("parameters", report.params, count),
        ("MACs for one sample", report.macs, count),
        ("bytes", report.bytes, size),
    ]
    if report.memory is not None:
        named.append(("peak of activations", report.memory, size))
    if report.latency is not None:
        named.append(("latency", report.latency, time))
    return [
        CostRow(name, show(amount.before), show(amount.after), percent(amount.kept), percent(removed(amount)))
        for name, amount, show in named
    ]


CURVE_TITLES = ("cost searched", "kept", "parameters", "MACs", "lost on validation data")


def curve_rows(report: Report) -> list[tuple[str, ...]]:
    """The networks that a search for a drop has measured."""
    return [(p.unit, percent(p.share), count(p.params), count(p.macs), p.text) for p in report.curve]


CONTROL = "the original with the same recovery"


def quality_rows(report: Report) -> list[QualityRow]:
    """The metric, the loss, and what differs from the original network; empty where nothing was evaluated."""
    before, after = report.before, report.after
    if after is None and before is None:
        return []
    known = after or before
    name = known.metric  # type: ignore[union-attr]
    label, loss = LABELS.get(name, (name, "loss (nats)"))
    rows = []
    if name != "divergence":
        rows.append(QualityRow(label, value_text(before), value_text(after), difference_text(after) if after else ""))
    rows.append(QualityRow(loss, _loss(before), _loss(after), _loss_change(before, after)))
    if report.control is not None and name != "divergence":
        control = report.control
        rows.append(QualityRow(CONTROL, value_text(before), value_text(control), difference_text(control)))
    if after is not None:
        divergence = after.value if name == "divergence" else after.divergence
        rows.append(QualityRow("divergence from the original", NONE, figure(divergence), ""))
        rows.append(QualityRow("predictions changed", NONE, count(after.changed), _changed_share(after)))
    samples = [count(evaluation.samples) if evaluation else NONE for evaluation in (before, after)]
    rows.append(QualityRow(unit_of(known), samples[0], samples[1], ""))  # type: ignore[arg-type]
    return [row for row in rows if (row.before, row.after) != (NONE, NONE)]


def _loss(evaluation: Evaluation | None) -> str:
    return NONE if evaluation is None or evaluation.loss is None else f"{evaluation.loss:.4f}"


def _loss_change(before: Evaluation | None, after: Evaluation | None) -> str:
    if before is None or after is None or before.loss is None or after.loss is None:
        return ""
    return signed(after.loss - before.loss, digits=4)


def _changes(after: Evaluation) -> str:
    if after.changed is None:
        return ""
    return f"{count(after.changed)} {'prediction' if after.changed == 1 else 'predictions'} changed"


def _changed_share(after: Evaluation) -> str:
    return "" if after.changed is None or not after.samples else percent(after.changed / after.samples)
