"""What the options of recovery levels that train come to."""

import re
from typing import Any

from pydantic import ValidationError

from polyad.errors import PolyadError
from polyad.settings import Training

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

NAMES = {"train_batch": "batch"}
"""Options that are called otherwise than the field of `Training`."""

FURTHER = "training"
"""The option that takes any of its fields as NAME=VALUE."""

OPTIONS = ("time", "epochs", "train_batch", "rate", "precision", "augment", "checkpoint", "blocks", "dense_control")


def training_of(options: dict[str, Any]) -> Training:
    """The training that options ask for, which are taken out of `options`; where they say nothing, the usual one."""
    given = {NAMES.get(name, name): options.pop(name) for name in OPTIONS}
    for name in ("time", "checkpoint"):
        if given[name] is not None:
            given[name] = seconds(name, given[name])
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    for name, value in map(_named, options.pop(FURTHER) or ()):
        if name in given:
            raise PolyadError(f"--{FURTHER} {name}={value} says again what is {given[name]} already: leave one out.")
        given[name] = value
    try:
        return Training(**({"seed": options["seed"]} | given))
    except ValidationError as error:
        wrong = error.errors()[0]
        name = wrong["loc"][0]
        raise PolyadError(f"--{FURTHER} {name}={wrong['input']}: {wrong['msg'].lower()}.") from None


def _named(text: str) -> tuple[str, Any]:
    """ "labels=0.3" -> a field and its value, which `Training` reads as a number where it has to be one.

    Raises:
        PolyadError: there is no such field.
    """
    name, _, value = (part.strip() for part in text.partition("="))
    if name not in Training.model_fields or not value:
        known = ", ".join(Training.model_fields)
        raise PolyadError(f"--{FURTHER} {text!r} is no NAME=VALUE of a training. Names: {known}.")
    if name in ("time", "checkpoint"):
        return name, seconds(name, value)
    return name, None if value == "none" else value


def seconds(option: str, text: str) -> float:
    """ "90s", "20m", "1.5h" -> seconds.

    Raises:
        PolyadError: it is no time, or none at all.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text)
    found = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not found:
        raise PolyadError(f"--{option} {text!r} is no time: write a number with its unit, such as 90s, 20m or 1h.")
    return found
