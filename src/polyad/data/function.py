"""`path/to/file.py:function`: data that a function of one's own returns, as network inputs; taken as it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from polyad.batches import Batch, each_batch
from polyad.data.base import ALL, SOURCES, DataSource, Source, split_name
from polyad.errors import DataError
from polyad.python_file import call_function
from polyad.records import Preprocessing


class Samples(Dataset):
    """Samples held in memory."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def open_function(spec: str, preprocessing: Preprocessing) -> DataSource:
    """What the function returns: a DataLoader, a Dataset, an iterable of batches, a dict of split -> one of those."""
    found = call_function(spec, DataError)
    if isinstance(found, DataSource):
        return found
    parts = found if isinstance(found, Mapping) else {ALL: found}
    if not parts:
        raise DataError(f"{spec} returns an empty dict; expected split -> data, as in {{'train': ..., 'test': ...}}.")
    return DataSource(spec, {split_name(str(name)): _dataset(part, spec) for name, part in parts.items()})


def _dataset(data: Any, spec: str) -> Dataset:
    """The samples behind some data; batches are taken apart, for what is drawn are samples."""
    if isinstance(data, DataLoader) and _is_plain(data):
        data = data.dataset
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return data
    try:
        return Samples([sample for batch in each_batch(data) for sample in _samples(batch)])
    except DataError as error:
        raise DataError(f"{spec}: {error}") from None


def _is_plain(data: DataLoader) -> bool:
    """Whether its batches are the samples of its dataset, all of them, and nothing else is done to them."""
    return data.collate_fn is default_collate and isinstance(data.sampler, (SequentialSampler, RandomSampler))


def _samples(batch: Batch) -> Iterator[Any]:
    size = batch.size
    inputs = [*batch.args, *batch.kwargs.values()]
    if not all(isinstance(value, Tensor) and value.dim() and len(value) == size for value in inputs):
        raise DataError("an input is not a tensor with one row per sample; return a Dataset, whose items are samples")
    for i in range(size):  # cloned, for a row that is pickled would take the whole batch along
        label = [] if batch.labels is None else [batch.labels[i].clone()]
        if batch.kwargs:
            yield {name: value[i].clone() for name, value in batch.kwargs.items()} | dict(zip(["labels"], label))
        else:
            sample = [value[i].clone() for value in batch.args] + label
            yield tuple(sample) if len(sample) > 1 else sample[0]


SOURCES.register(
    "python", Source("python", "path/to/file.py:function", "what a function of one's own returns", open_function)
)
