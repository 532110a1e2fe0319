"""A run that is killed goes on where it was with --resume, and ends in the same files as one that was not."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Polyad, Ran
from own_network import Own, write_own
from polyad.cli.unfinished import unfinished
from polyad.errors import BudgetError, notes_of
from polyad.work import Piece, key_of

KEPT = 3
"""Parts of the menu after which the run is killed."""

TOLD = re.compile(r"note: taken from (?P<folder>\S+): (?P<taken>.*); made now: (?P<made>.*)\n")
COUNTS = {"statistics": r"statistics of (\d+) layers", "menu": r"(\d+) parts of the menu", "fit": r"(\d+) fits"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


def request(own: Own, out: Path, *more: str) -> list[str]:
    chosen = [own.model, "--weights", str(own.weights), "--data", "digits", "--samples", "200", "--out", str(out)]
    return ["compress", *chosen, "--budget", "params=40%", *more]


@pytest.fixture(scope="module")
def whole(shell: Polyad, own: Own) -> Path:
    """What a run makes that nothing interrupts; its unfinished work is gone."""
    folder = own.folder / "uninterrupted"
    folder.mkdir()
    ran = shell(*request(own, folder / "small"))
    assert (ran.code, ran.err) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["small"]
    return folder / "small"


@pytest.fixture
def killed(own: Own, tmp_path: Path) -> Path:
    """The unfinished work of a run that was killed in the middle of its menu."""
    command = [str(Path(sys.executable).with_name("polyad")), *request(own, tmp_path / "small")]
    work, nowhere = tmp_path / "small.work", subprocess.DEVNULL
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere) as process:
        while process.poll() is None and len(menu(work)) < KEPT:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and [path.name for path in tmp_path.iterdir()] == [work.name]
    return work


def menu(work: Path) -> list[Path]:
    return sorted(work.glob("menu-*.safetensors"))


def told(ran: Ran) -> tuple[dict[str, int], dict[str, int]]:
    """How many pieces of each kind were taken from the earlier run, and how many were made."""
    match = TOLD.fullmatch(ran.err)
    assert ran.code == 0 and match is not None, ran.err
    taken, made = (
        {kind: int(found[1]) for kind, pattern in COUNTS.items() if (found := re.search(pattern, match[side]))}
        for side in ("taken", "made")
    )
    return taken, made


def check_same(out: Path, whole: Path) -> None:
    """The files of both are the same, and nothing lies beside the output."""
    for name in ("model.safetensors", "plan.json", "recipe.yaml"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_killed_run_goes_on(shell: Polyad, own: Own, whole: Path, killed: Path) -> None:
    out, kept = killed.with_name("small"), len(menu(killed))
    refused = shell(*request(own, out))
    assert (refused.code, refused.out, len(menu(killed))) == (2, "", kept)
    assert f"{killed} is there, the unfinished work of an earlier run: go on from it with --resume" in refused.err
    out.with_name(".small.draft-killed").mkdir()  # what a run leaves that is killed while it writes its output
    taken, made = told(shell(*request(own, out, "--resume")))
    assert taken == {"statistics": 3, "menu": kept}
    assert made["menu"] > 0 and made["fit"] > 0 and "statistics" not in made
    check_same(out, whole)


def test_damaged_pieces_are_made_again(shell: Polyad, own: Own, whole: Path, killed: Path) -> None:
    short, empty, *good = menu(killed)
    short.write_bytes(short.read_bytes()[:-1])
    empty.write_bytes(bytes(empty.stat().st_size))  # what a power failure can leave
    flipped = min(killed.glob("statistics-*.safetensors"))
    flipped.write_bytes(flipped.read_bytes()[:-1] + bytes([flipped.read_bytes()[-1] ^ 1]))
    taken, made = told(shell(*request(own, killed.with_name("small"), "--resume")))
    assert taken == {"statistics": 2, "menu": len(good)}
    assert made["statistics"] == 1
    check_same(killed.with_name("small"), whole)


def test_nothing_to_resume_just_runs(polyad: Polyad, own: Own, whole: Path, tmp_path: Path) -> None:
    taken, made = told(polyad(*request(own, tmp_path / "small", "--resume")))
    assert taken == {} and made.keys() == {"statistics", "menu", "fit"}
    check_same(tmp_path / "small", whole)


def test_a_plan_is_resumed_too(polyad: Polyad, own: Own, whole: Path, killed: Path) -> None:
    """Work is found by its content, whatever command made it."""
    kept = len(menu(killed))
    work = killed.rename(killed.with_name("plan.json.work"))
    arguments = request(own, work.with_name("plan.json"), "--resume")
    taken, made = told(polyad("plan", *arguments[1:]))
    assert taken == {"statistics": 3, "menu": kept} and made.keys() == {"menu"}
    assert [path.name for path in work.parent.iterdir()] == ["plan.json"]
    assert work.with_name("plan.json").read_text() == (whole / "plan.json").read_text()


def test_what_is_not_unfinished_work_stays(polyad: Polyad, own: Own, killed: Path) -> None:
    (killed / "notes.txt").write_text("mine")
    (killed / ".tmpi1DQA8").write_text("half of a piece, as safetensors leaves it where it is killed")
    assert polyad(*request(own, killed.with_name("small"), "--resume")).code == 0
    assert [path.name for path in killed.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("kind", "error", "stays"),
    [
        ("statistics", BudgetError("never mind"), False),
        ("statistics", OSError("disk full"), True),
        ("menu", BudgetError("out of reach, as the menu shows"), True),
    ],
)
def test_a_request_that_cannot_be_met_keeps_only_long_work(
    tmp_path: Path, kind: str, error: Exception, stays: bool
) -> None:
    with pytest.raises(type(error)) as seen, unfinished(tmp_path / "small", resume=False, quiet=True) as work:
        work.keep(key_of(kind, 1), Piece({}))
        raise error
    assert (tmp_path / "small.work").exists() == stays
    kept = f"what was finished is kept in {tmp_path / 'small.work'}: go on with the same command and --resume"
    assert notes_of(seen.value) == ([kept] if stays else [])


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        ("plan", ("--resume",), "give the --out of that run"),
        ("plan", ("--memory", "4"), "'4' is no amount of memory: write a number with its unit, such as 4GB"),
        ("plan", ("--memory", "0GB"), "'0GB' is no amount of memory"),
        ("plan", ("--memory", "100kB"), "The statistics of conv2 alone take 501.12kB, more than the 100kB"),
    ],
)
def test_refusals(polyad: Polyad, own: Own, command: str, more: tuple[str, ...], says: str) -> None:
    chosen = ("--weights", own.weights, "--data", "digits", "--budget", "params=40%")
    ran = polyad(command, own.model, *chosen, *more)
    assert (ran.code, ran.out) == (2, "") and says in ran.err and ran.err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_said_at_once(polyad: Polyad, own: Own, tmp_path: Path) -> None:
    (tmp_path / "small.work").write_text("a file")
    ran = polyad(*request(own, tmp_path / "small", "--resume"))
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err == f"polyad: {tmp_path / 'small.work'} cannot be written (Not a directory); name a folder that can.\n"
    )


def test_memory_is_in_the_recipe_and_changes_nothing_else(polyad: Polyad, own: Own, whole: Path, tmp_path: Path):
    assert polyad(*request(own, tmp_path / "small", "--memory", "6.5MB", "--quiet")).code == 0
    recipe = (tmp_path / "small" / "recipe.yaml").read_text()
    assert recipe == (whole / "recipe.yaml").read_text() + "memory: 6.5MB\n"
    again = tmp_path / "again"
    assert polyad("compress", "--recipe", tmp_path / "small" / "recipe.yaml", "--out", again, "--quiet").code == 0
    for out in (tmp_path / "small", again):
        for name in ("model.safetensors", "plan.json"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert (again / "recipe.yaml").read_text() == recipe
