"""`polyad compress`: a smaller network in a new folder."""

from pathlib import Path
from typing import Any

from polyad.budget import Budget
from polyad.checkpoint import read_plan
from polyad.cli.console import bars, console, note, print_json, say
from polyad.cli.opening import Data, chosen_settings, is_folder, open_network, open_splits, preprocessing_of
from polyad.cli.recipe import written
from polyad.cli.training import training_of
from polyad.cli.unfinished import unfinished
from polyad.errors import BudgetError, ModelError, PolyadError
from polyad.folders import check_writable
from polyad.models import ModelSource
from polyad.outcome import Report
from polyad.pipeline import compress
from polyad.recovery.base import RECOVERIES
from polyad.report import print_report
from polyad.saving import save
from polyad.settings import Settings
from polyad.training.ranks import ranks


def run(
    *,
    out: Path,
    budget: list[str] | None,
    plan: Path | None,
    resume: bool,
    plugin: list[Path] | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    if bool(budget) == bool(plan):
        raise BudgetError("Say what to keep, as in --budget params=50%, or give --plan FILE: one of the two.")
    said = options | {"budget": budget, "plan": plan, "plugin": plugin}
    training = training_of(options)
    _check_alone()
    wanted = Budget.parse(budget) if budget else None
    given = read_plan(plan) if plan else None
    check_writable(out)
    with unfinished(out, resume=resume, quiet=quiet or as_json) as work:
        measured = wanted is not None and wanted.drop is not None
        source, data, settings = open_run(**options, validate=measured, training=training)
        tell(source, data, quiet)
        result = compress(
            source.module,
            data.calibration,
            budget=wanted,
            plan=given,
            evaluation=data.evaluation,
            validation=data.validation,
            learn_from=data.training,
            source=source.spec,
            work=work,
            progress=bars(quiet or as_json),
            **dict(settings),
        )
        save(result, out, recipe=written(said))
    show(result.report, out, as_json, quiet)


def _check_alone() -> None:
    if ranks().count > 1:
        raise PolyadError("Several processes can share a recovery: compress in one, then start polyad recover in all.")


def show(report: Report, out: Path, as_json: bool, quiet: bool) -> None:
    """What was made, for machines or for people."""
    if as_json:
        print_json(summary(report))
    elif not quiet:
        print_report(report, console)
        say(f"written to {out}; open {out / 'report.html'}")


def open_run(
    *,
    model: str,
    weights: Path | None,
    data: str,
    calibration: str | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    tokenizer: Path | None,
    batch_size: int,
    validate: bool = False,
    train_samples: int | None = None,
    **settings: Any,
) -> tuple[ModelSource, Data, Settings]:
    """Network, data and settings of a run; names are checked before anything is computed."""
    chosen = chosen_settings(**settings)
    if is_folder(model):  # its plan would name layers that the original architecture does not have
        raise ModelError(f"{model} is compressed already: compress what it was made from, with a smaller budget.")
    source = open_network(model, weights)
    preprocessing = preprocessing_of(source, mean, std, size, tokenizer)
    splits = open_splits(
        data,
        calibration,
        preprocessing=preprocessing,
        samples=chosen.samples,
        seed=chosen.seed,
        batch_size=batch_size,
        validate=validate,
        train=(train_samples or 0) if RECOVERIES[chosen.recover].trains else None,
    )
    return source, splits, chosen


def tell(source: ModelSource, data: Data, quiet: bool) -> None:
    """What a person should know: figures of random weights mean nothing; what was left out of the data."""
    for text in data.notes:
        note(text, quiet)
    if not source.trained:
        note(f"{source.spec} has random weights here; give --weights FILE for trained ones", quiet)


def summary(report: Report) -> dict[str, Any]:
    """What --json prints."""
    found = report.model_dump(
        include={"model", "budget", "metric", "damage", "allocator", "recovery", "sites", "refused"}
    )
    for name in ("params", "macs", "bytes", "memory"):
        if (amount := getattr(report, name)) is not None:
            found[name] = amount.model_dump() | {"kept": amount.kept}
    if (latency := report.latency) is not None:
        found["latency"] = latency.model_dump() | {"kept": latency.kept, "error": latency.error, "unit": "ns"}
    found |= report.model_dump(include={"before", "after", "control", "curve", "recovered", "seconds", "provenance"})
    return found
