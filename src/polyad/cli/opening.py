"""Open what the command line names: a network, its data, the settings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from polyad.batches import Batch
from polyad.budget import parse_share
from polyad.checkpoint import PLAN, load_network, read_plan
from polyad.data import (
    DataSource,
    calibration_alone,
    calibration_and_evaluation,
    loader,
    open_data,
    training_samples,
    validation_samples,
)
from polyad.errors import DataError, ModelError
from polyad.expand import parse_split
from polyad.memory import parse_memory
from polyad.models import ModelSource, build_model, inputs_of, open_model
from polyad.overrides import parse_fixed
from polyad.pipeline import settings_of
from polyad.records import Preprocessing
from polyad.settings import Settings, Training
from polyad.tokenizer import find_tokenizer


@dataclass(frozen=True)
class Data:
    """Calibration and evaluation batches of one run, and what a person should know about them."""

    calibration: DataLoader
    evaluation: DataLoader
    notes: tuple[str, ...] = ()
    validation: DataLoader | None = None
    training: DataLoader | None = None


def is_folder(spec: str) -> bool:
    """Whether MODEL names a folder that Polyad wrote."""
    return (Path(spec) / PLAN).is_file()


def open_network(spec: str, weights: Path | None = None, original: str | None = None) -> ModelSource:
    """The network that MODEL names; a folder that Polyad wrote is loaded with its own weights.

    Args:
        spec: MODEL.
        weights: state dict for anything but a folder.
        original: what a folder was made from, where that is a file of the person's own.
    """
    if not is_folder(spec):
        if Path(spec).is_dir():
            raise ModelError(f"{spec} is a folder without {PLAN}, so it is not one that Polyad wrote.")
        return open_model(spec, weights)
    if weights is not None:
        raise ModelError(f"{spec} brings its own weights: leave --weights out.")
    made_from = original or read_plan(Path(spec) / PLAN).model
    module = load_network(spec, None if original is None else build_model(original))
    inputs = inputs_of(made_from, module)
    return ModelSource(module, made_from, spec, inputs.input_size, inputs.preprocessing, trained=True)


def preprocessing_of(
    source: ModelSource, mean: str | None, std: str | None, size: str | None, tokenizer: Path | None
) -> Preprocessing | None:
    """What the person says, else what the network's own configuration says; a tokenizer may lie beside the weights."""
    if tokenizer is None and source.weights is not None and Path(source.weights).is_file():
        tokenizer = find_tokenizer(source.weights)
    if mean is None and std is None and size is None and tokenizer is None:
        return source.preprocessing
    own = source.preprocessing or Preprocessing()
    said = {
        "mean": None if mean is None else numbers("--mean", mean),
        "std": None if std is None else numbers("--std", std),
        "size": None if size is None else _size(size),
        "tokenizer": None if tokenizer is None else str(tokenizer),
    }
    return own.model_copy(update={name: value for name, value in said.items() if value is not None})


def open_splits(
    data: str,
    calibration: str | None,
    *,
    preprocessing: Preprocessing | None,
    samples: int,
    seed: int,
    batch_size: int,
    validate: bool = False,
    train: int | None = None,
) -> Data:
    """Calibration batches (labels are not looked at), evaluation batches and, if asked for, validation batches, which
    share no sample; and so many samples to train on (0 for all), those of calibration first among them."""
    source = open_data(data, preprocessing)
    notes = source.notes
    if calibration is None:
        fitted, judged = calibration_and_evaluation(source, samples, seed)
        other = source
    else:
        other = open_data(calibration, preprocessing)
        notes += other.notes
        fitted, judged = calibration_alone(other, samples, seed), evaluation_split(source)
    chosen = validation_samples(other, samples, seed, evaluated=other is source) if validate else None
    validation = None if chosen is None else loader(chosen, batch_size)
    learned = None
    if train is not None:
        learned = loader(training_samples(other, samples, train, seed, evaluated=other is source), batch_size)
    return Data(loader(fitted, batch_size), loader(judged, batch_size), notes, validation, learned)


def evaluation_split(source: DataSource) -> Any:
    """The split that figures are taken on: test, validation, or the only one."""
    for name in ("test", "validation"):
        if name in source.splits:
            return source.splits[name]
    if len(source.splits) == 1:
        return next(iter(source.splits.values()))
    raise DataError(f"{source.name} has the splits {', '.join(source.splits)}; name one, as in {source.name}#SPLIT.")


def chosen_settings(
    *,
    forms: str | None,
    metric: str,
    damage: str | None,
    allocator: str,
    floor: str | None = None,
    finalists: int = 1,
    narrow: bool = False,
    recover: str = "none",
    samples: int,
    round_to: int,
    ignore: Sequence[str] | None,
    fixed: Sequence[str] | None,
    split: Sequence[str] | None,
    stack: Sequence[str] | None,
    memory: str | None = None,
    runtime: str = "eager",
    threads: int | None = None,
    latency_batch: int = 1,
    seed: int,
    training: Training | None = None,
) -> Settings:
    """The settings behind the options, unknown names refused before any work."""
    return settings_of(
        forms=form_names(forms),
        finalists=finalists,
        narrow=narrow,
        metric=metric,
        damage=damage,
        allocator=allocator,
        floor=0.0 if floor is None else parse_share("floor", floor),
        recover=recover,
        samples=samples,
        round_to=round_to,
        ignore=tuple(ignore or ()),
        fixed=parse_fixed(fixed or ()),
        split=parse_split(split or ()),
        stack=tuple(stack or ()),
        memory=None if memory is None else parse_memory(memory),
        runtime=runtime,
        threads=threads,
        latency_batch=latency_batch,
        seed=seed,
        training=training or Training(),
    )


def form_names(text: str | None) -> tuple[str, ...] | None:
    """ "svd,tt_matrix/4x8x8,8x8x4" -> ("svd", "tt_matrix/4x8x8,8x8x4").

    No name begins with a digit, so a part that does belongs to the one before it.
    """
    return None if text is None else tuple(name.strip() for name in re.split(r",(?!\s*\d)", text))


def example(source: ModelSource, text: str | None, samples: int = 1) -> Batch:
    """A random batch of the network's own input size, or of the one that --input gives; tokens where it takes them."""
    size = source.input_size
    if text is not None:
        size = tuple(int(n) for n in numbers("--input", text))
    if size is None:
        raise ModelError(
            f"{source.spec} does not say what its inputs look like: give --input C,H,W, such as 3,224,224."
        )
    generator = torch.Generator().manual_seed(0)
    tokens = source.preprocessing.tokens if source.preprocessing else None
    if tokens is not None:
        return Batch((torch.randint(tokens, (samples, *size), generator=generator),))
    return Batch((torch.randn(samples, *size, generator=generator),))


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Comma-separated numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise DataError(
            f"{option} {text!r} is not understood: write numbers with commas, such as 0.5,0.5,0.5."
        ) from None


def _size(text: str) -> tuple[int, int]:
    sizes = [int(n) for n in numbers("--size", text)]
    if len(sizes) not in (1, 2):
        raise DataError(f"--size {text!r} is not understood: write HEIGHT,WIDTH or one number for both.")
    return sizes[0], sizes[-1]


def parameters(model: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
