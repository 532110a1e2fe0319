"""Finished work is found by its content alone, comes back bit for bit, and does not outlive a change."""

from pathlib import Path

import pytest
import torch
from torch import nn

import polyad
from polyad.errors import BudgetError, CheckpointError
from polyad.memory import bytes_text, parse_memory
from polyad.plugins import forget_forms, load_forms
from polyad.solvers import Problem
from polyad.work import Piece, Work, key_of

BUDGET = polyad.Budget(params=0.5)
IMAGES = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions and a linear layer, with a choice of what lies between them."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.head, self.between = nn.Linear(12, 6), between or nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.between(self.second(self.between(self.first(x))))
        return self.head(x.mean((2, 3)))


def run(folder: Path, model: nn.Module | None = None, images: torch.Tensor = IMAGES, **options) -> tuple:
    """The compressed weights, and how many pieces were taken and made."""
    work = Work(folder)
    result = polyad.compress(model or Net(), images, budget=BUDGET, forms=["svd", "cp"], work=work, **options)
    return result.model.state_dict(), dict(work.taken), dict(work.made)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_is_taken_as_a_whole(tmp_path: Path) -> None:
    plain = polyad.compress(Net(), IMAGES, budget=BUDGET, forms=["svd", "cp"]).model.state_dict()
    first, taken, made = run(tmp_path / "work")
    assert taken == {} and (made["statistics"], made["menu"]) == (3, 6)
    second, taken, made_again = run(tmp_path / "work")
    assert (taken, made_again) == (made, {})
    assert same(plain, first) and same(first, second)


def test_one_changed_weight_misses(tmp_path: Path) -> None:
    """In the last layer, so that all layers see what they saw: the fits of the others are taken."""
    run(tmp_path / "work")
    changed = Net()
    changed.head.weight.data[2, 3] += 1e-6
    found, taken, made = run(tmp_path / "work", changed)
    assert (taken["menu"], made["menu"], made["statistics"]) == (4, 2, 3)
    assert same(found, run(tmp_path / "fresh", changed)[0])


@pytest.mark.parametrize("what", ["code", "data", "held out", "settings"])
def test_whatever_statistics_and_fits_come_from_counts(tmp_path: Path, what: str) -> None:
    run(tmp_path / "work")
    model, images, options = Net(), IMAGES.clone(), {}
    if what == "code":
        model = Net(nn.GELU())  # the tensors of the network are the same
    elif what == "settings":
        options = {"round_to": 4}
    else:
        images[{"data": 5, "held out": -1}[what], 0, 0, 0] += 1e-3
    _, taken, made = run(tmp_path / "work", model, images, **options)
    unchanged = 2 if what == "code" else 0  # the first layer sees what it saw
    assert (taken.get("menu", 0), made["menu"]) == (unchanged, 6 - unchanged)
    assert made.get("statistics", 0) == (0 if what == "settings" else 3)


def test_the_code_of_a_form_counts(tmp_path: Path) -> None:
    """A form of one's own that was edited is another form, whatever it is called."""
    file = tmp_path / "own_form.py"
    text = (Path(__file__).parents[1] / "docs" / "own_form.py").read_text()
    seen = []
    for more in ("", "", "# another way to start\n"):
        file.write_text(text + more)
        work = Work(tmp_path / "work")
        (name,) = load_forms(file)
        polyad.compress(Net(), IMAGES, budget=BUDGET, forms=[name], work=work)
        forget_forms(file)
        seen.append((work.taken["menu"], work.made["menu"]))
    assert seen == [(0, 3), (3, 0), (0, 3)]


def test_a_function_in_the_place_of_data_keeps_its_fits(tmp_path: Path) -> None:
    for _ in range(2):
        work = Work(tmp_path / "work")
        polyad.compress(Net(), lambda model: model(IMAGES), budget=BUDGET, forms=["svd"], work=work)
    assert work.taken["menu"] == 3 and work.taken["statistics"] == 0


def test_a_key_is_the_content(tmp_path: Path) -> None:
    weight, matrix = torch.rand(1, 4, 6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)[None]
    problem = Problem(weight, matrix)
    assert problem.digest == Problem(weight.mT.contiguous().mT, matrix.clone()).digest
    others = [Problem(weight, None), Problem(weight, 2 * matrix), Problem(weight.reshape(2, 2, 6), matrix)]
    assert len({one.digest for one in (problem, *others)}) == 4
    assert key_of("fit", "a", (1, 2)) == key_of("fit", "a", (1, 2)) != key_of("fit", "a", (1, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    values = (torch.randn(5, 4) * 100).to(dtype)
    piece = Piece({"a": values, "part": values[1:3], "turned": values.t(), "none": values[:0]}, "tt/iwho")
    Work(tmp_path / "work").keep(key_of("fit", 1), piece)
    found = Work(tmp_path / "work").find(key_of("fit", 1))
    assert found is not None and found.text == piece.text
    assert found.tensors.keys() == piece.tensors.keys()
    assert all(torch.equal(found.tensors[name], piece.tensors[name]) for name in piece.tensors)


def test_what_is_damaged_or_misnamed_is_not_taken(tmp_path: Path) -> None:
    work, key = Work(tmp_path / "work"), key_of("fit", 1)
    work.keep(key, Piece({"a": torch.arange(9.0)}))
    (path,) = work.files
    good = path.read_bytes()
    for bad in (good[:-4], good[:7], b"", bytes(len(good)), good[:-1] + b"\x7f", b"\x80\x04pickle"):
        path.write_bytes(bad)
        assert work.find(key) is None
    path.write_bytes(good)
    path.rename(path.with_name(f"{key_of('fit', 2)}.safetensors"))
    assert work.find(key) is None and work.find(key_of("fit", 2)) is None
    made = work.remember(key, lambda: Piece({"a": torch.ones(1)}))
    assert torch.equal(made.tensors["a"], work.find(key).tensors["a"])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        polyad.compress(Net(), IMAGES, budget=BUDGET, work=tmp_path / "file" / "work")
    work = Work(tmp_path / "later")
    (tmp_path / "later").touch()
    with pytest.raises(CheckpointError, match="later cannot be written"):
        work.keep(key_of("fit", 1), Piece({}))


@pytest.mark.parametrize(
    ("text", "amount"),
    [("4GB", 4 * 10**9), ("4 gb", 4 * 10**9), ("1.5GiB", 3 * 2**29), ("512m", 512 * 10**6), ("2kB", 2000)],
)
def test_amounts_of_memory(text: str, amount: int) -> None:
    assert parse_memory(text) == amount


@pytest.mark.parametrize("text", ["4", "", "GB", "-1GB", "0MB", "4 bytes", "1,5GB", "50%"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(BudgetError, match="write a number with its unit"):
        parse_memory(text)
    with pytest.raises(BudgetError, match="give bytes"):
        polyad.Settings(memory=-5)


@pytest.mark.parametrize("amount", [1, 999, 1000, 1234567, 999_999_999, 10**9 + 1, 5 * 10**12])
def test_an_amount_that_is_asked_for_is_enough(amount: int) -> None:
    assert amount <= parse_memory(bytes_text(amount)) <= 1.02 * amount + 10
