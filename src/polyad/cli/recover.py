"""`polyad recover`: a compressed network in a new folder, with less lost."""

from pathlib import Path
from typing import Any

import yaml

from polyad.cli.compress import show, tell
from polyad.cli.console import bars
from polyad.cli.opening import Data, is_folder, open_splits, preprocessing_of
from polyad.cli.training import training_of
from polyad.cli.unfinished import unfinished
from polyad.errors import ModelError
from polyad.folders import check_writable
from polyad.models import ModelSource, open_model
from polyad.recovering import open_result, recover
from polyad.recovery.base import RECOVERIES
from polyad.saving import RECIPE, save
from polyad.training.ranks import ranks


def run(
    *,
    folder: Path,
    data: str,
    out: Path,
    level: str,
    model: str | None,
    weights: Path | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    trains, training, first = RECOVERIES[level].trains, training_of(options), ranks().first
    if first:
        check_writable(out)
    recipe = read_recipe(folder)
    source = original(folder, model, weights, recipe)
    result = open_result(folder, source.module)
    with unfinished(out if first else None, resume=resume and first, quiet=quiet or as_json) as work:
        opened = open_samples(data, source, trains=trains, **options)
        tell(source, opened, quiet or not first)
        better = recover(
            result,
            source.module,
            opened.calibration,
            level=level,
            training=training,
            learn_from=opened.training,
            evaluation=opened.evaluation if first else None,
            samples=options["samples"],
            work=work,
            progress=bars(quiet or as_json),
        )
        if first:
            save(better, out, recipe=recipe)
    if first:
        show(better.report, out, as_json, quiet)


def open_samples(
    data: str,
    source: ModelSource,
    *,
    trains: bool,
    train_samples: int | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    tokenizer: Path | None,
    **options: Any,
) -> Data:
    """The samples of a run: to calibrate and evaluate with, and to train on where the level does."""
    preprocessing = preprocessing_of(source, mean, std, size, tokenizer)
    train = (train_samples or 0) if trains else None
    return open_splits(data, None, preprocessing=preprocessing, train=train, **options)


def read_recipe(folder: Path) -> dict[str, Any]:
    """The options that made a folder, as far as they are known."""
    path = folder / RECIPE
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found if isinstance(found, dict) else {}


def original(folder: Path, model: str | None, weights: Path | None, recipe: dict[str, Any]) -> ModelSource:
    """The network that a folder was made from.

    Raises:
        ModelError: neither the folder nor the options say which it is.
    """
    if not is_folder(str(folder)):
        raise ModelError(f"{folder} is no folder that Polyad wrote; compress first, as in polyad compress --help.")
    model_of_it = model or recipe.get("model")
    if model_of_it is None:
        raise ModelError(f"{folder} does not say what it was made from: give --model, and --weights where it has them.")
    weights_of_it = weights or (recipe.get("weights") if model is None or model == recipe.get("model") else None)
    return open_model(model_of_it, weights_of_it)
