"""The Llama-style network and its weight files: what it computes, what is read, what is refused."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from language import TINY, write_weights
from polyad.errors import DataError, ModelError, NumericalError
from polyad.weights import load_weights, read_state_dict
from polyad.zoo.llama2c import Llama2c, rotary_tables, rotated


def tokens(*shape: int, below: int = TINY.tokens) -> torch.Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def tiny() -> Llama2c:
    torch.manual_seed(0)
    return Llama2c(TINY).eval()  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------------- the network
def test_a_position_sees_only_what_came_before(tiny: Llama2c) -> None:
    x = tokens(2, 9)
    other = x.clone()
    other[:, 6:] = (other[:, 6:] + 1) % TINY.tokens
    with torch.no_grad():
        before, after = tiny(x), tiny(other)
        assert before.shape == (2, 9, TINY.tokens)
        assert torch.allclose(before[:, :6], after[:, :6], atol=1e-6)
        assert not torch.allclose(before[:, 6:], after[:, 6:], atol=1e-2)
        assert torch.allclose(tiny(x[:, :4]), before[:, :4], atol=1e-6)


def test_rotary_positions_make_scores_depend_on_distance() -> None:
    cos, sin = rotary_tables(40, 8)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 40, 8)
    q, k = rotated(q, cos, sin)[0, 0], rotated(k, cos, sin)[0, 0]
    scores = q @ k.T
    for distance in range(-20, 20):
        along = scores.diagonal(distance)
        assert torch.allclose(along, along[0].expand_as(along), atol=1e-4)
    assert scores[0].std() > 1e-3
    x = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 4)  # neighbours are a pair; position 1 turns the first by 1 radian
    turned = rotated(x, *(table[1:2] for table in rotary_tables(2, 4)))
    assert torch.allclose(turned.flatten(), torch.tensor([0.5403023, 0.8414710, 0, 0]))


def test_too_long_a_sequence_is_refused(tiny: Llama2c) -> None:
    with pytest.raises(DataError, match="17 tokens; expected at most 16"):
        tiny(tokens(1, 17))


# ---------------------------------------------------------------------------------------------------------- the weights
def test_weights_of_llama2c(tiny: Llama2c, tmp_path: Path) -> None:
    path = write_weights(tmp_path / "tiny.bin", tiny, TINY)
    found = Llama2c(TINY).eval()
    load_weights(found, path)
    assert found.head.weight is found.embedding.weight
    with torch.no_grad():
        assert torch.equal(found(tokens(2, 9)), tiny(tokens(2, 9)))
    assert set(read_state_dict(path)) == set(tiny.state_dict()) - {"head.weight"}


def header(**changes: int) -> Callable[[bytes], bytes]:
    sizes = replace(TINY, **changes)
    numbers = [getattr(sizes, name) for name in ("width", "hidden", "layers", "heads", "kv_heads", "tokens", "context")]
    return lambda raw: struct.pack("<7i", *numbers) + raw[28:]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[:-1], "bytes; expected 13,756"),
        (lambda raw: raw[:1000], "has 1,000 bytes; expected 13,756"),
        (lambda raw: raw + b"\0", "damaged, or of another version"),
        (lambda raw: raw[:20], "has 20 bytes; expected a header of 7 whole numbers"),
        (lambda raw: b"", "has 0 bytes; expected a header"),
        (lambda raw: b"ak42" + raw[4:], "expected those of a llama2.c network"),
        (lambda raw: b"PK\x03\x04" + raw[4:], "name a file that torch.save wrote .pth"),
        (header(layers=0), "layers 0"),
        (header(tokens=-300), "tokens -300"),
        (header(heads=3), "heads a divisor of width"),
        (header(kv_heads=3), "kv_heads a divisor of heads"),
        (header(hidden=2**31 - 1), "hidden 2147483647"),
        (header(layers=3), "for the sizes in its header (width 8, hidden 12, layers 3"),
    ],
)
def test_damaged_weights(tiny: Llama2c, tmp_path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path = write_weights(tmp_path / "tiny.bin", tiny, TINY)
    path.write_bytes(damage(path.read_bytes()))
    before = {key: tensor.clone() for key, tensor in tiny.state_dict().items()}
    with pytest.raises(ModelError) as error:
        load_weights(tiny, path)
    assert str(path) in str(error.value) and says in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in tiny.state_dict().items())


@pytest.mark.parametrize("changes", [{"heads": 2, "kv_heads": 1}, {"tokens": 299}, {"hidden": 16}])
def test_weights_of_another_network(tiny: Llama2c, tmp_path: Path, changes: dict[str, int]) -> None:
    """Heads leave no trace in the shapes, so that the header has to be looked at."""
    other = replace(TINY, **changes)
    path = write_weights(tmp_path / "other.bin", Llama2c(other), other)
    with pytest.raises(ModelError, match=f"expected {TINY}; came {other}. Give the weights"):
        load_weights(tiny, path)
    with pytest.raises(ModelError, match="and Sequential is none: load it into zoo:llama2c"):
        load_weights(nn.Sequential(nn.Linear(8, 8)), path)


def test_weights_that_are_not_finite(tiny: Llama2c, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny.layers[1].mlp.up.weight[0, 0] = torch.nan  # type: ignore[union-attr, index]
    with pytest.raises(NumericalError, match=r"layers\.1\.mlp\.up\.weight in .*tiny\.bin"):
        load_weights(Llama2c(TINY), write_weights(tmp_path / "tiny.bin", tiny, TINY))
