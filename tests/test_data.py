"""Every data source on small real files: what it gives, and what it says about files that are not right."""

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from polyad.batches import as_batches
from polyad.data import SOURCES, DataSource, calibration_and_evaluation, loader, open_data
from polyad.data.base import prepared
from polyad.errors import DataError
from polyad.records import Preprocessing

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
LABELS = np.arange(12) % 3


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def packed(pictures: np.ndarray) -> dict[str, np.ndarray]:
    files = [jpeg(picture) for picture in pictures]
    offsets = np.cumsum([0, *map(len, files)])
    return {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets, "labels": LABELS[: len(pictures)]}


def npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder / 'data.npz'}"


def pngs(folder: Path, pictures: np.ndarray, classes: str = "abc") -> Path:
    for i, picture in enumerate(pictures):
        part = folder / classes[i % len(classes)]
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(part / f"{i:02}.png")
    return folder


def items(dataset: Dataset) -> list[Any]:
    return [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- pixels -> inputs
def test_pixels_become_inputs() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = prepared(COLOUR[0], Preprocessing(mean=mean, std=std))
    expected = (COLOUR[0].transpose(2, 0, 1) / np.float64(255) - np.reshape(mean, (3, 1, 1))) / np.reshape(
        std, (3, 1, 1)
    )
    assert found.dtype == torch.float32 and found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    raw = prepared(GREY[0], Preprocessing(std=(1 / 255,)))
    np.testing.assert_allclose(raw.numpy(), GREY[0][None], rtol=1e-6)


@pytest.mark.parametrize("size", [(6, 4), (3, 6), (12, 12), (6, 8)])
def test_resize_keeps_the_middle(size: tuple[int, int]) -> None:
    ramp = np.repeat(np.arange(0, 160, 20, dtype=np.uint8)[None], 6, 0)  # (6, 8), symmetric around 70
    found = prepared(ramp, Preprocessing(size=size))
    assert found.shape == (1, *size)
    assert float(found.mean()) == pytest.approx(70 / 255, abs=2e-3)
    assert prepared(ramp, Preprocessing(size=(6, 8))).equal(prepared(ramp, Preprocessing()))


# ----------------------------------------------------------------------------------------------------------- sources
def test_digits() -> None:
    source = open_data("digits")
    sizes = {name: len(split) for name, split in source.splits.items()}  # type: ignore[arg-type]
    assert sizes == {"train": 1077, "validation": 270, "test": 450} and source.classes == 10
    x, labels = next(iter(loader(source.splits["test"], 450)))
    assert x.shape == (450, 1, 8, 8) and x.min() == 0 and x.max() == 1
    assert labels.bincount().tolist() == [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]
    seen = {tuple(x.flatten().tolist()) for x, _ in items(source.splits["train"])}
    assert not seen & {tuple(x.flatten().tolist()) for x, _ in items(source.splits["test"])}
    assert open_data("digits#test").splits.keys() == {"test"}


@pytest.mark.parametrize("pictures", [COLOUR, GREY], ids=["colour", "grey"])
def test_npz_pixels(tmp_path: Path, pictures: np.ndarray) -> None:
    source = open_data(npz(tmp_path, images=pictures, labels=LABELS.astype(np.uint8)))
    assert list(source.splits) == ["all"] and source.classes == 3
    x, label = source.splits["all"][-1]
    assert label == LABELS[-1] and x.shape == ((3, 6, 8) if pictures.ndim == 4 else (1, 6, 8))
    assert np.array_equal(
        (x * 255).round().numpy().squeeze(), np.moveaxis(pictures[-1], -1, 0) if x.shape[0] > 1 else pictures[-1]
    )
    with pytest.raises(IndexError):
        source.splits["all"][12]


def test_npz_splits(tmp_path: Path) -> None:
    arrays = {"train_images": COLOUR, "train_labels": LABELS, "val_images": COLOUR[:5], "val_labels": LABELS[:5]}
    spec = npz(tmp_path, **arrays, other_images=COLOUR[:2], other_labels=LABELS[:2], train_index=LABELS)
    source = open_data(spec)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 12, "validation": 5, "other": 2}  # type: ignore[arg-type]
    for split in ("validation", "val"):
        chosen = open_data(f"{spec}#{split}")
        assert list(chosen.splits) == ["validation"] and chosen.classes == 3
    with pytest.raises(DataError, match="no split 'test'; it has: train, validation, other"):
        open_data(f"{spec}#test")


def test_a_file_name_may_hold_a_hash(tmp_path: Path) -> None:
    (tmp_path / "a#b").mkdir()
    assert list(open_data(npz(tmp_path / "a#b", images=GREY, labels=LABELS)).splits) == ["all"]


@pytest.mark.parametrize("pictures", [COLOUR, GREY], ids=["colour", "grey"])
def test_packed_jpeg_equals_pillow(tmp_path: Path, pictures: np.ndarray) -> None:
    arrays = packed(pictures)
    source = open_data(npz(tmp_path, **arrays))
    for i, (x, label) in enumerate(items(source.splits["all"])):
        file = arrays["jpeg"][arrays["offsets"][i] : arrays["offsets"][i + 1]].tobytes()
        expected = np.asarray(Image.open(io.BytesIO(file)))
        assert label == LABELS[i] and np.array_equal(
            (x * 255).round().numpy().astype(np.uint8).squeeze(),
            np.moveaxis(expected, -1, 0) if expected.ndim == 3 else expected,
        )
    three = open_data(npz(tmp_path, **arrays), Preprocessing(mean=(0.1, 0.2, 0.3)))
    assert three.splits["all"][0][0].shape == (3, 6, 8)  # a network for colours gets grey pictures as colours


def test_imagefolder(tmp_path: Path) -> None:
    pngs(tmp_path, COLOUR)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    source = open_data(f"imagefolder:{tmp_path}")
    found = items(source.splits["all"])
    assert source.classes == 3 and [label for _, label in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert np.array_equal((found[1][0] * 255).round().numpy().astype(np.uint8), COLOUR[3].transpose(2, 0, 1))


def test_imagefolder_splits_count_classes_alike(tmp_path: Path) -> None:
    pngs(tmp_path / "train", GREY)
    pngs(tmp_path / "val", GREY[:2], classes="bc")
    source = open_data(f"imagefolder:{tmp_path}")
    assert list(source.splits) == ["train", "validation"] and source.classes == 3
    assert [label for _, label in items(source.splits["validation"])] == [1, 2]
    assert source.splits["train"][0][0].shape == (1, 6, 8)
    pngs(tmp_path / "test", GREY[:1], classes="d")
    with pytest.raises(DataError, match="split test has the class 'd'"):
        open_data(f"imagefolder:{tmp_path}")


def test_imagefolder_class_named_like_a_split(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        pngs(tmp_path / name, GREY[:2], classes=".")
    assert list(open_data(f"imagefolder:{tmp_path}").splits) == ["all"]


FILE = """
import torch
from torch.utils.data import DataLoader, TensorDataset
X, Y = torch.arange(20.).view(10, 2), torch.arange(10) % 3
def dataset(): return TensorDataset(X, Y)
def data_loader(): return DataLoader(TensorDataset(X, Y), 4, shuffle=True)
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
    assert [x.tolist() for x, _ in found] == [[2 * i, 2 * i + 1] for i in range(10)]
    assert [int(label) for _, label in found] == [i % 3 for i in range(10)]


def test_python_file_gives_dicts_inputs_and_splits(file: str) -> None:
    assert items(open_data(file + "dicts").splits["all"])[4]["labels"] == 1
    assert items(open_data(file + "inputs").splits["all"])[4].tolist() == [8, 9]
    assert list(open_data(file + "splits").splits) == ["train", "validation"]
    assert list(open_data(file + "splits#val").splits) == ["validation"]
    (batch,) = as_batches(loader(open_data(file + "dicts").splits["all"], 10))
    assert batch.labels is not None and batch.kwargs["x"].shape == (10, 2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wrong", "int, which cannot be iterated over"),
        ("broken", "ZeroDivisionError"),
        ("missing", "no function 'missing'"),
        ("shared", "one row per sample"),
    ],
)
def test_python_file_that_gives_no_data(file: str, name: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_data(file + name)


# -------------------------------------------------------------------------------------------------- optional libraries
class Shapes:
    """A data set as torchvision has them."""

    classes = ("x", "y", "z")

    def __init__(self, root: Path, train: bool = True, download: bool = True) -> None:
        if download:
            raise AssertionError("nothing is downloaded silently")
        if not (root / "shapes").is_dir():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        self.size = 12 if train else 6

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(COLOUR[index]), int(LABELS[index])


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    package, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    datasets.__dict__.update(Shapes=Shapes, __all__=["Shapes"])
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


@pytest.mark.usefixtures("torchvision")
def test_torchvision(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    source = open_data(f"torchvision:Shapes@{tmp_path}", Preprocessing(size=(4, 4)))
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 12, "test": 6}  # type: ignore[arg-type]
    x, label = source.splits["test"][4]
    assert x.shape == (3, 4, 4) and label == 1 and source.classes == 3


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("Shapes", "names no data set and folder"),
        ("Shapes@/no/such", "There is no folder"),
        ("Shapes@{}", r"Dataset not found.*; download it first, in Python: torchvision.datasets.Shapes\("),
        ("Shape@{}", "Did you mean Shapes"),
    ],
)
def test_torchvision_refusals(tmp_path: Path, spec: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_data(f"torchvision:{spec.format(tmp_path)}")


class Rows:
    """A split as the datasets library has them."""

    def __init__(self, features: dict[str, Any], size: int = 12) -> None:
        self.features, self.size = features, size

    def __len__(self) -> int:
        return self.size

    def select_columns(self, columns: list[str]) -> "Rows":
        return Rows({name: self.features[name] for name in columns}, self.size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"picture": Image.fromarray(GREY[index]), "kind": int(LABELS[index])}


class Feature:
    num_classes = 3
    dtype = "string"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Put a result of `load_dataset` in place."""

    def put(found: Any) -> None:
        def load_dataset(name: str) -> Any:
            if isinstance(found, Exception):
                raise found
            return found

        module = ModuleType("datasets")
        module.__dict__.update(Image=Picture, ClassLabel=Classes, load_dataset=load_dataset)
        monkeypatch.setitem(sys.modules, "datasets", module)

    return put


class Picture(Feature):
    pass


class Classes(Feature):
    pass


def test_hugging_face(hub: Callable[[Any], None]) -> None:
    labelled = {"id": Feature(), "picture": Picture(), "kind": Classes()}
    hub({"train": Rows(labelled), "validation": Rows(labelled, 6), "test": Rows({"picture": Picture()})})
    source = open_data("hf:someone/shapes")
    assert list(source.splits) == ["train", "validation"] and source.classes == 3  # test has no labels
    x, label = source.splits["train"][5]
    assert np.array_equal((x * 255).round().numpy()[0], GREY[5]) and label == LABELS[5]
    hub(Rows(labelled))
    assert list(open_data("hf:someone/shapes").splits) == ["all"]


def test_hugging_face_refusals(hub: Callable[[Any], None]) -> None:
    hub({"train": Rows({"text": Feature()})})
    with pytest.raises(DataError, match=r"it has: text \(Feature\)"):
        open_data("hf:someone/text")
    hub(ConnectionError("no network"))
    with pytest.raises(DataError, match="ConnectionError: no network"):
        open_data("hf:someone/shapes")


@pytest.mark.parametrize(("spec", "extra"), [("torchvision:MNIST@.", "vision"), ("hf:mnist", "text")])
def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch, spec: str, extra: str) -> None:
    def missing(module: str) -> ModuleType:
        raise ModuleNotFoundError(name=module.partition(".")[0])

    monkeypatch.setattr("polyad.data.base.import_module", missing)
    with pytest.raises(DataError, match=rf"not installed: pip install polyad\[{extra}\]"):
        open_data(spec)


# ---------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nonsense", "'nonsense' is no specification of data. Expected one of: digits, hf:NAME, imagefolder:DIR"),
        ("digit", "Did you mean digits"),
        ("npy:a.npy", "Did you mean npz:FILE"),
        ("a.npz", "Did you mean npz:a.npz"),
        ("digits:8", "no further name"),
        ("npz:/no/such.npz", "There is no file '/no/such.npz'"),
        ("imagefolder:/no/such", "There is no folder '/no/such'"),
        ("/no/such.py:data", "There is no file /no/such.py"),
        ("mine.py", "names no function"),
        ("digits#nine", "no split 'nine'; it has: train, validation, test"),
    ],
)
def test_refuses_specifications(spec: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_data(spec)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": LABELS, "x": GREY}, "holds no images.*It has: labels, x"),
        ({"images": GREY, "y": LABELS}, "needs the array 'labels'. It has: images, y"),
        ({"test_images": GREY, "labels": LABELS}, "needs the array 'test_labels'"),
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
        ({"images": GREY, "labels": LABELS, **{"val_images": GREY, "val_labels": LABELS},
          **{"valid_images": GREY, "valid_labels": LABELS}}, "two arrays of images for validation"),
    ],
)  # fmt: skip
def test_refuses_npz(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_data(npz(tmp_path, **arrays))


def test_refuses_damaged_files(tmp_path: Path) -> None:
    spec = npz(tmp_path, images=COLOUR, labels=LABELS)
    path = tmp_path / "data.npz"
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"no archive", whole[:200] + b"x" * 50 + whole[250:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read as .npz"):
            open_data(spec)
    with open(path, "wb") as file:
        np.save(file, COLOUR)
    with pytest.raises(DataError, match="single array"):
        open_data(spec)


def test_refuses_damaged_images(tmp_path: Path) -> None:
    arrays = packed(COLOUR)
    arrays["jpeg"] = arrays["jpeg"].copy()
    arrays["jpeg"][arrays["offsets"][7] :] = 0
    split = open_data(npz(tmp_path, **arrays)).splits["all"]
    assert split[6][1] == 0
    with pytest.raises(DataError, match=r"Image 7 of .*data.npz \(jpeg\) cannot be decoded"):
        split[7]
    bad = pngs(tmp_path / "folder", COLOUR) / "a" / "03.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(DataError, match="03.png cannot be read as an image"):
        items(open_data(f"imagefolder:{tmp_path / 'folder'}").splits["all"])


def test_refuses_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no folders"):
        open_data(f"imagefolder:{tmp_path}")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        open_data(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize(
    ("preprocessing", "says"),
    [
        ({"mean": (0.1, 0.2)}, "3 channels, but mean has 2 values"),
        ({"std": (0.1,) * 4}, "3 channels, but std has 4 values"),
        ({"std": (0.0,)}, "expected positive"),
        ({"size": (0, 4)}, "at least one pixel"),
    ],
)
def test_refuses_preprocessing(tmp_path: Path, preprocessing: dict[str, Any], says: str) -> None:
    specs = npz(tmp_path, images=COLOUR, labels=LABELS), f"imagefolder:{pngs(tmp_path / 'folder', COLOUR)}"
    for spec in specs:
        with pytest.raises(DataError, match=says):
            open_data(spec, Preprocessing(**preprocessing))
    with pytest.raises(DataError, match="1 channel, but mean has 3 values; give one value"):
        open_data("digits", Preprocessing(mean=(0.1, 0.2, 0.3)))


# ------------------------------------------------------------------------------------------- drawing, loading, pickling
def source_of(**sizes: int) -> DataSource:
    return DataSource("some", {name: TensorDataset(torch.arange(size)) for name, size in sizes.items()})


@pytest.mark.parametrize(
    ("sizes", "drawn_from", "judged"),
    [
        ({"train": 20, "validation": 5, "test": 6}, 20, 6),
        ({"train": 20, "validation": 5}, 20, 5),
        ({"validation": 20, "test": 6}, 20, 6),
        ({"all": 20}, 20, 12),
        ({"test": 20}, 20, 12),
        ({"train": 20}, 20, 12),
    ],
)
def test_calibration_and_evaluation(sizes: dict[str, int], drawn_from: int, judged: int) -> None:
    source = source_of(**sizes)
    drawn, rest = calibration_and_evaluation(source, 8, seed=3)
    assert isinstance(drawn, Subset) and len(set(drawn.indices)) == 8 and len(rest) == judged  # type: ignore[arg-type]
    assert drawn.indices == calibration_and_evaluation(source, 8, seed=3)[0].indices  # type: ignore[attr-defined]
    assert drawn.indices != calibration_and_evaluation(source, 8, seed=4)[0].indices  # type: ignore[attr-defined]
    if len(sizes) == 1:
        assert isinstance(rest, Subset) and sorted([*drawn.indices, *rest.indices]) == list(range(drawn_from))


def test_calibration_refusals() -> None:
    assert len(calibration_and_evaluation(source_of(train=5, test=3), 99, 0)[0]) == 5  # type: ignore[arg-type]
    for source, samples, says in [
        (source_of(all=5), 5, "leaves none to evaluate on"),
        (source_of(train=5, other=5), 2, "splits train, other; expected train and test"),
        (source_of(test=5, other=5), 2, "Name one, as in some#test"),
        (source_of(train=5, test=5), 0, "at least one"),
    ]:
        with pytest.raises(DataError, match=says):
            calibration_and_evaluation(source, samples, 0)


def test_loader_keeps_the_order_and_refuses_mixed_sizes(tmp_path: Path) -> None:
    folder = pngs(tmp_path, COLOUR)
    batches = list(loader(open_data(f"imagefolder:{folder}").splits["all"], 5))
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    Image.fromarray(COLOUR[0, :5]).save(folder / "a" / "00.png")
    with pytest.raises(DataError, match=r"\(3, 5, 8\) and \(3, 6, 8\). Give one size"):
        list(loader(open_data(f"imagefolder:{folder}").splits["all"], 5))
    assert list(loader(open_data(f"imagefolder:{folder}", Preprocessing(size=(4, 4))).splits["all"], 12))
    with pytest.raises(DataError, match="batch size is 0"):
        loader(open_data("digits").splits["test"], 0)


def test_datasets_can_be_pickled(tmp_path: Path, file: str) -> None:
    (tmp_path / "packed").mkdir()
    specs = [
        "digits#test",
        npz(tmp_path, images=COLOUR, labels=LABELS),
        npz(tmp_path / "packed", **packed(COLOUR)),
        f"imagefolder:{pngs(tmp_path / 'folder', COLOUR)}",
        f"{file}batches",
    ]
    for spec in specs:
        (split,) = open_data(spec).splits.values()
        again = pickle.loads(pickle.dumps(split))
        assert len(again) == len(split)  # type: ignore[arg-type]
        assert torch.equal(again[3][0], split[3][0]) and again[3][1] == split[3][1]


def test_sources_are_listed() -> None:
    assert set(SOURCES) == {"digits", "hf", "imagefolder", "npz", "python", "torchvision"}
    assert all(SOURCES[name].summary and SOURCES[name].name == name for name in SOURCES)


# -------------------------------------------------------------------------------------------------------- real files
@pytest.mark.parametrize(
    ("name", "sizes", "classes", "shape"),
    [
        ("cifar10/cifar10_lossless.npz", {"test": 1017, "train": 8068}, 10, (3, 32, 32)),
        ("cifar10/cifar10_jpeg_test.npz", {"all": 10000}, 10, (3, 32, 32)),
        ("mnist/mnist.npz", {"train": 60000, "test": 10000}, 10, (1, 28, 28)),
        ("imagenet1k_sample/imagenet1k_sample.npz", {"all": 1000}, 1000, (3, 224, 224)),
    ],
)
def test_real_files(data_folder: Path, name: str, sizes: dict[str, int], classes: int, shape: tuple[int, ...]) -> None:
    source = open_data(f"npz:{data_folder / name}")
    assert {split: len(part) for split, part in source.splits.items()} == sizes  # type: ignore[arg-type]
    assert source.classes == classes
    assert all(part[0][0].shape == shape for part in source.splits.values())


def test_real_jpeg_equals_pillow(data_folder: Path) -> None:
    path = data_folder / "imagenet1k_sample" / "imagenet1k_sample.npz"
    x, label = open_data(f"npz:{path}").splits["all"][123]
    with np.load(path) as arrays:
        file = arrays["jpeg"][arrays["offsets"][123] : arrays["offsets"][124]].tobytes()
        assert label == arrays["labels"][123]
    expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    assert np.array_equal((x * 255).round().byte().permute(1, 2, 0).numpy(), expected)
