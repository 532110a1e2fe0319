"""The full recipe: a compressed network fine-tuned on labels and the original's outputs, beside the dense control.

    POLYAD_DATA=... python benchmarks/recipe.py FOLDER... [--rates 1e-3] [--epochs 60] [--workers 2] [--work DIR]

Each FOLDER is one that `polyad compress` wrote for a network of the zoo, or a file that recovery.py kept with --starts;
`zoo:NAME` is the dense network itself, which gets the same training, so that what the recipe gains is not taken for
what the method loses. Learned from: the 20,000 JPEG images of the CIFAR-10 training set, of which an eighth judges; the
rate with the least validation figure is the result. Tests, looked at once for each network: the 10,000 JPEG and the
1,017 lossless test images. Writes results/recipe.json.
Runs on a graphics card where there is one; with --work an interrupted run goes on.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accuracy import JPEG, LOSSLESS, WEIGHTS
from common import HERE, data_folder, write
from recovery_cases import Start
from tested import DEVICE, tests_of
from torch import nn

import polyad
from polyad.batches import as_batches
from polyad.data import loader
from polyad.lessons import learn, lesson
from polyad.models import ModelSource
from polyad.progress import silent
from polyad.records import Plan
from polyad.recovering import open_result
from polyad.settings import Training
from polyad.work import Work

SEED = 0
DENSE = "zoo:"

Job = tuple[str, str, Training, Path | None]
"""Folder or dense network, level, how, folder for checkpoints."""


def opened(place: str) -> tuple[ModelSource, nn.Module, Plan | None]:
    """The original with its weights, the network to train, and the plan that it was made by."""
    if place.startswith(DENSE):
        name, student, plan = place.removeprefix(DENSE), None, None
    elif place.endswith(".pt"):
        start: Start = torch.load(place, map_location="cpu", weights_only=False)
        name, student, plan = Path(place).name.split("-")[0], start.refitted[0], start.plan
    else:
        result = open_result(place)
        name, student, plan = result.plan.model.removeprefix(DENSE), result.model, result.plan
    source = polyad.open_model(f"{DENSE}{name}", data_folder() / WEIGHTS[name])
    return source, deepcopy(source.module) if student is None else student, plan


def measure(job: Job) -> dict[str, Any]:
    """Train once; validation figures and what is lost on the tests, before and after."""
    place, level, training, checkpoints = job
    torch.set_num_threads(1)
    source, student, plan = opened(place)
    (images,) = polyad.open_data(f"npz:{data_folder() / JPEG[0]}", source.preprocessing).splits.values()
    learn_from = as_batches(loader(images, 1000))
    tests = tests_of(source, {"lossless": LOSSLESS[1], "jpeg": JPEG[1]})
    teacher, student = source.module.to(DEVICE), student.to(DEVICE)
    before = {name: test(student) for name, test in tests.items()}
    plan = plan or Plan(metric="", allocator="", budget="", choices=(), params_before=0, macs_before=0)
    start = perf_counter()
    calibration = ([learn_from[0]], [learn_from[-1]])
    more: dict[str, Any] = {"training": training, "learn_from": learn_from, "work": Work(checkpoints)}
    notes = learn(lesson(student, teacher, plan, calibration, **more, progress=silent), level)
    seconds = perf_counter() - start
    return {
        "network": Path(place).stem, "level": level, "rate": training.rate, "epochs": training.epochs,
        "norms": training.norms, "batch": training.batch, "precision": training.precision,
        "device": DEVICE, "seconds": round(seconds, 1),
        "images_a_second": round(training.epochs * 17500 / seconds) if training.epochs else None,
        "notes": notes, "before": before, "after": {name: test(student) for name, test in tests.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="FOLDER")
    parser.add_argument("--level", default="finetune")
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3])
    parser.add_argument("--norms", nargs="+", default=["frozen"])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--minutes", type=float, help="that end it, whatever the epochs")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--work", type=Path, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "results/recipe.json")
    a = parser.parse_args()
    limits = {"epochs": a.epochs, "time": a.minutes and 60 * a.minutes, "batch": a.batch, "precision": a.precision}
    how = Training(**limits, match="logits", optimizer="adamw", seed=SEED)
    ways = [how.model_copy(update={"norms": norms, "rate": rate}) for norms in a.norms for rate in a.rates]
    jobs = [(place, a.level, way, a.work) for place in a.places for way in ways]
    rows = []
    with ProcessPoolExecutor(a.workers, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(measure, job) for job in jobs]):
            rows.append(job.result())
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
            write("recipe", rows, SEED, a.out)


if __name__ == "__main__":
    main()
