"""The JSON files of the table of forms: one fit of one form to one layer a line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import HERE, provenance

SHARES = (0.5, 0.35, 0.25, 0.15, 0.1)
"""Of the parameters of a layer's weight, at which every form is fitted."""

NORMS = ("weights", "inputs")

POINT = ("share", "rank", "params", "macs", "weight_error", "output_error", "held_out_error")
"""What is known at one share: errors are squared norms relative to that of the weight or of the layer's output."""

FIT = ("site", "form", "variant", "norm", "seconds", "points")


@dataclass(frozen=True)
class Point:
    """One form at one share of the parameters of one layer, fitted in one norm and judged in all."""

    share: float
    rank: tuple[int, ...]
    params: int
    macs: int
    weight_error: float
    output_error: float
    held_out_error: float


@dataclass(frozen=True)
class Fitted:
    """One form fitted to one site in one norm: the arrangement that was chosen, seconds, and a point per share that a
    rank of it meets."""

    site: str
    form: str
    variant: str
    norm: str
    seconds: float
    points: tuple[Point, ...]

    def at(self, share: float) -> Point | None:
        return next((point for point in self.points if point.share == share), None)


@dataclass
class Results:
    """One network: where the figures come from, its sites, the fits, and which forms refuse which shapes and why.

    Attributes:
        sites: name -> {"label", "shape", "params" of the weight, "macs"}.
        refused: shape -> {form: reason}.
    """

    network: str
    provenance: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    fits: list[Fitted] = field(default_factory=list)

    def each(self, norm: str, share: float) -> Iterator[tuple[Fitted, Point]]:
        """The fits in one norm that have a point at a share."""
        for fitted in self.fits:
            if fitted.norm == norm and (point := fitted.at(share)) is not None:
                yield fitted, point


def path_of(network: str, folder: Path | None = None) -> Path:
    return (folder or HERE / "results") / f"forms_{network}.json"


def read(path: Path) -> Results:
    """Raises FileNotFoundError where the network has not been measured."""
    found = json.loads(path.read_text(encoding="utf-8"))
    fits = [
        Fitted(*head, points=tuple(Point(share, tuple(rank), *rest) for share, rank, *rest in points))
        for *head, points in found.pop("fits")
    ]
    return Results(found["network"], *(found[key] for key in ("provenance", "settings", "sites", "refused")), fits)


def write(path: Path, results: Results) -> None:
    """One fit a line, so that a rerun shows as lines in a diff; whole or not at all."""
    head = {key: getattr(results, key) for key in ("network", "provenance", "settings", "sites", "refused")}
    text = json.dumps(head | {"columns": {"fits": FIT, "points": POINT}}, indent=1).removesuffix("\n}")
    lines = ",\n".join(json.dumps(_plain(fitted), separators=(",", ":")) for fitted in results.fits)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(f'{text},\n "fits": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    part.replace(path)


def sourced(results: Results, seed: int) -> None:
    """Note where the fits of this run come from: one entry per commit and machine."""
    now = provenance(seed) | {"first_fit": len(results.fits)}
    same = [key for key in now if key not in ("date", "first_fit")]
    if not results.provenance or any(results.provenance[-1][key] != now[key] for key in same):
        results.provenance.append(now)


def _plain(fitted: Fitted) -> list[Any]:
    points = [[getattr(point, name) for name in POINT] for point in fitted.points]
    rounded = [[float(f"{value:.4g}") if isinstance(value, float) else value for value in point] for point in points]
    return [*(getattr(fitted, name) for name in FIT[:-1]), rounded]
