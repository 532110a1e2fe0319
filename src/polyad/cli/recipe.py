"""`--recipe FILE.yaml`: a file's values stand in for options that the command line leaves out."""

from pathlib import Path
from typing import Any

import typer
import yaml

from polyad.errors import PolyadError

KEYS = {
    "model": "model",
    "weights": "weights",
    "data": "data",
    "calibration": "calibration",
    "budget": "budget",
    "plan": "plan",
    "forms": "forms",
    "plugin": "plugin",
    "metric": "metric",
    "damage": "damage",
    "allocator": "allocator",
    "floor": "floor",
    "finalists": "finalists",
    "narrow": "narrow",
    "recover": "recover",
    "samples": "samples",
    "round_to": "round_to",
    "ignore": "ignore",
    "set": "fixed",
    "stack": "stack",
    "split": "split",
    "mean": "mean",
    "std": "std",
    "size": "size",
    "tokenizer": "tokenizer",
    "batch_size": "batch_size",
    "seed": "seed",
    "time": "time",
    "epochs": "epochs",
    "train_samples": "train_samples",
    "train_batch": "train_batch",
    "rate": "rate",
    "precision": "precision",
    "augment": "augment",
    "blocks": "blocks",
    "dense_control": "dense_control",
    "training": "training",
    "runtime": "runtime",
    "threads": "threads",
    "latency_batch": "latency_batch",
    "memory": "memory",
}
"""What a recipe may hold -> the parameter of the command."""

DECIDED = (
    "budget",
    "forms",
    "round_to",
    "allocator",
    "floor",
    "finalists",
    "narrow",
    "metric",
    "damage",
    "ignore",
    "fixed",
    "split",
    "stack",
)
"""What a plan has decided already."""


def defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Put the values of a recipe where the command looks for what was not given.

    Raises:
        PolyadError: the file cannot be read, or holds something else than a recipe.
    """
    if path is not None:
        known = {parameter.name: parameter for parameter in context.command.params}
        found = {
            name: as_option(key, value, several=bool(getattr(known[name], "multiple", False)), file=path)
            for key, value in _read(path).items()
            if value is not None and (name := KEYS[key]) in known
        }
        context.default_map = dict(context.default_map or {}) | found
    return path


def settle_plan(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a run: a plan that is given takes the place of the recipe's budget, and a budget that of its plan.

    Raises:
        PolyadError: an option was given that a plan, given too, has decided.
    """
    given = {name for name in options if _from_command_line(context, name)}
    if options["plan"] is None:
        return options
    if "budget" in given and "plan" not in given:
        return options | {"plan": None}
    blocked = [name for name in DECIDED if name in given and name != "budget"]
    if blocked:
        names = ", ".join(f"--{'set' if name == 'fixed' else name.replace('_', '-')}" for name in blocked)
        raise PolyadError(f"--plan has decided already, so {names} would do nothing: leave it out, or edit the plan.")
    dropped = dict.fromkeys(
        (name for name in ("budget", "forms", "floor", "ignore", "fixed", "split", "stack") if name not in given), None
    )
    return options | dropped


def written(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a run as a recipe holds them, without those that were not given."""
    found = {key: options.get(name) for key, name in KEYS.items()}
    return {key: _plain(value) for key, value in found.items() if value not in (None, [], False)}


def _plain(value: Any) -> Any:
    """Paths as text, those of a list too."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _from_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise PolyadError(f"The recipe {path} is not there or not readable.") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise PolyadError(f"The recipe {path} is not YAML: {getattr(error, 'problem', error)}, line {line}.") from None
    if not isinstance(found, dict):
        raise PolyadError(f"The recipe {path} holds no names with values: write lines such as data: digits.")
    found = {str(key).replace("-", "_"): value for key, value in found.items()}
    if unknown := [key for key in found if key not in KEYS]:
        raise PolyadError(f"The recipe {path} has the unknown key {unknown[0]!r}; known: {', '.join(KEYS)}.")
    return found


def as_option(key: str, value: Any, *, several: bool = False, file: Path | None = None) -> Any:
    """A value as it would be written on the command line; a list is several options, or one joined by commas."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, (list, dict)) for one in values):
        raise PolyadError(f"The recipe {file} has something nested under {key!r}: write a value or a list of values.")
    texts = [str(one) for one in values]
    return texts if several else ",".join(texts)
