"""The dispute over norms: its figures are those of scipy, its predictions those of the norms, its page those of its
files."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from polyad.batches import Batch
from polyad.observe import observe
from polyad.trace import trace

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not beside the tests")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import dispute_candidates
        import dispute_page
        import dispute_statistics

        yield SimpleNamespace(candidates=dispute_candidates, page=dispute_page, statistics=dispute_statistics)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def rows(norms: tuple[str, ...], shift: float = 1.0) -> list[dict[str, Any]]:
    draw, found = np.random.default_rng(0), []
    for number in range(30):
        for norm in norms:
            damage = float(draw.uniform(0.01, 1)) * (1 if norm == "weights" else shift)
            predicted = {name: damage if name == norm else float(draw.uniform()) for name in norms}
            found.append({"plan": number, "norm": norm, "before": {"predicted": predicted, "divergence": damage}})
    return found


def test_correlations_are_those_of_scipy_and_intervals_hold_them(bench: Any) -> None:
    own = rows(("weights", "inputs"))
    found = bench.statistics.correlation(own, "weights", "before")
    x = [row["before"]["predicted"]["weights"] for row in own]
    y = [row["before"]["divergence"] for row in own]
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.value < found.high and found.count == 60
    assert bench.statistics.correlation(own, "weights", "before") == found
    perfect = [row for row in own if row["norm"] == "inputs"]
    assert bench.statistics.correlation(perfect, "inputs", "before", kind="pearson").low == pytest.approx(1)


def test_a_fit_that_halves_the_damage_is_seen_to(bench: Any) -> None:
    pairs = rows(("weights", "inputs"))
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        other["before"]["divergence"] = one["before"]["divergence"] / 2
    found, wins = bench.statistics.gain_of_fit(pairs, "inputs", "before")
    assert found.value == pytest.approx(0.5) and wins == 1 and found.low == pytest.approx(found.high)


def test_each_norm_finds_its_own_fits_the_best(bench: Any) -> None:
    """At the same form and rank, on the inputs of the fit."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 6)).eval()
    x = torch.randn(400, 24) @ torch.randn(24, 24)
    data = [Batch((x,))]
    found = trace(model, data[0])
    statistics = observe(model, found.sites, data, data, curvature=True)
    site = found.sites[0]
    ours = list(bench.candidates.fitted(model, site, statistics[site.name]))
    assert {one.norm for one in ours} == set(bench.candidates.NORMS)
    for form, share in {(one.form, one.share) for one in ours if one.form == "svd"}:
        same = {one.norm: one for one in ours if (one.form, one.share) == (form, share)}
        assert len({one.rank for one in same.values()}) == 1
        for norm in ("weights", "inputs"):
            best = min(same.values(), key=lambda one: one.after[norm]).after[norm]
            assert same[norm].after[norm] <= best * 1.01


def test_the_page_is_that_of_its_files(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not list(RESULTS.glob("dispute_*.json")):
        pytest.skip("there are no results of the dispute")
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "results").symlink_to(RESULTS)
    monkeypatch.setattr(bench.page, "HERE", tmp_path / "benchmarks")
    bench.page.write_page()
    for name in ("which-norm.md", "which-norm.svg"):
        assert (tmp_path / "docs" / name).read_text() == (ROOT / "docs" / name).read_text()
    for file in RESULTS.glob("dispute_*.json"):
        assert {"commit", "versions", "machine", "seed"} <= json.loads(file.read_text())["provenance"].keys()
