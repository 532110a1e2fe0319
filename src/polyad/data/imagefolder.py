"""`imagefolder:DIR`: image files in one folder per class, the classes counted in alphabetical order.

The folders `train`, `val` or `validation`, and `test` in DIR are splits where they hold folders themselves.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from polyad.data.base import ALL, GREY, SOURCES, DataSource, Images, Source, brief, picture_mode, split_name
from polyad.errors import DataError
from polyad.records import Preprocessing

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SPLITS = ("train", "val", "valid", "validation", "test")


class ImageFiles:
    """Image files, each read when it is asked for."""

    def __init__(self, paths: Sequence[Path], mode: str) -> None:
        self.paths, self.mode = paths, mode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """(height, width, 3) or (height, width) uint8."""
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert(self.mode))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as an image ({brief(error)}); repair or remove it.") from None


def open_imagefolder(folder: str, preprocessing: Preprocessing) -> DataSource:
    """All splits of a folder."""
    root = Path(folder).expanduser()
    if not folder or not root.is_dir():
        raise DataError(f"There is no folder {folder!r}; write imagefolder:DIR with one folder per class in DIR.")
    found = {name: _by_class(part) for name, part in _split_folders(root).items()}
    classes = _classes(found, folder)
    first = [paths[0] for part in found.values() for paths in part.values()]
    mode = picture_mode(all(map(_is_grey, first)), preprocessing, folder)
    splits = {}
    for name, part in found.items():
        labelled = [(path, classes.index(one)) for one, paths in part.items() for path in paths]
        paths, labels = zip(*labelled)
        splits[name] = Images(ImageFiles(paths, mode), labels, preprocessing)
    return DataSource(f"imagefolder:{folder}", splits, len(classes))


def _split_folders(root: Path) -> dict[str, Path]:
    """A folder that is named like a split but holds images is a class."""
    found: dict[str, Path] = {}
    for name in SPLITS:
        if not (root / name).is_dir() or not _folders(root / name):
            continue
        if split_name(name) in found:
            raise DataError(f"{root} has two folders for {split_name(name)}: leave one of them out.")
        found[split_name(name)] = root / name
    return found or {ALL: root}


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """Class -> its images, both in alphabetical order."""
    classes = _folders(folder)
    if not classes:
        raise DataError(f"{folder} holds no folders; expected one folder per class, with the images in it.")
    found = {one.name: sorted(path for path in one.rglob("*") if _is_image(path)) for one in classes}
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        raise DataError(
            f"{folder / empty[0]} holds no images; expected files ending in {', '.join(sorted(SUFFIXES))}. "
            "Fill the folder or remove it."
        )
    return found


def _classes(found: dict[str, dict[str, list[Path]]], folder: str) -> list[str]:
    """The same numbers in every split: those of the training split, which the network has learned, or else of all."""
    classes = sorted(found["train"] if "train" in found else set().union(*found.values()))
    for name, part in found.items():
        if unknown := sorted(set(part) - set(classes)):
            raise DataError(f"{folder}: the split {name} has the class {unknown[0]!r}, which train has not; remove it.")
    return classes


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_grey(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode in GREY
    except OSError:
        return False  # told when it is read, with its path


SOURCES.register(
    "imagefolder", Source("imagefolder", "imagefolder:DIR", "image files in one folder per class", open_imagefolder)
)
