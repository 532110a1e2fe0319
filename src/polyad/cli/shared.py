"""The options that commands have in common: written once, in the order of their help pages."""

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
    finalists: o.Finalists = 1,
    narrow: o.Narrow = False,
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


def training(
    time: o.Time = None,
    epochs: o.Epochs = None,
    train_samples: o.TrainSamples = None,
    train_batch: o.TrainBatch = None,
    rate: o.Rate = None,
    precision: o.Precision = None,
    augment: o.Augment = None,
    checkpoint: o.Checkpoint = None,
    blocks: o.Blocks = None,
    dense_control: o.DenseControl = False,
    training: o.FurtherTraining = None,
) -> None:
    """What a recovery level that trains is told."""


Command = Callable[..., None]


def with_options(*groups: Command) -> Callable[[Command], Command]:
    """The command with the options of some groups in the place of its **options."""

    def with_them(command: Command) -> Command:
        own = inspect.signature(command)
        found = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        for group in groups:
            found += inspect.signature(group).parameters.values()

        @wraps(command)
        def run(**options: Any) -> None:
            command(**options)

        run.__signature__ = own.replace(parameters=found)  # type: ignore[attr-defined]
        return run

    return with_them
