"""What a stage gets as data: every shape in which people hand it over, samples drawn and loaded, what is refused."""

from collections import UserDict, namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from polyad.batches import SAMPLES, Batch, as_batch, as_batches, each_batch
from polyad.data import DataSource, calibration_and_evaluation, loader
from polyad.errors import DataError, ModelError, NumericalError
from polyad.outputs import outputs_tensor

X = torch.arange(10 * 3, dtype=torch.float32).view(10, 3)
Y = torch.arange(10) % 4


class Echo(nn.Module):
    """Returns what it is called with."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


def inputs(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.args[0] for batch in batches])


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


@pytest.mark.parametrize(
    "data",
    [
        X,
        [X[:4], X[4:]],
        [(X[:4],), [X[4:]]],
        iter([X[:4], X[4:]]),
        DataLoader(TensorDataset(X), 4),
        TensorDataset(X),
        Stream(),
        [Batch((X,))],
        Batch((X,)),
        (batch for batch in X.split(3)),
    ],
    ids=["tensor", "list", "one-tuples", "iterator", "loader", "dataset", "stream", "batches", "batch", "generator"],
)
def test_unlabelled_data_in_every_shape(data: Any) -> None:
    batches = as_batches(data)
    assert torch.equal(inputs(batches), X)
    assert all(batch.labels is None for batch in batches)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        [(X[:4], Y[:4]), [X[4:], Y[4:]]],
        DataLoader(TensorDataset(X, Y), 4),
        TensorDataset(X, Y),
        list(TensorDataset(X, Y)),
        [(x, int(y)) for x, y in zip(X, Y)],
        [{"x": X[:4], "labels": Y[:4]}, {"x": X[4:], "label": Y[4:].tolist()}],
        {"x": X, "labels": Y},
    ],
    ids=["pair", "pairs", "loader", "dataset", "samples", "int labels", "dicts", "dict"],
)
def test_labelled_data_in_every_shape(data: Any) -> None:
    batches = as_batches(data)
    found = torch.cat([batch.args[0] if batch.args else batch.kwargs["x"] for batch in batches])
    assert torch.equal(found, X)
    assert torch.equal(torch.cat([batch.labels for batch in batches if batch.labels is not None]), Y)


def test_a_large_tensor_is_cut_into_batches() -> None:
    batches = as_batches((torch.zeros(2 * SAMPLES + 1, 2), torch.zeros(2 * SAMPLES + 1, dtype=torch.long)))
    assert [batch.size for batch in batches] == [SAMPLES, SAMPLES, 1]


@pytest.mark.parametrize(
    ("item", "args"),
    [
        ((X, X), 2),  # two networks' worth of floats: both are inputs
        ((Y.view(5, 2), Y.view(5, 2)), 2),  # token ids and their mask
        ((X, X, Y), 2),
        ((X, torch.zeros(10, 4, 4, dtype=torch.long)), 1),  # class maps
        ((X, Y == 0), 2),  # a bool tensor is a mask
        ((Y,), 1),  # token ids alone
    ],
)
def test_what_of_a_tuple_is_input(item: tuple[Tensor, ...], args: int) -> None:
    batch = as_batch(item)
    assert len(batch.args) == args
    assert (batch.labels is None) == (args == len(item))


def test_any_mapping_goes_in_by_name() -> None:
    batch = as_batch(UserDict(input_ids=Y.view(5, 2), attention_mask=torch.ones(5, 2), labels=Y.view(5, 2)))
    assert batch.size == 5 and batch.labels is not None
    args, kwargs = batch.run(Echo())
    assert args == () and sorted(kwargs) == ["attention_mask", "input_ids"]


def test_take_part_and_shared_inputs() -> None:
    batch = Batch((X, torch.tensor(2.0)), {"scale": torch.ones(7), "mode": "a", "pair": (X, None)}, Y)
    some = batch.part(2, 5)
    assert some.size == 3
    assert some.labels is not None and torch.equal(some.args[0], X[2:5]) and torch.equal(some.labels, Y[2:5])
    assert some.kwargs["scale"].shape == (7,) and some.kwargs["mode"] == "a" and some.kwargs["pair"][0].shape == (3, 3)
    assert batch.take(99) is batch and batch.take(4).size == 4


def test_inputs_go_where_the_network_is() -> None:
    assert Batch((X,), {}, Y).to("meta").args[0].device.type == "meta"
    assert Batch((X,)).run(nn.Linear(3, 2, device="meta")).device.type == "meta"


def test_stops_at_the_samples_and_reads_no_further() -> None:
    read = []

    def generator() -> Iterator[Tensor]:
        for start in range(0, 10, 3):
            read.append(start)
            yield X[start : start + 3]

    batches = as_batches(generator(), samples=6)
    assert [batch.size for batch in batches] == [3, 3] and read == [0, 3]
    assert [batch.size for batch in as_batches(X.split(3), samples=7)] == [3, 3, 1]
    assert inputs(as_batches(X, samples=99)).shape == X.shape


def test_batches_come_one_by_one() -> None:
    assert torch.equal(next(each_batch(iter([X, "never read"]))).args[0], X)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "empty"),
        (iter(()), "read only once"),
        (torch.zeros(0, 3), "empty"),
        (7, "int, which cannot be iterated over"),
        (nn.Linear(2, 2), "Linear, which cannot be iterated over"),
        ("digits", r"polyad.open_data\('digits'\)"),
        ([X, "text"], "Batch 2 of the data cannot be read: it is a str"),
        ([()], "tuple without elements"),
        ([X.numpy()], "Batch 1 .* it is a ndarray"),
        ([("a", Y)], "begins with a str"),
        ([{"labels": Y}], r"without input tensors \(keys: labels\)"),
        ([(X, Y[:7])], "10 samples and 7 labels"),
    ],
)
def test_refuses_what_is_no_data(data: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        as_batches(data)


def test_refuses_no_samples() -> None:
    with pytest.raises(DataError, match="at least one"):
        as_batches(X, samples=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_refuses_inputs_that_are_not_finite(value: float) -> None:
    bad = X.clone()
    bad[3, 1] = value
    with pytest.raises(NumericalError, match="Batch 2 .*input 1, of shape"):
        as_batches([(X, X), (X, bad)])
    with pytest.raises(NumericalError, match="Batch 1 .*in mask"):
        as_batches([{"x": X, "mask": bad}])


Out = namedtuple("Out", "aux logits")


@pytest.mark.parametrize(
    "output",
    [
        X,
        (X, Y),
        [None, X],
        ((None, X), Y),
        {"loss": Y, "logits": X},
        {"out": X, "aux": Y},
        UserDict(logits=X),
        Out(Y, X),
        type("ModelOutput", (), {"logits": X})(),
    ],
)
def test_outputs_tensor(output: Any) -> None:
    assert outputs_tensor(output) is X


@pytest.mark.parametrize("output", [None, (), {"a": "b"}, 3.0])
def test_outputs_without_a_tensor_are_refused(output: Any) -> None:
    with pytest.raises(ModelError, match="without a tensor"):
        outputs_tensor(output)


def source_of(**sizes: int) -> DataSource:
    return DataSource("some", {name: TensorDataset(torch.arange(size)) for name, size in sizes.items()})


def drawn(source: DataSource, samples: int, seed: int) -> list[list[int]]:
    return [
        [int(part[i][0]) for i in range(len(part))]  # type: ignore[arg-type]
        for part in calibration_and_evaluation(source, samples, seed)
    ]


@pytest.mark.parametrize(
    ("sizes", "judged"),
    [
        ({"train": 20, "validation": 5, "test": 6}, 6),
        ({"train": 20, "validation": 5}, 5),
        ({"validation": 20, "test": 6}, 6),
        ({"all": 20}, 12),
        ({"test": 20}, 12),
        ({"train": 20}, 12),
    ],
)
def test_calibration_and_evaluation(sizes: dict[str, int], judged: int) -> None:
    fitted, rest = drawn(source_of(**sizes), 8, seed=3)
    assert len(set(fitted)) == 8 and max(fitted) > 7 and len(rest) == judged
    assert len(sizes) > 1 or sorted(fitted + rest) == list(range(20))
    assert drawn(source_of(**sizes), 8, seed=3) == [fitted, rest]
    assert drawn(source_of(**sizes), 8, seed=4)[0] != fitted


@pytest.mark.parametrize(
    ("sizes", "samples", "says"),
    [
        ({"all": 5}, 5, "leaves none to evaluate on"),
        ({"train": 5, "other": 5}, 2, "splits train, other; expected train and test"),
        ({"test": 5, "other": 5}, 2, "Name one, as in some#test"),
        ({"train": 5, "test": 5}, 0, "at least one"),
    ],
)
def test_refuses_to_draw(sizes: dict[str, int], samples: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        calibration_and_evaluation(source_of(**sizes), samples, 0)


def test_a_small_training_split_is_drawn_whole() -> None:
    assert sorted(drawn(source_of(train=5, test=3), 99, 0)[0]) == list(range(5))


def test_loader_keeps_the_order_and_refuses_mixed_shapes() -> None:
    assert [x.tolist() for (x,) in loader(TensorDataset(torch.arange(5)), 2)] == [[0, 1], [2, 3], [4]]
    mixed: Any = [(torch.zeros(3, 4), 0), (torch.zeros(3, 5), 1)]
    with pytest.raises(DataError, match=r"\(3, 4\) and \(3, 5\). Give one size"):
        list(loader(mixed, 2))
    assert len(list(loader(mixed, 1))) == 2
    with pytest.raises(DataError, match="batch size is 0"):
        loader(mixed, 0)
