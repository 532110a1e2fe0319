"""Open data by its specification, and draw calibration samples from it."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from polyad.batches import Sequences, sequence_loader
from polyad.data.base import SOURCES, DataSource, Source, check_preprocessing, split_name
from polyad.errors import DataError
from polyad.python_file import is_python_file
from polyad.records import Preprocessing

VALIDATION = 2000
"""Samples on which a drop is measured: a standard error of about .3 points where one prediction in twenty changes."""


def open_data(spec: str, preprocessing: Preprocessing | None = None) -> DataSource:
    """The splits that a specification names.

    Args:
        spec: "digits", "npz:FILE", "imagefolder:DIR", "torchvision:NAME@DIR", "hf:NAME", "text:FILE" or
            "path/to/file.py:function"; "#SPLIT" behind it picks one split.
        preprocessing: how pixels or text become inputs; pixels are scaled to [0, 1] by default. What a Python file
            gives stays as it is.

    Raises:
        DataError: there is no such data, it cannot be read, or it does not fit the preprocessing.
    """
    preprocessing = preprocessing or Preprocessing()
    check_preprocessing(preprocessing)
    whole, split = _without_split(spec)
    source, rest = _source(whole)
    opened = source.open(rest, preprocessing)
    if split is None:
        return replace(opened, name=spec)
    if split not in opened.splits:
        raise DataError(f"{whole} has no split {split!r}; it has: {', '.join(opened.splits)}.")
    return replace(opened, name=spec, splits={split: opened.splits[split]})


def calibration_and_evaluation(source: DataSource, samples: int, seed: int) -> tuple[Dataset, Dataset]:
    """Calibration samples drawn at random, and the samples that figures are taken on; they share none.

    Args:
        source: calibration is drawn from its train split (or its only split, or validation beside test), evaluation is
            test, else validation, else what calibration left over.
        samples: how many to draw; all where a split of its own has fewer, half of a text that has no more sequences
            and no other split.
        seed: of the draw.

    Raises:
        DataError: the splits do not say which is which, or nothing would be left to evaluate on.
    """
    splits = source.splits
    fitted, judged = _parts(source, samples)
    drawn, left = _draw(splits[fitted], _fewer(splits, samples), seed)
    if judged is not None:
        return drawn, splits[judged]
    if not len(left):
        raise DataError(
            f"{source.name} has {len(drawn)} samples in its only split and {samples} are drawn for calibration, which "
            "leaves none to evaluate on; draw fewer."
        )
    return drawn, left


def calibration_alone(source: DataSource, samples: int, seed: int) -> Dataset:
    """The same draw from data that nothing is evaluated on: all of it where it has fewer samples."""
    fitted, _ = _parts(source, samples)
    return _draw(source.splits[fitted], samples, seed)[0]


def validation_samples(source: DataSource, samples: int, seed: int, *, evaluated: bool = True) -> Dataset:
    """Labelled samples to choose by, neither calibration nor test: the validation split where there is one beside test,
    else what the draw for calibration leaves over; `VALIDATION` of them at most, drawn at random.

    Args:
        source, samples, seed: as for `calibration_and_evaluation`.
        evaluated: whether the final figures come from the same source.

    Raises:
        DataError: all samples are used already.
    """
    fitted, judged = _parts(source, samples)
    if judged == "test" and fitted == "train" and "validation" in source.splits:
        return _draw(source.splits["validation"], VALIDATION, seed)[0]
    left = None if judged is None and evaluated else _draw(source.splits[fitted], samples, seed)[1]
    if left is None or not len(left):
        raise DataError(
            f"{source.name} leaves no samples to measure a drop on, beside {samples} for calibration and those of the"
            " final figures: draw fewer, or give --calibration DATA with more."
        )
    return _draw(left, VALIDATION, seed)[0]


def training_samples(source: DataSource, samples: int, wanted: int, seed: int, *, evaluated: bool = True) -> Dataset:
    """Samples to train on, in the order of the draw: those of calibration first, then others of the same split; where
    the figures come from what calibration leaves over, those of calibration alone.

    Args:
        source, samples, seed: as for `calibration_and_evaluation`.
        wanted: how many, at most; 0 for all.
        evaluated: whether the final figures come from the same source.
    """
    fitted, judged = _parts(source, samples)
    dataset = source.splits[fitted]
    if judged is None and evaluated:
        return _draw(dataset, min(_fewer(source.splits, samples), wanted or samples), seed)[0]
    return _draw(dataset, wanted or len(dataset), seed)[0]  # type: ignore[arg-type]


def _parts(source: DataSource, samples: int) -> tuple[str, str | None]:
    """The split for calibration, and the one for evaluation if it is another."""
    if samples < 1:
        raise DataError(f"{samples} calibration samples were asked for; at least one is needed.")
    splits = source.splits
    judged = next((name for name in ("test", "validation") if name in splits), None)
    fitted = next((name for name in ("train", "validation") if name in splits and name != judged), None)
    if len(splits) == 1:
        fitted, judged = next(iter(splits)), None
    if fitted is None or (judged is None and len(splits) > 1):
        raise DataError(
            f"{source.name} has the splits {', '.join(splits)}; expected train and test (or validation). "
            f"Name one, as in {source.name}#{next(iter(splits))}."
        )
    return fitted, judged


def loader(dataset: Dataset, batch_size: int) -> DataLoader:
    """Batches in the order of the samples; images that differ in size are refused with what to do.

    Each of `Sequences` is a batch of its own, whatever the batch size.
    """
    if batch_size < 1:
        raise DataError(f"The batch size is {batch_size}; at least one sample is needed.")
    if (one_by_one := sequence_loader(dataset)) is not None:
        return one_by_one
    return DataLoader(dataset, batch_size, shuffle=False, num_workers=0, collate_fn=_collate)


def _collate(items: list[Any]) -> Any:
    firsts = [item[0] if isinstance(item, (tuple, list)) and item else item for item in items]
    shapes = {tuple(first.shape): None for first in firsts if isinstance(first, torch.Tensor)}
    if len(shapes) > 1:
        one, other, *_ = shapes
        raise DataError(
            f"The samples of one batch differ in shape: {one} and {other}. Give one size for all (--size "
            "HEIGHT,WIDTH), or take batches of one sample."
        )
    return default_collate(items)


def _fewer(splits: Mapping[str, Dataset], samples: int) -> int:
    """Of a text in few long pieces a usual number of samples would leave nothing to evaluate on."""
    first = next(iter(splits.values()))
    if len(splits) > 1 or not isinstance(first, Sequences) or len(first) > samples:
        return samples
    return max(1, len(first) // 2)


def _without_split(spec: str) -> tuple[str, str | None]:
    """ "npz:a.npz#test" -> "npz:a.npz", "test"; a # in the name of an existing file or folder belongs to the name."""
    whole, mark, split = spec.rpartition("#")
    place = spec.partition(":")[2]
    if not mark or (place and Path(place).exists()):
        return spec, None
    return whole, split_name(split)


def _source(spec: str) -> tuple[Source, str]:
    scheme, _, rest = spec.partition(":")
    if scheme in SOURCES:
        return SOURCES[scheme], rest
    if is_python_file(spec):
        return SOURCES["python"], spec
    expected = ", ".join(SOURCES[name].example for name in SOURCES)
    meant = _meant(spec, scheme)
    hint = f" Did you mean {meant}?" if meant else ""
    raise DataError(f"{spec!r} is no specification of data. Expected one of: {expected}.{hint}")


def _meant(spec: str, scheme: str) -> str:
    if ":" not in spec and spec.endswith(".npz"):
        return f"npz:{spec}"
    if ":" not in spec and Path(spec).is_dir():
        return f"imagefolder:{spec}"
    close = get_close_matches(scheme, SOURCES, n=1, cutoff=0.6)
    return SOURCES[close[0]].example if close else ""


def _draw(dataset: Dataset, samples: int, seed: int) -> tuple[Subset, Subset]:
    """Samples drawn at random, in the order of the draw, and the others in their own order."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()  # type: ignore[arg-type]
    return Subset(dataset, order[:samples]), Subset(dataset, sorted(order[samples:]))
