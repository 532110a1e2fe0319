"""What the data sources say about files that are not right."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import COLOUR, GREY, LABELS, npz, packed, pngs, refuses


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nonsense", "'nonsense' is no specification of data. Expected one of: digits, hf:NAME, imagefolder:DIR"),
        ("npy:a.npy", "Did you mean npz:FILE"),
        ("a.npz", "Did you mean npz:a.npz"),
        ("digits:8", "no further name"),
        ("npz:/no/such.npz", "There is no file '/no/such.npz'"),
        ("imagefolder:/no/such", "There is no folder '/no/such'"),
        ("/no/such.py:data", "There is no file /no/such.py"),
        ("digits#nine", "no split 'nine'; it has: train, validation, test"),
    ],
)
def test_refuses_specifications(spec: str, says: str) -> None:
    refuses(spec, says)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": LABELS, "x": GREY}, "holds no images.*It has: labels, x"),
        ({"test_images": GREY, "labels": LABELS}, "needs the array 'test_labels'. It has: labels, test_images"),
        ({"images": GREY, "labels": LABELS[:5]}, "12 images and 5 labels"),
        ({"images": GREY / 255, "labels": LABELS}, "is float64; expected uint8"),
        ({"images": GREY, "labels": LABELS / 2}, "labels is float64"),
        ({"images": GREY, "labels": LABELS - 1}, "holds -1"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "is empty"),
        ({"images": COLOUR.transpose(0, 3, 1, 2), "labels": LABELS}, r"shape \(12, 3, 6, 8\); expected"),
        ({"images": GREY.astype(object), "labels": LABELS}, "cannot be read as .npz .*without objects"),
        ({"jpeg": GREY[0, 0], "labels": LABELS}, "needs the array 'offsets'"),
        ({"jpeg": GREY[0, 0], "offsets": np.arange(0, 39, 3), "labels": LABELS}, "does not cut 8 bytes"),
        ({"jpeg": GREY[0, 0], "offsets": np.arange(3), "labels": LABELS[:2]}, "Image 0 .*cannot be decoded"),
        ({"images": GREY, "jpeg": GREY[0, 0], "labels": LABELS}, "two arrays of images for all"),
    ],
)
def test_refuses_npz(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    refuses(npz(tmp_path, **arrays), says)


def test_refuses_damaged_files(tmp_path: Path) -> None:
    spec, path = npz(tmp_path, images=COLOUR, labels=LABELS), tmp_path / "data.npz"
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"no archive", whole[:200] + b"x" * 50 + whole[250:]):
        path.write_bytes(damaged)
        refuses(spec, "cannot be read as .npz")
    np.save(tmp_path / "one.npy", COLOUR)
    refuses(f"npz:{tmp_path / 'one.npy'}", "single array")
    arrays = packed(COLOUR)
    arrays["jpeg"][arrays["offsets"][7] :] = 0
    refuses(npz(tmp_path, **arrays), r"Image 7 of .*data.npz \(jpeg\) cannot be decoded")


def test_refuses_folders(tmp_path: Path) -> None:
    refuses(f"imagefolder:{tmp_path}", "holds no folders")
    (tmp_path / "a").mkdir()
    refuses(f"imagefolder:{tmp_path}", "holds no images")
    bad = pngs(tmp_path, COLOUR) / "a" / "03.png"
    bad.write_bytes(bad.read_bytes()[:60])
    refuses(f"imagefolder:{tmp_path}", "03.png cannot be read as an image")


def test_refuses_preprocessing(tmp_path: Path) -> None:
    for spec in npz(tmp_path, images=COLOUR, labels=LABELS), f"imagefolder:{pngs(tmp_path / 'folder', COLOUR)}":
        refuses(spec, "3 channels, but mean has 2 values; give one or 3", mean=(0.1, 0.2))
        refuses(spec, "3 channels, but std has 4 values", std=(0.1,) * 4)
        refuses(spec, "expected positive", std=(0.0,))
        refuses(spec, "at least one pixel", size=(0, 4))
    refuses("digits", "1 channel, but mean has 3 values; give one value", mean=(0.1, 0.2, 0.3))
