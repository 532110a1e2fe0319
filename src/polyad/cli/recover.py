"""`polyad recover`: a compressed network in a new folder, with less lost."""

from pathlib import Path
from typing import Any

import yaml

from polyad.cli.compress import summary, tell
from polyad.cli.console import bars, console, print_json, say
from polyad.cli.opening import is_folder, open_splits, preprocessing_of
from polyad.cli.training import training_of
from polyad.cli.unfinished import unfinished
from polyad.errors import ModelError
from polyad.folders import check_writable
from polyad.models import ModelSource, open_model
from polyad.outcome import Report
from polyad.recovering import open_result, recover
from polyad.recovery.base import RECOVERIES
from polyad.report import print_report
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
    samples: int,
    batch_size: int,
    resume: bool,
    as_json: bool,
    quiet: bool,
    train_samples: int | None,
    **options: Any,
) -> None:
    found = RECOVERIES[level]
    training = training_of(options)
    first = ranks().first
    if first:
        check_writable(out)
    recipe = read_recipe(folder)
    source = original(folder, model, weights, recipe)
    result = open_result(folder, source.module)
    with unfinished(out if first else None, resume=resume and first, quiet=quiet or as_json) as work:
        opened = open_splits(
            data,
            None,
            preprocessing=preprocessing_of(
                source, options["mean"], options["std"], options["size"], options["tokenizer"]
            ),
            samples=samples,
            seed=options["seed"],
            batch_size=batch_size,
            train=(train_samples or 0) if found.trains else None,
        )
        if first:
            tell(source, opened, quiet)
        better = recover(
            result,
            source.module,
            opened.calibration,
            level=level,
            training=training,
            learn_from=opened.training,
            evaluation=opened.evaluation if first else None,
            samples=samples,
            work=work,
            progress=bars(quiet or as_json),
        )
        if first:
            save(better, out, recipe=recipe)
    if first:
        show(better.report, out, as_json, quiet)


def show(report: Report, out: Path, as_json: bool, quiet: bool) -> None:
    """What was made, for machines or for people."""
    if as_json:
        print_json(summary(report))
    elif not quiet:
        print_report(report, console)
        say(f"written to {out}; open {out / 'report.html'}")


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
