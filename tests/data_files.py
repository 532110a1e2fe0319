"""Small real data files: arrays, packed JPEG, folders of pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from polyad.data import DataSource, open_data
from polyad.errors import DataError
from polyad.records import Preprocessing

COLOUR = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
LABELS = np.arange(12) % 3
BOTH = pytest.mark.parametrize("pictures", [COLOUR, GREY], ids=["colour", "grey"])


def npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder / 'data.npz'}"


def packed(pictures: np.ndarray) -> dict[str, np.ndarray]:
    files = []
    for picture in pictures:
        Image.fromarray(picture).save(file := io.BytesIO(), "JPEG")
        files.append(file.getvalue())
    jpeg = np.frombuffer(b"".join(files), np.uint8).copy()
    return {"jpeg": jpeg, "offsets": np.cumsum([0, *map(len, files)]), "labels": LABELS[: len(pictures)]}


def decoded(arrays: Any, i: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(arrays["jpeg"][arrays["offsets"][i] : arrays["offsets"][i + 1]].tobytes())))


def pngs(folder: Path, pictures: np.ndarray, classes: str = "abc") -> Path:
    for i, picture in enumerate(pictures):
        (part := folder / classes[i % len(classes)]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(part / f"{i:02}.png")
    return folder


def refuses(spec: str, says: str, **preprocessing: Any) -> None:
    with pytest.raises(DataError, match=says):
        items(next(iter(open_data(spec, Preprocessing(**preprocessing)).splits.values())))


def sizes(source: DataSource) -> dict[str, int]:
    return {name: len(part) for name, part in source.splits.items()}  # type: ignore[arg-type]


def pixels(x: torch.Tensor) -> np.ndarray:
    """An input without mean and std as the picture it was made from."""
    return (x * 255).round().byte().movedim(0, -1).numpy().squeeze()


def items(split: Any) -> list[Any]:
    return [split[i] for i in range(len(split))]
