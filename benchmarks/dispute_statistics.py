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


def resampled(figure: Callable[[Array], Array], count: int) -> Estimate:
    """A figure of the candidates with given indices, and its interval over draws with replacement.

    Args:
        figure: indices (draws, count) -> the figure of each draw (draws,).
        count: of the candidates.
    """
    draws = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    low, high = np.quantile(figure(draws), (0.025, 0.975))
    return Estimate(float(figure(np.arange(count)[None])[0]), float(low), float(high), count)


def pearson(x: Array, y: Array) -> Array:
    """Linear correlation along the last axis; 0 where all of one side are equal."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.where(size > 0, (x * y).sum(-1) / np.where(size > 0, size, 1), 0.0)


def scale(values: Array, kind: str) -> Array:
    """Ranks for "spearman" (given once, before draws), logarithms for "pearson"."""
    return rankdata(values) if kind == "spearman" else np.log(np.maximum(values, TINY))


def correlation(rows: Rows, norm: str, when: str, measure: str = "divergence", kind: str = "spearman") -> Estimate:
    """Of the damage that a norm predicts with what was measured, over all rows.

    Args:
        when: "before" or "after" recovery.
        measure: "divergence", "loss" or "accuracy" (points lost).
        kind: "spearman" or "pearson", the latter of logarithms.
    """
    rows = [row for row in rows if when in row]
    x = scale(np.array([row[when]["predicted"][norm] for row in rows]), kind)
    y = scale(np.array([row[when][measure] for row in rows]), kind)
    return resampled(lambda at: pearson(x[at], y[at]), len(rows))


def within_layers(rows: Rows, norm: str, when: str) -> Estimate:
    """The mean over layers of the rank correlation inside each; layers are resampled."""
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if when in row:
            layers.setdefault(row["site"], []).append(row)
    each = [
        pearson(
            rankdata([row[when]["predicted"][norm] for row in own]), rankdata([row[when]["divergence"] for row in own])
        )
        for own in layers.values()
    ]
    values = np.array(each)
    return resampled(lambda at: values[at].mean(-1), len(values))


def gain_of_fit(rows: Rows, norm: str, when: str) -> tuple[Estimate, float]:
    """The geometric mean of divergence fitted in `norm` over that fitted in weights, same layer, form and rank (or same
    plan), and the share of pairs in which it is smaller."""
    pairs: dict[tuple, dict[str, float]] = {}
    for row in rows:
        if when in row:
            key = (row.get("site"), row.get("form"), row.get("share"), row.get("plan"))
            pairs.setdefault(key, {})[row["norm"]] = max(row[when]["divergence"], TINY)
    logs = np.array([np.log(pair[norm] / pair["weights"]) for pair in pairs.values() if {norm, "weights"} <= set(pair)])
    found = resampled(lambda at: np.exp(logs[at].mean(-1)), len(logs))
    return found, float((logs < 0).mean())
