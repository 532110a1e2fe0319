"""The options that `plan` and `compress` have in common: written once, in the order of their help pages."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from polyad.cli import options as o


def choices(
    weights: o.Weights = None,
    calibration: o.Calibration = None,
    forms: o.Forms = None,
    plugin: o.Plugin = None,
    metric: o.Metric = "inputs",
    damage: o.Damage = None,
    allocator: o.Allocator = "knapsack",
    floor: o.Floor = None,
    samples: o.Samples = 256,
    round_to: o.RoundTo = 1,
    ignore: o.Ignore = None,
    fixed: o.Set = None,
    stack: o.Stack = None,
    split: o.Split = None,
    mean: o.Mean = None,
    std: o.Std = None,
    size: o.Size = None,
    tokenizer: o.Tokenizer = None,
    batch_size: o.BatchSize = 100,
    seed: o.Seed = 0,
    memory: o.Memory = None,
    runtime: o.Runtime = "eager",
    threads: o.Threads = None,
    latency_batch: o.LatencyBatch = 1,
    resume: o.Resume = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What a run is told beside its network, data and budget."""


def with_choices(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `choices` in the place of its **options."""
    own = inspect.signature(command)
    named = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]

    @wraps(command)
    def run(**options: Any) -> None:
        command(**options)

    run.__signature__ = own.replace(parameters=[*named, *inspect.signature(choices).parameters.values()])  # type: ignore[attr-defined]
    return run
