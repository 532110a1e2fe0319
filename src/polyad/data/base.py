"""What a data source is, and how pictures become inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import inf, isfinite
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from polyad.errors import DataError
from polyad.records import Preprocessing
from polyad.registry import Registry

ALL = "all"
"""The split of data that has no splits."""

GREY = ("1", "L")
"""Modes of Pillow for pictures without colours."""

_OTHER_NAMES = {"val": "validation", "valid": "validation"}


@dataclass(frozen=True)
class DataSource:
    """Opened data.

    Attributes:
        name: the specification it was opened by.
        splits: "train", "validation", "test", or "all" -> items (x float tensor, label int), or `Sequences`.
        classes: how many the labels tell apart, None where it is not known.
        notes: what a person should know before relying on figures.
    """

    name: str
    splits: Mapping[str, Dataset]
    classes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One place where data comes from.

    Attributes:
        name: the scheme of its specifications, "npz" in "npz:FILE".
        example: a specification, for messages.
        summary: one line.
        open: what stands behind the scheme, preprocessing -> the splits.
    """

    name: str
    example: str
    summary: str
    open: Callable[[str, Preprocessing], DataSource]


SOURCES: Registry[Source] = Registry("data source", "polyad.data")


class Pictures(Protocol):
    """Pictures by index: (height, width) or (height, width, channels), uint8, or floats in [0, 1]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class Images(Dataset):
    """Pictures as inputs: items (x float32 (channels, height, width), label int)."""

    def __init__(self, pictures: Pictures, labels: Sequence[int] | np.ndarray, preprocessing: Preprocessing) -> None:
        self.pictures, self.labels, self.preprocessing = pictures, labels, preprocessing

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = range(len(self))[index]  # checks the range, and understands -1
        return prepared(self.pictures[index], self.preprocessing), int(self.labels[index])


class Labelled(Dataset):
    """The items of another library's data set, (image, label) or {image, label}, as `Images` gives them."""

    def __init__(self, dataset: Any, keys: tuple[Any, Any], preprocessing: Preprocessing, where: str) -> None:
        self.dataset, self.keys, self.preprocessing, self.where = dataset, keys, preprocessing, where
        self.mode = picture_mode(self._item(0)[0].mode in GREY, preprocessing, where)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self._item(range(len(self))[index])
        return prepared(np.asarray(image.convert(self.mode)), self.preprocessing), int(label)

    def _item(self, index: int) -> tuple[Image, int | np.integer]:
        try:
            item = self.dataset[index]
            image, label = (item[key] for key in self.keys)
        except Exception as error:  # each library has errors of its own over damaged files
            raise DataError(
                f"Item {index} of {self.where} cannot be read ({brief(error)}); repair the data."
            ) from error
        if not isinstance(image, Image) or not isinstance(label, (int, np.integer)):
            raise DataError(
                f"Item {index} of {self.where} is a {type(image).__name__} with a {type(label).__name__}; expected a "
                "picture with the number of its class. Write a function of your own (path/to/file.py:function) for it."
            )
        return image, label


def prepared(picture: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """One picture as input: scaled to [0, 1], resized and cropped, mean subtracted, divided by std.

    Args:
        picture: (height, width) or (height, width, channels), uint8, or floats in [0, 1].
        preprocessing: as the network was trained.

    Returns:
        (channels, height, width) float32.
    """
    pixels = torch.from_numpy(np.array(picture))
    pixels = pixels[None] if pixels.dim() == 2 else pixels.movedim(-1, 0)
    x = pixels.float().contiguous()
    if pixels.dtype == torch.uint8:
        x = x / 255
    if preprocessing.size is not None and tuple(x.shape[1:]) != preprocessing.size:
        x = _resized(x, *preprocessing.size)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (x - mean) / std


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    """The picture as small as it can be without leaving the crop, and the middle of it; rounded as torchvision does."""
    rows, columns = x.shape[1:]
    if height * columns >= width * rows:
        size = height, height * columns // rows
    else:
        size = width * rows // columns, width
    x = F.interpolate(x[None], size, mode="bilinear", antialias=True)[0]
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return x[:, top : top + height, left : left + width].contiguous()


def check_channels(channels: int, preprocessing: Preprocessing, where: str) -> None:
    """Refuse a mean or std that has not one value per channel (or one for all)."""
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"{where} has images of {channels} channel{'s' * (channels > 1)}, but {name} has {len(values)} values; "
                f"give {'one value' if channels == 1 else f'one or {channels} values'}."
            )


def check_preprocessing(preprocessing: Preprocessing) -> None:
    """Refuse what no image or text could be prepared with."""
    if not all(map(isfinite, preprocessing.mean)):
        raise DataError(f"mean is {preprocessing.mean}; expected finite values, such as 0.5.")
    if not all(0 < value < inf for value in preprocessing.std):
        raise DataError(f"std is {preprocessing.std}; expected positive values, such as 0.5.")
    if preprocessing.size is not None and min(preprocessing.size) < 1:
        raise DataError(f"size is {preprocessing.size}; expected a height and a width of at least one pixel.")
    if preprocessing.context is not None and preprocessing.context < 2:
        raise DataError(f"context is {preprocessing.context}; expected at least two tokens, one to predict the other.")


def picture_mode(grey: bool, preprocessing: Preprocessing, where: str) -> str:
    """What Pillow converts to: grey where the pictures are and mean and std do not ask for colours."""
    grey = grey and len(preprocessing.mean) == len(preprocessing.std) == 1
    check_channels(1 if grey else 3, preprocessing, where)
    return "L" if grey else "RGB"


def split_name(name: str) -> str:
    """The name under which a split is known: "val" is "validation"."""
    return _OTHER_NAMES.get(name, name)


def library(module: str, extra: str) -> Any:
    """Import an optional library, or say how to install it."""
    name = module.partition(".")[0]
    try:
        return import_module(module)
    except Exception as error:  # torchvision beside another build of torch raises RuntimeError
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise DataError(f"{name} is needed for this data and not installed: pip install polyad[{extra}]") from None
        raise DataError(
            f"{name} is installed but cannot be imported ({brief(error)}): install the build that belongs to torch "
            f"{torch.__version__}, as in pip install polyad[{extra}]"
        ) from error


def brief(error: BaseException) -> str:
    """The kind and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')[:200]}" if lines else type(error).__name__
