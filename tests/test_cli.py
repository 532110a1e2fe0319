"""What people type works, from the demo to the report, and machines get nothing but JSON."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from conftest import Polyad, Ran
from own_network import Own, write_own

FILES = {"README.md", "model.safetensors", "plan.json", "report.html", "report.json"}
COMMANDS = ("demo", "inspect", "plan", "compress", "evaluate", "benchmark", "report")
LISTINGS = ("forms", "allocators", "metrics", "damages", "zoo")


def parsed(ran: Ran) -> dict:
    """The JSON document on standard output; anything beside it is an error."""
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def demo(shell: Polyad, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    out = tmp_path_factory.mktemp("demo") / "small"
    return shell("demo", "--out", out, "--json"), out


@pytest.fixture(scope="module")
def small(shell: Polyad, own: Own) -> tuple[Ran, Path]:
    """A folder made of the person's own network, with every option that shapes a plan."""
    out = own.folder / "small"
    options = ("--weights", own.folder / "mynet.pth", "--data", "digits", "--budget", "params=50%", "--samples", "200")
    shape = ("--forms", "svd,tucker2", "--allocator", "uniform", "--metric", "weights", "--round-to", "2")
    chosen = ("--ignore", "conv1", "--set", "conv2=svd:8", "--recover", "none")
    return shell("compress", own.model, *options, *shape, *chosen, "--out", out, "--json"), out


def test_the_demo_compresses_without_losing_accuracy(demo: tuple[Ran, Path]) -> None:
    ran, out = demo
    found = parsed(ran)
    assert names(out) == FILES
    assert found["params"]["kept"] <= 0.3
    assert found["after"]["value"] > found["before"]["value"] - 3
    assert json.loads((out / "report.json").read_text())["after"] == found["after"]
    assert "<html" in (out / "report.html").read_text()


def test_the_demo_folder_loads_without_naming_a_model(polyad: Polyad, demo: tuple[Ran, Path]) -> None:
    found = parsed(polyad("evaluate", demo[1], "--data", "digits", "--json"))
    assert found["value"] == parsed(demo[0])["after"]["value"]


def test_inspect_lists_the_sites(polyad: Polyad, own: Own) -> None:
    ran = polyad("inspect", own.model, "--weights", own.weights, "--input", "1,8,8")
    assert ran.code == 0
    assert all(site in ran.out for site in ("conv1", "conv2", "head"))
    assert ran.out.splitlines()[-1].startswith("3 sites, 0 refused; 9,930 parameters")


def test_inspect_as_json(polyad: Polyad) -> None:
    found = parsed(polyad("inspect", "zoo:resnet20", "--json"))
    for cost in ("params", "macs", "bytes"):
        assert set(found[cost]) == {"before", "after", "kept"}
        assert found[cost]["before"] == found[cost]["after"] > 0
    assert found["params"]["before"] == 269_722
    assert {"name", "params", "macs", "forms"} <= set(found["sites"][0])
    assert isinstance(found["refused"], list)


def test_a_plan_is_edited_by_hand_and_carried_out(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    chosen = (own.model, "--weights", own.weights, "--data", "digits", "--samples", "100")
    ran = polyad("plan", *chosen, "--budget", "params=60%", "--out", tmp_path / "plan.json")
    assert ran.code == 0 and "written to" in ran.out
    plan = json.loads((tmp_path / "plan.json").read_text())
    edits = {"conv1": ("dense", []), "conv2": ("svd", [5]), "head": ("svd", [4])}
    for choice in plan["choices"]:
        choice["form"], choice["rank"] = edits[choice["site"]["name"]]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    found = parsed(polyad("compress", *chosen, "--plan", tmp_path / "plan.json", "--out", tmp_path / "small", "--json"))
    assert {site["name"]: (site["form"], site["rank"]) for site in found["sites"]} == edits
    conv1, conv2, head = 16 * 9 + 16, 5 * (16 * 9 + 32) + 32, 4 * (512 + 10) + 10
    assert found["params"]["after"] == conv1 + conv2 + head


def test_plan_without_a_file_prints_it(polyad: Polyad, own: Own) -> None:
    chosen = (own.model, "--weights", own.weights, "--data", "digits", "--samples", "50", "--forms", "svd")
    found = parsed(polyad("plan", *chosen, "--budget", "macs=70%", "--json"))
    assert {choice["site"]["name"] for choice in found["choices"]} == {"conv1", "conv2", "head"}


def test_options_shape_the_plan(small: tuple[Ran, Path]) -> None:
    found = parsed(small[0])
    assert (found["metric"], found["allocator"], found["recovery"]) == ("weights", "uniform", "none")
    assert {refusal["name"]: refusal["reason"] for refusal in found["refused"]} == {
        "conv1": "ignored on request (conv1)"
    }
    sites = {site["name"]: site for site in found["sites"]}
    assert set(sites) == {"conv2", "head"}
    assert (sites["conv2"]["form"], sites["conv2"]["rank"]) == ("svd", [8])
    assert sites["head"]["form"] in ("dense", "svd", "tucker2")
    assert all(rank % 2 == 0 for rank in sites["head"]["rank"])
    assert found["params"]["kept"] <= 0.5
    assert names(small[1]) == FILES | {"recipe.yaml"}


def test_the_saved_folder_gives_the_reported_value(polyad: Polyad, own: Own, small: tuple[Ran, Path]) -> None:
    reported = parsed(small[0])
    found = parsed(polyad("evaluate", small[1], "--model", own.model, "--data", "digits", "--json"))
    assert {key: found[key] for key in ("metric", "value", "loss", "samples")} == {
        key: reported["after"][key] for key in ("metric", "value", "loss", "samples")
    }
    dense = parsed(polyad("evaluate", own.model, "--weights", own.weights, "--data", "digits", "--json"))
    assert dense["value"] == reported["before"]["value"]


def test_a_reference_gives_the_divergence(polyad: Polyad, own: Own, small: tuple[Ran, Path]) -> None:
    original = ("--reference", own.model, "--reference-weights", own.weights)
    chosen = ("evaluate", small[1], "--model", own.model, "--data", "digits#test", *original)
    found = parsed(polyad(*chosen, "--json"))
    assert found["divergence"] == pytest.approx(parsed(small[0])["after"]["divergence"])
    ran = polyad(*chosen)
    assert ran.code == 0 and "against the reference" in ran.out and len(ran.out.splitlines()) == 1


def test_a_folder_of_ones_own_network_says_that_it_would_run_the_file(
    polyad: Polyad, own: Own, small: tuple[Ran, Path]
) -> None:
    ran = polyad("evaluate", small[1], "--data", "digits")
    assert (ran.code, ran.out) == (2, "")
    assert f"--model {own.model}" in ran.err


def test_what_is_compressed_is_not_compressed_again(polyad: Polyad, demo: tuple[Ran, Path], tmp_path: Path) -> None:
    for command in ("plan", "compress"):
        ran = polyad(command, demo[1], "--data", "digits", "--budget", "params=70%", "--out", tmp_path / "again")
        assert (ran.code, ran.out) == (2, "") and "is compressed already" in ran.err
    assert names(tmp_path) == set()


def test_benchmark_times_a_folder_against_the_dense_network(polyad: Polyad, demo: tuple[Ran, Path]) -> None:
    found = parsed(polyad("benchmark", demo[1], "--runs", "3", "--json"))
    assert set(found) == {"network", "dense"}
    assert 0 < found["network"]["p50"] <= found["network"]["p95"]
    assert found["network"]["params"] == parsed(demo[0])["params"]["after"] < found["dense"]["params"]
    ran = polyad("benchmark", demo[1], "--runs", "3", "--batch-size", "2")
    assert ran.code == 0 and "of the dense network's time" in ran.out


def test_benchmark_of_ones_own_network(polyad: Polyad, own: Own, small: tuple[Ran, Path]) -> None:
    chosen = ("--model", own.model, "--input", "1,8,8", "--runs", "3")
    found = parsed(polyad("benchmark", small[1], *chosen, "--json"))
    assert found["dense"]["params"] == parsed(small[0])["params"]["before"]


def test_report_prints_and_writes_the_page_again(polyad: Polyad, small: tuple[Ran, Path]) -> None:
    page = (small[1] / "report.html").read_text()
    (small[1] / "report.html").unlink()
    ran = polyad("report", small[1])
    assert ran.code == 0
    assert "conv2" in ran.out and "kept" in ran.out
    assert (small[1] / "report.html").read_text() == page


def test_tables_in_a_pipe_keep_a_row_on_a_line(polyad: Polyad, small: tuple[Ran, Path]) -> None:
    lines = polyad("report", small[1]).out.splitlines()
    (headline,) = [line for line in lines if " removed); accuracy" in line]
    assert headline.endswith("changed)")
    assert len([line for line in lines if line.startswith("conv2 ")]) == 1


@pytest.mark.parametrize("what", LISTINGS)
def test_listings(polyad: Polyad, what: str) -> None:
    rows = parsed(polyad(what, "--json"))
    assert rows and all({"name", "summary"} <= set(row) for row in rows)
    ran = polyad(what)
    assert ran.code == 0 and all(row["name"] in ran.out for row in rows)


@pytest.mark.parametrize("command", [*COMMANDS, *LISTINGS])
def test_help_has_an_example(polyad: Polyad, command: str) -> None:
    ran = polyad(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert command in LISTINGS or f"Example: polyad {command}" in " ".join(ran.out.split())


def test_the_version(polyad: Polyad) -> None:
    ran = polyad("--version")
    assert (ran.code, ran.out) == (0, f"polyad {version('polyad')}\n")


def test_help_does_not_wait_for_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from polyad.cli import main; sys.argv = ['polyad', 'compress', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
