"""`npz:FILE`: images and labels in one numpy file, as pixels or as packed JPEG files.

Arrays, each name with SPLIT_ in front where there are splits: `images` uint8 (samples, height, width) or (samples,
height, width, channels), or `jpeg` uint8 (bytes,), all files one after another, and `offsets` (samples + 1,); and
integer `labels` (samples,).
"""

import io
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from polyad.data.base import (
    ALL,
    GREY,
    SOURCES,
    DataSource,
    Images,
    Source,
    brief,
    check_channels,
    picture_mode,
    split_name,
)
from polyad.errors import DataError
from polyad.records import Preprocessing

_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)
"""What numpy and zipfile raise over a file that is not what its name says."""


class PackedImages:
    """Image files one after another in one array of bytes.

    Each is decoded when it is asked for: calibration takes few of many small ones, and a thousand decoded photographs
    would take five times the memory of their files.
    """

    def __init__(self, jpeg: np.ndarray, offsets: np.ndarray, mode: str, where: str) -> None:
        self.jpeg, self.offsets, self.mode, self.where = jpeg, offsets, mode, where

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """(height, width, 3) or (height, width) uint8."""
        with self.opened(index) as image:
            try:
                return np.asarray(image.convert(self.mode))
            except (OSError, ValueError, SyntaxError) as error:
                raise self._broken(index, error) from None

    def opened(self, index: int) -> Image.Image:
        """Image `index` with its header read."""
        start, stop = self.offsets[index : index + 2]
        try:
            return Image.open(io.BytesIO(self.jpeg[start:stop].tobytes()))
        except (OSError, ValueError, SyntaxError) as error:
            raise self._broken(index, error) from None

    def _broken(self, index: int, error: Exception) -> DataError:
        return DataError(f"Image {index} of {self.where} cannot be decoded ({brief(error)}); write the file again.")


def open_npz(file: str, preprocessing: Preprocessing) -> DataSource:
    """All splits of a file."""
    arrays = _read(file)
    splits: dict[str, Images] = {}
    for key in arrays:
        prefix, kind = next(((key.removesuffix(end), end) for end in ("images", "jpeg") if _ends(key, end)), ("", ""))
        if not kind:
            continue
        name = split_name(prefix.removesuffix("_")) if prefix else ALL
        if name in splits:
            raise DataError(f"{file} has two arrays of images for {name}; leave one out.")
        labels = _labels(arrays, prefix, file)
        where = f"{file} ({key})"
        if kind == "images":
            pictures = _pixels(arrays[key], preprocessing, where)
        else:
            pictures = _packed(arrays, prefix, preprocessing, where)
        if len(pictures) != len(labels):
            raise DataError(f"{where} has {len(pictures)} images and {len(labels)} labels; expected as many of both.")
        splits[name] = Images(pictures, labels, preprocessing)
    if not splits:
        raise DataError(f"{file} holds no images; expected `images` or SPLIT_images, or `jpeg`. {_found(arrays)}")
    classes = 1 + max(int(np.max(split.labels)) for split in splits.values())
    return DataSource(f"npz:{file}", splits, classes)


def _read(file: str) -> dict[str, np.ndarray]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"There is no file {file!r}; write npz:FILE with the path of an .npz file.")
    try:
        with path.open("rb") as opened:  # numpy leaves a damaged file open
            found = np.load(opened, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            names = [name for name in found.files if _ends(name, "images", "jpeg", "offsets", "labels")]
            unread = dict.fromkeys(found.files, np.empty(0))  # only their names are of use, in messages
            return unread | {name: found[name] for name in names}
    except _BROKEN as error:
        raise DataError(
            f"{file} cannot be read as .npz ({brief(error)}); it is damaged or something else. Write it with "
            "numpy.savez(FILE, images=..., labels=...), without objects."
        ) from None


def _pixels(images: np.ndarray, preprocessing: Preprocessing, where: str) -> np.ndarray:
    if images.dtype != np.uint8:
        raise DataError(f"{where} is {images.dtype}; expected uint8 pixels, 0 to 255.")
    if images.ndim not in (3, 4) or (images.ndim == 4 and not 1 <= images.shape[3] <= 4):
        raise DataError(
            f"{where} has the shape {images.shape}; expected (samples, height, width) or (samples, height, width, "
            "channels) with 1 to 4 channels."
        )
    check_channels(images.shape[3] if images.ndim == 4 else 1, preprocessing, where)
    return images


def _packed(arrays: Mapping[str, np.ndarray], prefix: str, preprocessing: Preprocessing, where: str) -> PackedImages:
    jpeg, offsets = arrays[f"{prefix}jpeg"], _array(arrays, f"{prefix}offsets", where)
    if jpeg.dtype != np.uint8 or jpeg.ndim != 1:
        raise DataError(f"{where} is {jpeg.dtype} of shape {jpeg.shape}; expected uint8 of shape (bytes,).")
    steps = np.diff(offsets) if offsets.ndim == 1 and offsets.dtype.kind in "iu" else np.empty(0)
    if not len(steps) or int(offsets[0]) < 0 or int(offsets[-1]) > len(jpeg) or (offsets[1:] <= offsets[:-1]).any():
        raise DataError(
            f"{where}: the array {prefix}offsets does not cut {len(jpeg)} bytes into files; expected rising whole "
            f"numbers from 0 to {len(jpeg)}, one more than there are images."
        )
    packed = PackedImages(jpeg, offsets.astype(np.int64), "RGB", where)
    with packed.opened(0) as image:
        packed.mode = picture_mode(image.mode in GREY, preprocessing, where)
    return packed


def _labels(arrays: Mapping[str, np.ndarray], prefix: str, file: str) -> np.ndarray:
    labels = _array(arrays, f"{prefix}labels", file)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{file}: {prefix}labels is {labels.dtype} of shape {labels.shape}; expected integers of shape (samples,)."
        )
    if not len(labels):
        raise DataError(f"{file}: {prefix}labels is empty; expected at least one sample.")
    if labels.min() < 0:
        raise DataError(f"{file}: {prefix}labels holds {labels.min()}; expected classes counted from 0.")
    return labels


def _array(arrays: Mapping[str, np.ndarray], name: str, where: str) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"{where} needs the array {name!r}. {_found(arrays)}")
    return arrays[name]


def _ends(key: str, *kinds: str) -> bool:
    return any(key == kind or key.endswith(f"_{kind}") for kind in kinds)


def _found(arrays: Mapping[str, np.ndarray]) -> str:
    return f"It has: {', '.join(sorted(arrays)) or 'no arrays'}."


SOURCES.register("npz", Source("npz", "npz:FILE", "images and labels in a numpy file, pixels or packed JPEG", open_npz))
