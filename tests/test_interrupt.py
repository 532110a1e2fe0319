"""Ctrl-C at any moment leaves with code 130, one sentence, and on disk nothing but finished work to go on from."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Polyad

SLOW = """
import time
from pathlib import Path
import torch
from torch import nn


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 10))

    def forward(self, x):
        Path(__file__).with_name("running").touch()
        time.sleep(0.5)
        return self.body(x)
"""


def request(folder: Path) -> list[str]:
    chosen = ["--data", "digits", "--budget", "params=50%", "--batch-size", "1", "--out", str(folder / "small")]
    return ["compress", f"{folder / 'slow.py'}:Slow", *chosen]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__", "slow.py", "running"}


def test_while_the_network_runs(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    command = [str(Path(sys.executable).with_name("polyad")), *request(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "running").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "polyad: interrupted; nothing was left behind\n")
    assert left(tmp_path) == set()


@pytest.mark.parametrize("moment", ["save_network", "write_report", "model_card"])
def test_while_the_folder_is_written(
    polyad: Polyad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"polyad.saving.{moment}", interrupt)
    (tmp_path / "slow.py").write_text(SLOW.replace("time.sleep(0.5)", "pass"))
    arguments = request(tmp_path)
    arguments[arguments.index("--batch-size") + 1] = "100"
    ran = polyad(*arguments, "--samples", "20", "--quiet")
    kept = f"what was finished is kept in {tmp_path / 'small.work'}: go on with the same command and --resume"
    assert (ran.code, ran.out, ran.err) == (130, "", f"polyad: interrupted; {kept}\n")
    assert left(tmp_path) == {"small.work"}


def test_a_failure_leaves_code_1_and_its_trace(polyad: Polyad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("polyad.saving.model_card", fail)
    (tmp_path / "slow.py").write_text(SLOW.replace("time.sleep(0.5)", "pass"))
    arguments = request(tmp_path)
    arguments[arguments.index("--batch-size") + 1] = "100"
    ran = polyad(*arguments, "--samples", "20", "--quiet")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1] == "polyad: failed: disk full" and "go on with the same command" in ran.err
    assert left(tmp_path) == {"small.work"}
    monkeypatch.undo()
    assert polyad(*arguments, "--samples", "20", "--quiet", "--resume").code == 0
    assert left(tmp_path) == {"small"}
