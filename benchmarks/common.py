"""What every benchmark needs: where the data is, where a figure comes from, a file to write it to."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def data_folder() -> Path:
    """POLYAD_DATA, or leave with a sentence."""
    folder = os.environ.get("POLYAD_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit("Set POLYAD_DATA to the folder with the real networks and data; this benchmark needs them.")
    return Path(folder)


def provenance(seed: int) -> dict[str, Any]:
    """Commit (POLYAD_COMMIT where files were copied without their history), versions, machine, seed, time."""
    commit = os.environ.get("POLYAD_COMMIT") or _commit()

    processor = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return {
        "commit": commit,
        "versions": {name: _version(name) for name in ("polyad", "torch", "numpy", "scipy")},
        "python": platform.python_version(),
        "machine": f"{processor or platform.processor()}, {os.cpu_count()} cores, {platform.system()}",
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(name: str, rows: list[dict[str, Any]], seed: int, out: Path | None = None) -> Path:
    """One JSON file: provenance and rows."""
    path = out or HERE / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"provenance": provenance(seed), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return path


def rows_at(path: Path) -> list[dict[str, Any]]:
    """The rows of such a file; none where it is not there."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def each_alone(name: str, measure: Callable[[str], dict[str, Any]], cases: Iterable[str], seed: int) -> None:
    """Measure every case in a process of its own, since peak memory belongs to a process; print and write the rows.

    Rows of other cases that the file holds stay, each with the commit that it was measured at. Called by a script's
    `main`: with `--one CASE` that is what it does and nothing else.
    """
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(json.dumps(measure(sys.argv[2])))
        return
    cases, commit = list(cases), provenance(seed)["commit"]
    earlier = rows_at(HERE / "results" / f"{name}.json")
    rows = {row["case"]: row for row in earlier if row["case"] not in cases}
    for case in cases:
        command = [sys.executable, sys.argv[0], "--one", case]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
        rows[case] = {"case": case, "commit": commit} | found
        sys.stdout.write(f"{rows[case]}\n")
        sys.stdout.flush()
        write(name, list(rows.values()), seed)


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "HEAD") + (" with local changes" if git("status", "--porcelain", "--", "../src") else "")


def _version(name: str) -> str:
    """Of a package; of one that is run from its files and not installed nothing is known."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
