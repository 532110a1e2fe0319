"""`polyad recover` and `compress --recover` with levels that train: killed, resumed, several processes, refused."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import polyad
from conftest import Polyad
from own_network import Own, write_own
from polyad.errors import PolyadError, UnknownNameError
from polyad.models import build_model
from polyad.training.ranks import Ranks
from polyad.weights import load_weights

TRAINING = ("--level", "distillation", "--epochs", "6", "--train-batch", "32", "--rate", "3e-4")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    return write_own(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def small(own: Own, shell: Polyad) -> Path:
    """A compressed network that has something to win back."""
    out = own.folder / "small"
    options = ("--budget", "params=30%", "--forms", "svd", "--damage", "relative", "--samples", "100")
    ran = shell("compress", own.model, "--weights", own.weights, "--data", "digits", *options, "--out", out)
    assert ran.code == 0, ran.err
    return out


def request(own: Own, small: Path, out: Path, *more: str | Path) -> list[str | Path]:
    return ["recover", small, "--model", own.model, "--weights", own.weights, "--data", "digits", "--out", out, *more]


@pytest.fixture(scope="module")
def better(own: Own, small: Path, shell: Polyad) -> Path:
    """What an unbroken run makes of it."""
    out = own.folder / "better"
    ran = shell(*request(own, small, out, *TRAINING))
    assert (ran.code, ran.err) == (0, ""), ran.err
    return out


def test_the_network_gets_better_and_the_plan_stays(own: Own, small: Path, better: Path) -> None:
    before, after = (polyad.open_result(folder, build_model(own.model)) for folder in (small, better))
    assert after.plan == before.plan
    assert before.report.after and after.report.after and after.report.before == before.report.before
    assert after.report.after.divergence < 0.9 * before.report.after.divergence  # type: ignore[operator]
    assert (after.report.params, after.report.macs) == (before.report.params, before.report.macs)
    assert after.report.recovery == "statistics, distillation"
    assert after.report.recovered[-1].startswith("distillation: 6 epochs in ")
    assert [path.name for path in better.parent.glob("better*")] == ["better"]


@pytest.mark.parametrize("moment", [0.1, 0.6])
def test_a_killed_run_goes_on_to_the_same_weights(
    own: Own, small: Path, better: Path, tmp_path: Path, polyad: Polyad, moment: float
) -> None:
    out, work = tmp_path / "again", tmp_path / "again.work"
    command = [sys.executable, "-m", "polyad", *map(str, request(own, small, out, *TRAINING, "--checkpoint", "0.001s"))]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(work.glob("training-*.safetensors")):
            time.sleep(0.002)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not out.exists()
    ran = polyad(*request(own, small, out, *TRAINING, "--resume"))
    assert ran.code == 0 and "1 checkpoints of a training" in ran.err.partition("made now")[0]
    assert (out / "model.safetensors").read_bytes() == (better / "model.safetensors").read_bytes()
    assert not work.exists()


def together(*request: str | Path) -> tuple[list[str], dict[str, str]]:
    """The command and environment of two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "polyad"]
    return [*launch, *map(str, request)], os.environ | {"OMP_NUM_THREADS": "1"}


def check_close(out: Path, better: Path) -> None:
    one, two = (load_file(folder / "model.safetensors") for folder in (better, out))
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def test_two_processes_do_what_one_does(own: Own, small: Path, better: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    command, environment = together(*request(own, small, tmp_path / "out", *TRAINING))
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("written to") == 1
    check_close(tmp_path / "out", better)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_process_goes_on_where_two_were_killed(
    own: Own, small: Path, better: Path, tmp_path: Path, polyad: Polyad
) -> None:
    pytest.importorskip("accelerate")
    arguments = request(own, small, tmp_path / "out", *TRAINING)
    command = [sys.executable, "-m", "polyad", *map(str, arguments), "--checkpoint", "0.001s"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    environment = os.environ | group | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env=environment | {"RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.DEVNULL)
        for rank in ("0", "1")
    ]
    while processes[0].poll() is None and not list((tmp_path / "out.work").glob("training-*.safetensors")):
        time.sleep(0.002)
    for process in processes:
        process.kill()
        process.wait()
    assert not (tmp_path / "out").exists()
    ran = polyad(*arguments, "--resume")
    assert ran.code == 0 and "1 checkpoints of a training" in ran.err.partition("made now")[0]
    check_close(tmp_path / "out", better)


def test_several_processes_do_not_compress(own: Own, polyad: Polyad, tmp_path: Path, monkeypatch) -> None:  # noqa: ANN001
    monkeypatch.setattr("polyad.cli.compress.ranks", lambda: Ranks(0, 2))
    ran = polyad("compress", own.model, "--data", "digits", "--budget", "params=50%", "--out", tmp_path / "out")
    assert ran.code == 2 and "then start polyad recover in all" in ran.err


def test_compress_trains_as_well(own: Own, polyad: Polyad, tmp_path: Path) -> None:
    options = ("--budget", "params=30%", "--forms", "svd", "--damage", "relative", "--samples", "100", "--epochs", "3")
    arguments = ("compress", own.model, "--weights", own.weights, "--data", "digits", *options, "--recover", "finetune")
    more = ("--training", "labels=0.2", "--training", "features=0.5", "--training", "accumulate=2", "--quiet")
    ran = polyad(*arguments, "--out", tmp_path / "small", "--json", "--train-samples", "400", *more)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["recovered"][-1].startswith("finetune: 3 epochs in ") and "validation loss" in found["recovered"][-1]
    recipe = (tmp_path / "small" / "recipe.yaml").read_text()
    assert "training:\n- labels=0.2\n- features=0.5\n- accumulate=2\n" in recipe
    assert "epochs: 3\n" in recipe and "train_samples: 400\n" in recipe and "dense_control" not in recipe


def test_a_dense_control_is_reported(own: Own, small: Path, polyad: Polyad, tmp_path: Path) -> None:
    more = ("--level", "finetune", "--epochs", "1", "--dense-control", "--train-samples", "200")
    ran = polyad(*request(own, small, tmp_path / "out", *more))
    assert ran.code == 0, ran.err
    assert "the original with the same recovery" in ran.out
    assert "the original with the same recovery" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--level", "distilation"), "There is no recovery level 'distilation'"),
        (("--time", "20"), "--time '20' is no time: write a number with its unit, such as 90s, 20m or 1h"),
        (("--time", "0m"), "--time '0m' is no time"),
        (("--precision", "half"), "There is no precision 'half' of a training. Known: float32, bfloat16"),
        (("--rate", "-1"), "rate=-1.0 of a training is no positive number"),
        (("--augment", "cutout"), "There is no augment 'cutout'"),
        (("--training", "momentum=1"), "--training 'momentum=1' is no NAME=VALUE of a training. Names: epochs, time, "),
        (("--training", "labels"), "--training 'labels' is no NAME=VALUE"),
        (("--training", "labels=half"), "--training labels=half: input should be a valid number"),
        (("--training", "labels=2"), "labels=2.0 of a training is no share"),
        (("--rate", "1e-3", "--training", "rate=1e-4"), "--training rate=1e-4 says again what is 0.001 already"),
    ],
)
def test_refusals(own: Own, small: Path, polyad: Polyad, tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    ran = polyad(*request(own, small, tmp_path / "out", *more))
    assert (ran.code, ran.out) == (2, "") and says in ran.err
    assert not list(tmp_path.iterdir())


def test_what_is_no_folder_of_ours_is_refused(own: Own, small: Path, polyad: Polyad, tmp_path: Path) -> None:
    ran = polyad(*request(own, own.folder, tmp_path / "out"))
    assert ran.code == 2 and "is no folder that Polyad wrote" in ran.err
    ran = polyad("recover", small, "--data", "digits", "--model", "zoo:digits_cnn", "--out", tmp_path / "out")
    assert ran.code == 2 and "which DigitsCNN does not have" in ran.err


def test_auto_climbs_within_its_time(own: Own, small: Path, polyad: Polyad, tmp_path: Path) -> None:
    ran = polyad(*request(own, small, tmp_path / "out", "--time", "4s", "--json"))
    assert ran.code == 0, ran.err
    notes = json.loads(ran.out)["recovered"]
    assert any(note.startswith("refit: ") for note in notes) and any(
        note.startswith("distillation: ") for note in notes
    )


def test_in_python(own: Own, small: Path) -> None:
    model = build_model(own.model)
    load_weights(model, own.weights)
    data = polyad.open_data("digits").splits["train"]
    images = torch.stack([data[at][0] for at in range(300)])
    result = polyad.open_result(small, model)
    before = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
    options = polyad.Training(epochs=2, batch=32, rate=1e-3)
    found = polyad.recover(result, model, images, level="distillation", training=options)
    assert found.report.after is None and found.plan == result.plan
    assert all(torch.equal(before[name], tensor) for name, tensor in result.model.state_dict().items())
    again = polyad.recover(result, model, images, level="distillation", training=options)
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), again.model.parameters()))
    with pytest.raises(UnknownNameError):
        polyad.recover(result, model, images, level="nothing")
    with pytest.raises(PolyadError, match="One sample"):
        polyad.recover(result, model, images[:1])
