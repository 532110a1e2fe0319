"""What the options of recovery levels that train come to."""

import re
from typing import Any

from polyad.errors import PolyadError
from polyad.settings import Training

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

NAMES = {"train_batch": "batch"}
"""Options that are called otherwise than the field of `Training`."""

OPTIONS = ("time", "epochs", "train_batch", "rate", "precision", "augment", "checkpoint", "blocks", "dense_control")


def training_of(options: dict[str, Any]) -> Training:
    """The training that options ask for, which are taken out of `options`; where they say nothing, the usual one."""
    given = {NAMES.get(name, name): options.pop(name) for name in OPTIONS}
    for name in ("time", "checkpoint"):
        if given[name] is not None:
            given[name] = seconds(name, given[name])
    given["seed"] = options["seed"]
    return Training(**{name: value for name, value in given.items() if value is not None})


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
