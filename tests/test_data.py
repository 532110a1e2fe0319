"""Every data source on small real files: what it gives, and what it says about files that are not right."""

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_files import BOTH, COLOUR, GREY, LABELS, decoded, items, npz, packed, pixels, pngs, refuses, sizes
from polyad.batches import as_batches
from polyad.data import loader, open_data
from polyad.data.base import prepared
from polyad.records import Preprocessing


# ---------------------------------------------------------------------------------------------------- pixels -> inputs
def test_pixels_become_inputs() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = prepared(COLOUR[0], Preprocessing(mean=mean, std=std))
    expected = ((COLOUR[0] / 255 - mean) / std).transpose(2, 0, 1)
    assert found.dtype == torch.float32 and found.is_contiguous()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prepared(GREY[0], Preprocessing(std=(1 / 255,)))[0], GREY[0], rtol=1e-6)


@pytest.mark.parametrize("size", [(6, 4), (3, 6), (12, 12), (6, 8)])
def test_resize_keeps_the_middle(size: tuple[int, int]) -> None:
    ramp = np.repeat(np.arange(0, 160, 20, dtype=np.uint8)[None], 6, 0)  # (6, 8), symmetric around 70
    found = prepared(ramp, Preprocessing(size=size))
    assert found.shape == (1, *size) and float(found.mean()) == pytest.approx(70 / 255, abs=2e-3)
    assert prepared(ramp, Preprocessing(size=(6, 8))).equal(prepared(ramp, Preprocessing()))


# ----------------------------------------------------------------------------------------------------------- sources
def test_digits() -> None:
    source = open_data("digits")
    assert sizes(source) == {"train": 1077, "validation": 270, "test": 450} and source.classes == 10
    x, labels = next(iter(loader(source.splits["test"], 450)))
    assert x.shape == (450, 1, 8, 8) and x.min() == 0 and x.max() == 1
    assert labels.bincount().tolist() == [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]
    train, test = ({x.numpy().tobytes() for x, _ in items(source.splits[name])} for name in ("train", "test"))
    assert not train & test and sizes(open_data("digits#test")) == {"test": 450}


@BOTH
def test_npz_pixels(tmp_path: Path, pictures: np.ndarray) -> None:
    (tmp_path / "a#b").mkdir()  # no split: the name of a file that exists
    source = open_data(npz(tmp_path / "a#b", images=pictures, labels=LABELS.astype(np.uint8)))
    assert sizes(source) == {"all": 12} and source.classes == 3
    x, label = source.splits["all"][-1]
    assert x.dim() == 3 and np.array_equal(pixels(x), pictures[-1]) and label == LABELS[-1]
    with pytest.raises(IndexError):
        source.splits["all"][12]


def test_npz_splits(tmp_path: Path) -> None:
    parts = {"train": slice(12), "val": slice(5), "other": slice(2)}
    arrays = {f"{name}_images": COLOUR[part] for name, part in parts.items()}
    spec = npz(tmp_path, **arrays, **{f"{name}_labels": LABELS[part] for name, part in parts.items()}, index=LABELS)
    assert sizes(open_data(spec)) == {"train": 12, "validation": 5, "other": 2}
    for name in ("validation", "val"):
        assert sizes(open_data(f"{spec}#{name}")) == {"validation": 5}
    refuses(f"{spec}#test", "no split 'test'; it has: train, validation, other")


@BOTH
def test_packed_jpeg_equals_pillow(tmp_path: Path, pictures: np.ndarray) -> None:
    arrays = packed(pictures)
    spec = npz(tmp_path, **arrays)
    for i, (x, label) in enumerate(items(open_data(spec).splits["all"])):
        assert np.array_equal(pixels(x), decoded(arrays, i)) and label == LABELS[i]
    colours = open_data(
        spec, Preprocessing(mean=(0.1, 0.2, 0.3))
    )  # a network for colours gets grey pictures as colours
    assert colours.splits["all"][0][0].shape == (3, 6, 8)


@BOTH
def test_imagefolder(tmp_path: Path, pictures: np.ndarray) -> None:
    (pngs(tmp_path, pictures) / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    source = open_data(f"imagefolder:{tmp_path}")
    found = items(source.splits["all"])
    assert source.classes == 3 and [label for _, label in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert np.array_equal(pixels(found[1][0]), pictures[3])


def test_imagefolder_splits_count_classes_alike(tmp_path: Path) -> None:
    pngs(tmp_path / "train", GREY)
    pngs(tmp_path / "val", GREY[:2], classes="bc")
    source = open_data(f"imagefolder:{tmp_path}")
    assert sizes(source) == {"train": 12, "validation": 2} and source.classes == 3
    assert [label for _, label in items(source.splits["validation"])] == [1, 2]
    pngs(tmp_path / "test", GREY[:1], classes="d")
    refuses(f"imagefolder:{tmp_path}", "split test has the class 'd'")
    folder = pngs(pngs(tmp_path / "things" / "train", GREY[:2], ".").parent / "plane", GREY[:2], ".").parent
    assert sizes(open_data(f"imagefolder:{folder}")) == {"all": 4}  # "train" holds images: a class


FILE = """
import torch
from torch.utils.data import DataLoader, TensorDataset
X, Y = torch.arange(20.).view(10, 2), torch.arange(10) % 3
def dataset(): return TensorDataset(X, Y)
def data_loader(): return DataLoader(dataset(), 4, shuffle=True)
def sampled(): return DataLoader(TensorDataset(X.flip(0), Y.flip(0)), 4, sampler=range(9, -1, -1))
def batches(): return [(X[:4], Y[:4]), (X[4:], Y[4:])]
def pair(): return X, Y
def generator(): yield from batches()
def dicts(): return [{"x": X, "labels": Y}]
def inputs(): return X
def splits(): return {"train": batches(), "val": dataset()}
def wrong(): return 3
def shared(): return [{"x": X, "scale": torch.ones(3)}]
def broken(): return 1 / 0
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    return f"{tmp_path / 'mine.py'}:"


@pytest.mark.parametrize("name", ["dataset", "data_loader", "sampled", "batches", "pair", "generator"])
def test_python_file_gives_samples(file: str, name: str) -> None:
    found = items(open_data(file + name).splits["all"])
    assert [(x.tolist(), int(label)) for x, label in found] == [([2 * i, 2 * i + 1], i % 3) for i in range(10)]


def test_python_file_gives_dicts_inputs_and_splits(file: str) -> None:
    assert open_data(file + "inputs").splits["all"][4].tolist() == [8, 9]
    assert sizes(open_data(file + "splits")) == {"train": 10, "validation": 10}
    (batch,) = as_batches(loader(open_data(file + "dicts").splits["all"], 10))
    assert batch.labels is not None and batch.kwargs["x"].shape == (10, 2)
    refuses(file + "wrong", "int, which cannot be iterated over")
    refuses(file + "broken", "ZeroDivisionError")
    refuses(file + "missing", "no function 'missing'")
    refuses(file + "shared", "one row per sample")


# -------------------------------------------------------------------------------------------------- optional libraries
class Shapes:
    """A data set as torchvision has them."""

    classes = ("x", "y", "z")

    def __init__(self, root: Path, train: bool = True, download: bool = True) -> None:
        if download or not (root / "shapes").is_dir():
            raise RuntimeError("downloading" if download else "Dataset not found")
        self.size = 12 if train else 6

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(COLOUR[index]), int(LABELS[index])


def test_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = ModuleType("torchvision.datasets")
    datasets.__dict__.update(Shapes=Shapes, __all__=["Shapes"])
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    refuses(
        f"torchvision:Shapes@{tmp_path}", "Dataset not found.*; download it first, in Python: torchvision.datasets.Sh"
    )
    refuses("torchvision:Shapes", "names no data set and folder")
    refuses("torchvision:Shapes@/no/such", "There is no folder")
    refuses(f"torchvision:Shape@{tmp_path}", "Did you mean Shapes")
    (tmp_path / "shapes").mkdir()
    source = open_data(f"torchvision:Shapes@{tmp_path}", Preprocessing(size=(4, 4)))
    x, label = source.splits["test"][4]
    assert sizes(source) == {"train": 12, "test": 6} and source.classes == 3
    assert x.shape == (3, 4, 4) and label == 1


class Rows(list):
    """A split as the datasets library has them."""

    def __init__(self, **features: Any) -> None:
        super().__init__({"picture": Image.fromarray(GREY[i]), "kind": int(LABELS[i])} for i in range(12))
        self.features = features

    def select_columns(self, columns: list[str]) -> "Rows":
        return self


def test_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type("Image", (), {}), type("ClassLabel", (), {"num_classes": 3}), type("Value", (), {"dtype": "string"})
    picture, label, text = (one() for one in kind)
    labelled, plain = Rows(id=text, picture=picture, kind=label), Rows(picture=picture)
    found = {"a": {"train": labelled, "val": labelled, "test": plain}, "b": labelled, "c": Rows(text=text)}
    library = SimpleNamespace(Image=kind[0], ClassLabel=kind[1], load_dataset=found.__getitem__)
    monkeypatch.setitem(sys.modules, "datasets", library)  # type: ignore[arg-type]
    source = open_data("hf:a")
    x, number = source.splits["train"][5]
    assert sizes(source) == {"train": 12, "validation": 12} and source.classes == 3  # test comes without labels
    assert np.array_equal(pixels(x), GREY[5]) and number == LABELS[5]
    assert sizes(open_data("hf:b")) == {"all": 12}
    refuses("hf:c", r"it has: text \(Value\)")
    refuses("hf:d", "hf:d cannot be opened .KeyError")


@pytest.mark.parametrize(("spec", "extra"), [("torchvision:MNIST@.", "vision"), ("hf:mnist", "text")])
def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch, spec: str, extra: str) -> None:
    def missing(module: str) -> ModuleType:
        raise ModuleNotFoundError(name=module.partition(".")[0])

    monkeypatch.setattr("polyad.data.base.import_module", missing)
    refuses(spec, rf"not installed: pip install polyad\[{extra}\]")


def test_datasets_can_be_pickled(tmp_path: Path, file: str) -> None:
    folder = f"imagefolder:{pngs(tmp_path / 'folder', COLOUR)}"
    for spec in "digits#test", npz(tmp_path / "folder", **packed(COLOUR)), folder, f"{file}batches":
        (split,) = open_data(spec).splits.values()
        again = pickle.loads(pickle.dumps(split))
        assert torch.equal(again[3][0], split[3][0]) and again[3][1] == split[3][1]


# -------------------------------------------------------------------------------------------------------- real files
@pytest.mark.parametrize(
    ("name", "expected", "classes", "shape"),
    [
        ("cifar10/cifar10_lossless.npz", {"test": 1017, "train": 8068}, 10, (3, 32, 32)),
        ("cifar10/cifar10_jpeg_test.npz", {"all": 10000}, 10, (3, 32, 32)),
        ("mnist/mnist.npz", {"train": 60000, "test": 10000}, 10, (1, 28, 28)),
        ("imagenet1k_sample/imagenet1k_sample.npz", {"all": 1000}, 1000, (3, 224, 224)),
    ],
)
def test_real_files(data_folder: Path, name: str, expected: dict[str, int], classes: int, shape: Any) -> None:
    source = open_data(f"npz:{data_folder / name}")
    assert sizes(source) == expected and source.classes == classes
    assert all(part[0][0].shape == shape for part in source.splits.values())


def test_real_jpeg_equals_pillow(data_folder: Path) -> None:
    path = data_folder / "imagenet1k_sample" / "imagenet1k_sample.npz"
    x, label = open_data(f"npz:{path}").splits["all"][123]
    with np.load(path) as arrays:
        assert np.array_equal(pixels(x), decoded(arrays, 123)) and label == arrays["labels"][123]
