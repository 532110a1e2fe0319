"""How images are varied."""

import pytest
import torch

from polyad.batches import Batch
from polyad.training.variation import Variation, mixed, shifted


def numbers(count: int, seed: int = 0) -> torch.Tensor:
    return Variation().draw(count, torch.Generator().manual_seed(seed))


def test_shifts_and_mirrors() -> None:
    image = torch.arange(64.0).view(1, 1, 8, 8) + 1
    moved = shifted(image.expand(3, 1, 8, 8), torch.tensor([[0.0, 0.5], [0.5, 0.5], [0.99, 0.99]]))
    assert torch.equal(moved[1], image[0]) and torch.equal(moved[0, 0, 1:], image[0, 0, :-1])
    assert torch.equal(moved[2, 0, :-1, :-1], image[0, 0, 1:, 1:]) and float(moved[2, 0, -1].abs().max()) == 0
    batch = Batch((image.expand(2, 1, 8, 8),), {"mask": torch.ones(2)}, torch.tensor([0, 1]))
    found = Variation(flip=True).apply(batch, torch.tensor([[0.1, 0, 0, 0], [0.9, 0, 0, 0]]))
    assert torch.equal(found.args[0][0], image[0].flip(-1)) and torch.equal(found.args[0][1], image[0])
    assert found.labels is batch.labels and torch.equal(found.kwargs["mask"], torch.ones(2))


@pytest.mark.parametrize("way", ["blended", "pasted"])
def test_mixtures_hold_the_share_of_the_other_image(way: str) -> None:
    """Of a box as much as lies inside."""
    images = torch.arange(64.0).reshape(64, 1, 1, 1).expand(64, 3, 24, 40)
    drawn = numbers(64)[:, 3:]
    drawn[:, 1] = 0.0 if way == "blended" else 1.0
    drawn[:, 2:] = 0.5
    found, other = mixed(images, drawn), images.flip(0)
    shares = ((found - images) / (other - images))[:, 0]
    assert (shares.mean((1, 2)) - drawn[:, 0]).abs().max() < 0.06
    inside = shares.unique().tolist()
    assert inside == [0.0, 1.0] if way == "pasted" else torch.allclose(shares[:, 0, 0], drawn[:, 0], atol=1e-4)


def test_a_box_lies_where_it_is_drawn() -> None:
    images = torch.stack([torch.zeros(1, 10, 10), torch.ones(1, 10, 10)])
    found = mixed(images, torch.tensor([[0.04, 0.9, 0.0, 1.0], [0.16, 0.9, 0.5, 0.5]]))
    assert found[0].nonzero()[:, 1:].tolist() == [[0, 9]]  # half of its sides of two lies outside
    assert (1 - found[1]).nonzero()[:, 1:].aminmax(dim=0).min.tolist() == [3, 3] and found[1].sum() == 84


def test_half_of_a_batch_is_mixed_either_way_and_labels_stay() -> None:
    batch = Batch((torch.rand(400, 1, 8, 8),), {"mask": torch.ones(400)}, torch.arange(400))
    found = Variation(mix=True).apply(batch, numbers(400))
    images, other = batch.args[0], batch.args[0].flip(0)
    either = ((found.args[0] == images) | (found.args[0] == other)).flatten(1).all(1)
    assert 160 < int(either.sum()) < 240
    assert found.labels is batch.labels and torch.equal(found.kwargs["mask"], batch.kwargs["mask"])
