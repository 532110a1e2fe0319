"""`torchvision:NAME@DIR`: a data set of torchvision that lies in DIR; nothing is downloaded."""

from collections.abc import Mapping
from difflib import get_close_matches
from inspect import isclass, signature
from pathlib import Path
from typing import Any

from polyad.data.base import ALL, SOURCES, DataSource, Labelled, Source, brief, library, split_name
from polyad.errors import DataError
from polyad.records import Preprocessing


def open_torchvision(rest: str, preprocessing: Preprocessing) -> DataSource:
    """All splits that lie in the folder."""
    name, _, folder = rest.partition("@")
    if not name or not folder:
        raise DataError(f"'torchvision:{rest}' names no data set and folder; write it as in torchvision:CIFAR10@DIR.")
    datasets = library("torchvision.datasets", "vision")
    kind = getattr(datasets, name, None)
    if not isclass(kind):
        close = get_close_matches(name, datasets.__all__, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise DataError(f"torchvision has no data set {name!r}.{hint}")
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"There is no folder {folder!r}; {_remedy(name, folder)}")
    found = _splits(kind, root, f"torchvision cannot open {name} in {folder}", _remedy(name, folder))
    where = f"torchvision:{rest}"
    splits = {split_name(one): Labelled(dataset, (0, 1), preprocessing, where) for one, dataset in found.items()}
    classes = getattr(next(iter(found.values())), "classes", None)
    return DataSource(where, splits, None if classes is None else len(classes))


def _splits(kind: type, root: Path, refusal: str, remedy: str) -> Mapping[str, Any]:
    """Those that can be opened: data sets name them by `train=` or `split=`, or have none."""
    known = signature(kind).parameters
    options: dict[str, dict[str, Any]] = {ALL: {}}
    if "train" in known:
        options = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in known:
        options = {name: {"split": name} for name in ("train", "val", "valid", "test")}
    fixed = {"download": False} if "download" in known else {}
    found, reason = {}, ""
    for name, chosen in options.items():
        try:
            found[name] = kind(root=root, **chosen, **fixed)
        except Exception as error:  # each data set has its own way to say that a split is not there
            reason = reason or brief(error)
    if not found:
        raise DataError(f"{refusal} ({reason}); {remedy}")
    return found


def _remedy(name: str, folder: str) -> str:
    return f"download it first, in Python: torchvision.datasets.{name}({folder!r}, download=True)."


SOURCES.register(
    "torchvision",
    Source("torchvision", "torchvision:NAME@DIR", "a data set of torchvision, already in DIR", open_torchvision),
)
