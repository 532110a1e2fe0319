"""`hf:NAME`: a labelled set of images from the Hugging Face hub, or a folder that the `datasets` library saved."""

from pathlib import Path
from typing import Any

from polyad.data.base import ALL, SOURCES, DataSource, Labelled, Source, brief, library, split_name
from polyad.errors import DataError
from polyad.records import Preprocessing


def open_huggingface(name: str, preprocessing: Preprocessing) -> DataSource:
    """All splits; the columns of images and labels are found by their types."""
    if not name:
        raise DataError("'hf:' names no data set; write it as in hf:OWNER/NAME.")
    datasets = library("datasets", "text")
    where = f"hf:{name}"
    try:
        saved = any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # hub, network, file formats: each has errors of its own
        raise DataError(f"{where} cannot be opened ({brief(error)}); check the name and the connection.") from error
    parts = dict(found) if isinstance(found, dict) else {ALL: found}
    first = next(iter(parts.values()))
    image, label = _columns(datasets, first.features, where)
    splits = {
        split_name(part): Labelled(rows.select_columns([image, label]), (image, label), preprocessing, where)
        for part, rows in parts.items()
        if {image, label} <= set(rows.features)  # a test split may come without labels
    }
    return DataSource(where, splits, getattr(first.features[label], "num_classes", None))


def _columns(datasets: Any, features: Any, where: str) -> tuple[str, str]:
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [name for name, kind in features.items() if str(getattr(kind, "dtype", "")).startswith("int")]
    if not images or not labels:
        columns = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
        raise DataError(
            f"{where} needs a column of images and one of class labels; it has: {columns}. Write a function of your "
            "own (path/to/file.py:function) for other data."
        )
    return images[0], labels[0]


SOURCES.register("hf", Source("hf", "hf:NAME", "labelled images from the Hugging Face hub", open_huggingface))
