"""How far moments are shrunk: as far as they are uncertain, and so that inputs not seen before are served better."""

import pytest
import torch
from torch import nn

from polyad.batches import Batch, as_batches
from polyad.decompositions.base import FORMS
from polyad.metrics import METRICS
from polyad.metrics.moments import UNKNOWN, input_moment, shrinkage
from polyad.observe import observe
from polyad.records import Site, Statistics
from polyad.sites import weight_of
from polyad.solvers import fit, problems
from polyad.trace import trace


def images(count: int, seed: int) -> torch.Tensor:
    """(count, 8, 6, 6), each with a brightness of its own per channel, so that the patches of one are much alike."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(8, 8, generator=torch.Generator().manual_seed(7))
    own = torch.randn(count, 8, 1, 1, generator=generator)
    x = torch.randn(count, 8, 6, 6, generator=generator)
    return torch.einsum("ij,njhw->nihw", mixing, x + x.roll(1, -1) + 2 * own)


def seen(count: int, *, seed: int = 0, batch: int = 64) -> tuple[nn.Module, Site, Statistics]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 12, 3)).eval()
    (site,) = trace(model, Batch((images(2, 0),))).sites
    unseen = [Batch((images(500, 99),))]
    return model, site, observe(model, [site], as_batches(images(count, seed).split(batch)), unseen)[site.name]


def weight(count: int, *, seed: int = 0, batch: int = 64) -> float:
    _, site, statistics = seen(count, seed=seed, batch=batch)
    return float(shrinkage(input_moment(site, statistics), statistics.noise))


def test_it_falls_as_one_over_the_number_of_images() -> None:
    found = [weight(count) for count in (4, 16, 64, 256, 1024)]
    assert all(0 <= b < a <= 1 for a, b in zip(found, found[1:], strict=False)), found
    assert found[-1] < 0.01 and found[0] > 0.1
    assert found[1] / found[3] == pytest.approx(16, rel=0.6)


def test_it_is_that_of_images_and_not_of_patches() -> None:
    """The patches of an image are much alike: parting patches at random instead would see too little noise."""
    model, site, statistics = seen(32)
    rows = images(32, 0).unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 72).double()
    mixed = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    first, second = (torch.cov(half.T, correction=0) for half in mixed.chunk(2))
    scale = statistics.moment[0].diagonal().rsqrt()
    naive = ((first - second) * scale * scale[:, None]).square().sum() / 4
    assert float(statistics.noise) > 3 * float(naive)


def test_it_does_not_depend_on_how_images_come_in_batches() -> None:
    assert weight(32, batch=32) == pytest.approx(weight(32, batch=5), rel=1e-4)
    assert weight(32, batch=32) == pytest.approx(weight(32, batch=1), rel=1e-4)


def test_windows_of_one_image_stay_together() -> None:
    """A network that flattens samples and positions into one axis: the same noise as with both."""

    class Flat(nn.Module):
        def __init__(self, flat: bool) -> None:
            super().__init__()
            self.inner, self.flat = nn.Linear(8, 8), flat

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.flatten(0, 1) if self.flat else x).view(x.shape)

    x = images(20, 0).flatten(2).mT
    found = []
    for flat in (True, False):
        model = Flat(flat).eval()
        sites = trace(model, Batch((x[:2],))).sites
        found.append(observe(model, sites, as_batches(x.split(7)))["inner"].noise)
    assert torch.allclose(found[0], found[1], rtol=1e-4)


def test_a_single_image_says_nothing_of_the_noise() -> None:
    assert weight(1) == UNKNOWN


@pytest.mark.parametrize(("form", "ratio"), [("cp", 0.85), ("tucker2", 1.05)])
def test_it_helps_inputs_that_were_not_seen(form: str, ratio: float) -> None:
    """Mean over draws of six images. CP bends to the noise, Tucker-2 hardly does, and gains nothing here; with many
    images it hurts neither."""

    def error(norm: str, count: int, seed: int) -> float:
        model, site, statistics = seen(count, seed=seed)
        problem, unseen = problems(site, weight_of(model, site), METRICS[norm], statistics)
        rank = FORMS[form].ranks(site.layer, problem.weight.reshape(1, 12, 8, 9), [0.3])[-1]
        found = fit(FORMS[form], site.layer, problem, rank, steps=60)
        return unseen.relative(FORMS[form].reconstruct(found.factors).reshape(problem.weight.shape))

    few = {norm: sum(error(norm, 6, seed) for seed in range(4)) for norm in ("inputs", "inputs_full")}
    assert few["inputs"] < ratio * few["inputs_full"], few
    assert error("inputs", 500, 0) < 1.02 * error("inputs_full", 500, 0)
    assert error("inputs", 500, 0) < few["inputs"] / 4  # the mean of the four


@pytest.mark.parametrize("norm", ["inputs", "inputs_diagonal", "inputs_modes", "inputs_full"])
def test_every_input_norm_is_positive_and_keeps_the_diagonal(norm: str) -> None:
    _, site, statistics = seen(16)
    found = METRICS[norm].matrix(site, statistics)
    moment = input_moment(site, statistics)
    if found.dim() == 3:
        assert float(torch.linalg.eigvalsh(found).min()) > 0
        found = found.diagonal(dim1=-2, dim2=-1)
    assert float(found.sum()) == pytest.approx(float(moment.diagonal(dim1=-2, dim2=-1).sum()), rel=1e-3)


def test_the_mode_wise_norm_is_exact_where_modes_do_not_mix() -> None:
    """Channels mixed at each pixel, pixels independent: C is a Kronecker product."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 5, 2, bias=False)).eval()
    x = torch.einsum("ij,njhw->nihw", torch.randn(4, 4), torch.randn(4000, 4, 3, 3))
    (site,) = trace(model, Batch((x[:2],))).sites
    statistics = observe(model, [site], as_batches([x]))[site.name]
    found, full = (METRICS[name].matrix(site, statistics)[0] for name in ("inputs_modes", "inputs_full"))
    assert float((found - full).norm() / full.norm()) < 0.05
