"""The table of forms: the benchmark runs on a tiny network, and the page says what its file says."""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from polyad.batches import Batch
from polyad.trace import trace

ROOT = Path(__file__).parents[1]
FORMS = ["cp", "svd", "tr_matrix"]
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not beside the tests")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The scripts of the benchmark, which import each other by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import forms
        import forms_file
        import forms_page
        import forms_summary

        yield SimpleNamespace(forms=forms, file=forms_file, page=forms_page, summary=forms_summary)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def folder(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers measured, as if they were those of ResNet-20; the second one after an interruption."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False)).eval()
    batches = [Batch((torch.randn(10, 4, 9, 9),)) for _ in range(2)]
    sites = trace(model, batches[0]).sites
    path = bench.file.path_of("resnet20", tmp_path_factory.mktemp("results"))
    for count in (1, 2):
        results = bench.file.read(path) if path.exists() else bench.file.Results("resnet20")
        results.settings = {"steps": bench.forms.STEPS}
        opened = (SimpleNamespace(module=model), batches)
        bench.forms.measure(results, opened, sites[:count], FORMS, lambda now: bench.file.write(path, now))
    return path.parent


def test_the_file_holds_what_the_page_needs(bench: Any, folder: Path) -> None:
    found = bench.file.read(bench.file.path_of("resnet20", folder))
    assert list(found.sites) == ["0", "2"]
    assert {site["shape"] for site in found.sites.values()} == {"8x4x3x3", "8x8x3x3"}
    assert found.provenance and found.provenance[0]["commit"]
    assert "matrix" in found.refused["8x8x3x3"]["tr_matrix"]
    assert {(fit.site, fit.form, fit.norm) for fit in found.fits} == {
        (site, form, norm) for site in ("0", "2") for form in ("cp", "svd") for norm in bench.file.NORMS
    }


def test_errors_are_judged_in_every_norm(bench: Any, folder: Path) -> None:
    """Each fit is the better one in its own norm, and no rank exceeds its share."""
    found = bench.file.read(bench.file.path_of("resnet20", folder))
    fits = {(fit.site, fit.form, fit.norm): fit for fit in found.fits}
    for (site, form, norm), fit in fits.items():
        for point in fit.points:
            assert point.params <= point.share * found.sites[site]["params"]
            assert point.macs > 0 and point.held_out_error > 0
            other = fits[site, form, "weights"].at(point.share)
            if norm == "inputs" and other.rank == point.rank:
                assert point.output_error <= other.output_error * 1.001
                assert point.weight_error >= other.weight_error * 0.999


def test_the_tables_say_what_the_file_says(bench: Any, folder: Path) -> None:
    page = bench.page.Page(folder)
    fits = bench.file.read(bench.file.path_of("resnet20", folder)).fits
    for form in ("cp", "svd"):
        cells = []
        for norm in bench.file.NORMS:
            points = [fit.at(0.25) for fit in fits if (fit.form, fit.norm) == (form, norm)]
            assert len(points) == 2
            cells.append(bench.page.short(median(point.held_out_error if point else 1.0 for point in points)))
        row = next(line for line in page.medians("resnet20").splitlines() if line.startswith(f"| {form} |"))
        assert row.split("|")[4].replace("*", "").split() == [cells[0], "/", cells[1]]
    assert page.figure().count("<polyline") == 2 * 2  # forms, norms


def test_the_committed_page_is_up_to_date(bench: Any) -> None:
    page = bench.page.Page()
    if not page.main:
        pytest.skip("no results yet")
    assert (ROOT / "docs" / "forms-compared.md").read_text(encoding="utf-8") == page.render()
    assert (ROOT / "docs" / "forms_error.svg").read_text(encoding="utf-8") == page.figure()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_imports_what_is_there(path: Path) -> None:
    """They run seldom, and a name that has moved would show only then."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "polyad":
            home = import_module(node.module or "")
            for name in (alias.name for alias in node.names):
                assert hasattr(home, name) or import_module(f"{node.module}.{name}"), f"{node.module}.{name}"
