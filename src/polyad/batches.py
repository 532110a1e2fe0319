"""What a stage gets as data: batches that know how to run a network."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.data import DataLoader, Dataset, Subset

from polyad.errors import DataError, NumericalError, PolyadError

SAMPLES = 64
"""Samples in a batch where the data comes without batches: a tensor or a Dataset."""

EXPECTED = "a tensor, a tuple of tensors (the last one may be labels), a dict of tensors or a Batch"


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass, with their labels where there are any.

    Attributes:
        args: positional inputs, tensors (samples, ...).
        kwargs: inputs by name, tensors (samples, ...).
        labels: (samples,) class indices; (samples, positions) the token that the output at each position stands for,
            which for a language model is the one behind it; or whatever else the data calls labels.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None

    def run(self, model: nn.Module) -> Any:
        """model(*args, **kwargs), the inputs moved to where the model is."""
        here = self.beside(model)
        return model(*here.args, **here.kwargs)

    @property
    def size(self) -> int:
        """Number of samples: the first axis of the first input that has one."""
        return next((len(leaf) for leaf in tree_iter((self.args, self.kwargs)) if _has_samples(leaf)), 1)

    @property
    def elements(self) -> int:
        """Numbers in all inputs together."""
        return sum(leaf.numel() for leaf in tree_iter((self.args, self.kwargs)) if isinstance(leaf, Tensor))

    def take(self, n: int) -> "Batch":
        """The first n samples."""
        return self if n >= self.size else self.part(0, n)

    def part(self, start: int, stop: int) -> "Batch":
        """Samples start ... stop - 1; inputs that all samples share (no axis of that size) stay as they are."""
        return self.pick(slice(start, stop))

    def pick(self, which: slice | Tensor) -> "Batch":
        """Samples by their positions, in that order; what all share stays as it is."""
        size = self.size
        return self.each(lambda leaf: leaf[which] if leaf.dim() and len(leaf) == size else leaf)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return self.each(lambda leaf: leaf.to(device))

    def beside(self, model: nn.Module) -> "Batch":
        """The same batch where the model is."""
        parameter = next(model.parameters(), None)
        return self if parameter is None else self.to(parameter.device)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor in it changed, labels too."""
        parts = (self.args, self.kwargs, self.labels)
        return Batch(*tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, parts))


class Sequences(Dataset):
    """Sequences of tokens for a network that predicts the one that follows: each is a batch of its own, for their
    lengths differ. Items (tokens int64 (positions,), the token behind each int64 (positions,)).

    Args:
        sequences: int64 (positions + 1,), from the first token, which is only seen, to the last, only predicted.
    """

    def __init__(self, sequences: Sequence[Tensor]) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sequence = self.sequences[index]
        return sequence[:-1], sequence[1:]


def sequence_loader(dataset: Dataset) -> DataLoader | None:
    """Each of `Sequences`, or of a part of them, as a batch; None for another set."""
    origin = dataset
    while isinstance(origin, Subset):
        origin = origin.dataset
    return DataLoader(dataset, 1, collate_fn=_one_sequence) if isinstance(origin, Sequences) else None


def as_batch(item: Any) -> Batch:
    """One item of a data loader as a batch.

    A tensor is the input. In a tuple the last element is the labels when it is an integer tensor with at most one axis,
    or one with more axes behind floating-point inputs (class maps); all else is input, so two float tensors are two
    inputs. A label without an axis belongs to one sample without a batch axis, as a Dataset gives it; that axis is
    added. In a dict "labels" or "label" is taken out and the rest goes in by name. A `Batch` says what it is.

    Raises:
        DataError: it is none of these, or there is not one label per sample.
    """
    if isinstance(item, Batch):
        batch = item
    elif isinstance(item, Tensor):
        batch = Batch((item,))
    elif isinstance(item, Mapping):
        batch = _from_mapping(item)
    elif isinstance(item, (tuple, list)) and item:
        batch = _from_sequence(tuple(item))
    else:
        empty = " without elements" if isinstance(item, (tuple, list)) else ""
        raise DataError(f"it is a {type(item).__name__}{empty}; expected {EXPECTED}")
    return _checked(batch)


def as_batches(data: Any, samples: int | None = None) -> list[Batch]:
    """All batches of some data, or the first ones that hold `samples` samples (the last one is cut).

    Args:
        data: a DataLoader, an iterable of tensors, tuples, dicts or `Batch`, a Dataset, or one of these items, which
            holds all samples. An iterator is read no further than needed.
        samples: how many; all of them by default.

    Raises:
        DataError: there are no samples, or it is not data.
        NumericalError: an input holds NaN or infinity.
    """
    return list(each_batch(data, samples))


def each_batch(data: Any, samples: int | None = None) -> Iterator[Batch]:
    """The batches of `as_batches` one by one, so that a large data set need not fit into memory."""
    if samples is not None and samples < 1:
        raise DataError(f"{samples} samples were asked for; at least one is needed.")
    left, found = samples, False
    for number, item in enumerate(_items(data), 1):
        batch = _read(item, number)
        if not batch.size:
            continue
        found = True
        batch = batch if left is None else batch.take(left)
        yield batch
        left = None if left is None else left - batch.size
        if left is not None and left <= 0:  # before the next item is asked for: a generator may be needed again
            return
    if not found:
        raise DataError("The data is empty: expected at least one sample (a generator can be read only once).")


def is_integer(value: Any) -> bool:
    """Whether it is a tensor of whole numbers (bool counts as a mask)."""
    return isinstance(value, Tensor) and not (
        value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )


def _from_mapping(item: Mapping[str, Any]) -> Batch:
    inputs = dict(item)
    labels = inputs.pop("label", None)
    labels = inputs.pop("labels", labels)
    if not any(_has_samples(leaf) for leaf in tree_iter(inputs)):
        raise DataError(f"it is a dict without input tensors (keys: {', '.join(map(str, item)) or 'none'})")
    return Batch((), inputs, labels if labels is None or isinstance(labels, Tensor) else torch.as_tensor(labels))


def _from_sequence(item: tuple[Any, ...]) -> Batch:
    if not isinstance(item[0], (Tensor, tuple, list, Mapping)):
        raise DataError(f"it is a tuple that begins with a {type(item[0]).__name__}; expected {EXPECTED}")
    *inputs, last = item
    labels = torch.tensor(last) if type(last) is int else last
    if not inputs or not _are_labels(inputs, labels):
        return Batch(item)
    if labels.dim() == 0:
        inputs = tree_map(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, inputs)
    return Batch(tuple(inputs), {}, labels.reshape(1) if labels.dim() == 0 else labels)


def _are_labels(inputs: list[Any], last: Any) -> bool:
    class_maps = any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in tree_iter(inputs))
    return is_integer(last) and (last.dim() <= 1 or class_maps)


def _checked(batch: Batch) -> Batch:
    if batch.labels is not None and batch.labels.dim() and len(batch.labels) != batch.size:
        raise DataError(f"it has {batch.size} samples and {len(batch.labels)} labels; expected one label per sample")
    return batch


def _items(data: Any) -> Iterable[Any]:
    """What to iterate over; data that is itself one batch, or samples without batches, is cut into batches."""
    if isinstance(data, (Batch, Tensor, Mapping)) or (isinstance(data, tuple) and _is_labelled(data)):
        return _cut(_read(data, 1))
    if isinstance(data, Dataset):
        return sequence_loader(data) or DataLoader(data, SAMPLES)
    if isinstance(data, str):
        raise DataError(f"The data is the text {data!r}; open it first, with polyad.open_data({data!r}).")
    if isinstance(data, nn.Module) or not isinstance(data, Iterable):
        raise DataError(
            f"The data is a {type(data).__name__}, which cannot be iterated over; expected a DataLoader, a Dataset, "
            "an iterable of tensors, tuples or dicts, or a tensor."
        )
    return data


def _is_labelled(data: tuple[Any, ...]) -> bool:
    """(inputs, labels) in place of a list of batches: one whole number for each row of the first tensor."""
    if len(data) < 2 or not isinstance(data[0], Tensor):
        return False
    return is_integer(data[-1]) and data[-1].shape == data[0].shape[:1]


def _one_sequence(items: list[Any]) -> Batch:
    """Said outright that the second are labels: of two tensors of whole numbers both would be taken for inputs."""
    ((tokens, following),) = items
    return Batch((tokens[None],), labels=following[None])


def _cut(batch: Batch) -> Iterator[Batch]:
    return (batch.part(start, start + SAMPLES) for start in range(0, batch.size, SAMPLES))


def _read(item: Any, number: int) -> Batch:
    try:
        batch = as_batch(item)
    except DataError as error:
        raise DataError(f"Batch {number} of the data cannot be read: {error}.") from None
    named = [*((f"input {i}", value) for i, value in enumerate(batch.args)), *batch.kwargs.items()]
    for name, value in named:
        for leaf in tree_iter(value):
            if isinstance(leaf, Tensor) and not leaf.isfinite().all():
                raise NumericalError(
                    f"Batch {number} of the data holds NaN or infinity in {name}, of shape {tuple(leaf.shape)}; "
                    "expected finite numbers. Leave these samples out, or look at the division that made them."
                )
    return batch


def _has_samples(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0


def run_on(network: nn.Module, batch: Any, what: str) -> Any:
    """What `batch.run(network)` gives.

    Args:
        network: any.
        batch: a Batch, or anything with `run(network)`.
        what: the batch is called in the message.

    Raises:
        DataError: the network refuses the batch.
    """
    try:
        return batch.run(network)
    except (PolyadError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a network raises over inputs that it was not made for
        cause = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise DataError(
            f"The network refuses {what}{_shapes(batch)}: {type(error).__name__}: {cause}. "
            "Give inputs of the number, shape and type that it was trained with."
        ) from error


def _shapes(batch: Any) -> str:
    if not isinstance(batch, Batch):
        return ""
    named = [*(("", value) for value in batch.args), *((f"{name} ", value) for name, value in batch.kwargs.items())]
    texts = [
        f"{name}{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}" for name, value in named
    ]
    return f", of shape {', '.join(texts)}"
