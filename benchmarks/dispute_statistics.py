"""Correlations of what was predicted with what was measured, each with a 95 % interval from resampled candidates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 1000
TINY = 1e-9

Rows = Sequence[Mapping[str, Any]]
Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its interval, and the number of candidates or pairs that it comes from."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def spearman(x: Array, y: Array) -> float:
    """Rank correlation; 0 where all of one side are equal."""
    return _pearson(rankdata(x), rankdata(y))


def pearson_of_logs(x: Array, y: Array) -> float:
    """Linear correlation of logarithms."""
    return _pearson(np.log(np.maximum(x, TINY)), np.log(np.maximum(y, TINY)))


def _pearson(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0


def resampled(figure: Callable[[Array], float], count: int) -> Estimate:
    """A figure of the candidates with the given indices, and its interval over draws with replacement."""
    draw = np.random.default_rng(0)
    values = [figure(draw.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, (0.025, 0.975))
    return Estimate(figure(np.arange(count)), float(low), float(high), count)


def correlation(rows: Rows, norm: str, when: str, measure: str = "divergence", kind: str = "spearman") -> Estimate:
    """Of the damage that a norm predicts with what was measured, over all rows.

    Args:
        when: "before" or "after" recovery.
        measure: "divergence", "loss" or "accuracy" (points lost).
        kind: "spearman" or "pearson", the latter of logarithms.
    """
    rows = [row for row in rows if when in row]
    x = np.array([row[when]["predicted"][norm] for row in rows])
    y = np.array([row[when][measure] for row in rows])
    of = spearman if kind == "spearman" else pearson_of_logs
    return resampled(lambda at: of(x[at], y[at]), len(rows))


def within_layers(rows: Rows, norm: str, when: str) -> Estimate:
    """The mean over layers of the rank correlation inside each; layers are resampled."""
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if when in row:
            layers.setdefault(row["site"], []).append(row)
    each = [
        spearman(
            np.array([row[when]["predicted"][norm] for row in own]), np.array([row[when]["divergence"] for row in own])
        )
        for own in layers.values()
    ]
    values = np.array(each)
    return resampled(lambda at: float(values[at].mean()), len(values))


def gain_of_fit(rows: Rows, norm: str, when: str) -> tuple[Estimate, float]:
    """The geometric mean of divergence fitted in `norm` over that fitted in weights, same layer, form and rank (or same
    plan), and the share of pairs in which it is smaller."""
    pairs: dict[tuple, dict[str, float]] = {}
    for row in rows:
        if when in row:
            key = (row.get("site"), row.get("form"), row.get("share"), row.get("plan"))
            pairs.setdefault(key, {})[row["norm"]] = max(row[when]["divergence"], TINY)
    logs = np.array([np.log(pair[norm] / pair["weights"]) for pair in pairs.values() if {norm, "weights"} <= set(pair)])
    found = resampled(lambda at: float(np.exp(logs[at].mean())), len(logs))
    return found, float((logs < 0).mean())
