"""A network on a graphics card is compressed there, to the same result as on the CPU; what is handed in may lie on
either."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import polyad
from polyad.batches import Batch, as_batches
from polyad.observe import observe
from polyad.peaks import peak
from polyad.pipeline import Result
from polyad.propose import propose
from polyad.records import Plan
from polyad.settings import Settings, Training
from polyad.trace import trace
from polyad.training.soap import Soap

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no graphics card")


class Small(nn.Module):
    """A shortcut, a batch norm, groups, a transposed convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.norm(self.conv(x)))
        x = torch.relu(self.up(torch.relu(self.grouped(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Convolutions of a card take 10 bits of each factor by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        for _ in range(20):  # means and variances of the batch norm
            model(torch.randn(32, 3, 12, 12))
    model.eval()
    return model, deepcopy(model).to(DEVICE)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(80, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().cpu().double() - expected.detach().double()).norm() / expected.double().norm())


def everywhere(model: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in model.state_dict().values()}


def both(networks: tuple[nn.Module, nn.Module], images: Tensor, plan: Plan, recover: str) -> tuple[Result, Result]:
    """The same plan carried out here and there, the data on the CPU."""
    here, there = (polyad.compress(model, images, plan=plan, recover=recover, samples=80) for model in networks)
    return here, there


def same_outputs(here: nn.Module, there: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return apart(there(images.to(DEVICE)), here(images))


def test_statistics_are_the_same(networks: tuple[nn.Module, nn.Module], images: Tensor) -> None:
    here, there = (
        observe(model, trace(model, Batch((images[:2],))).sites, as_batches(images), curvature=True)
        for model in networks
    )
    for name, expected in here.items():
        found = there[name]
        assert found.moment.device.type == "cpu" and found.moment.dtype is torch.float64
        assert apart(found.moment, expected.moment) < 1e-4 and apart(found.mean, expected.mean) < 1e-4
        assert apart(found.curvature, expected.curvature) < 0.2  # a label may be drawn otherwise


def test_menus_are_the_same(networks: tuple[nn.Module, nn.Module], images: Tensor) -> None:
    menus = []
    for model in networks:
        found = trace(model, Batch((images[:2],)))
        statistics = observe(model, found.sites, as_batches(images))
        menus.append(propose(model, found, statistics, Settings(forms=("svd", "tucker2"))))
    here, there = menus
    for site, candidates in here.candidates.items():
        assert [(c.form, c.rank) for c in there.candidates[site]] == [(c.form, c.rank) for c in candidates]
        assert [c.damage for c in there.candidates[site]] == pytest.approx([c.damage for c in candidates], abs=1e-3)


@pytest.mark.parametrize("recover", ["none", "statistics", "refit"])
def test_results_are_the_same(networks: tuple[nn.Module, nn.Module], images: Tensor, recover: str) -> None:
    plan = polyad.plan(networks[0], images, budget=polyad.Budget(params=0.6), forms=("svd",), samples=80)
    here, there = both(networks, images, plan, recover)
    assert everywhere(there.model) == {DEVICE}
    errors = [[row.output_error for row in result.report.sites] for result in (there, here)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-4)
    assert same_outputs(here.model, there.model, images) < (1e-3 if recover == "refit" else 1e-4)


@pytest.mark.parametrize("options", [{"allocator": "evbmf"}, {"metric": "curvature"}, {"metric": "weights"}])
def test_every_way_to_a_plan(networks: tuple[nn.Module, nn.Module], images: Tensor, options: dict[str, str]) -> None:
    budget = polyad.Budget(params=0.6)
    found = polyad.compress(
        networks[1], images.to(DEVICE), budget=budget, samples=80, forms=("svd", "tucker2"), recover="none", **options
    )
    assert found.report.params.kept <= 0.6
    assert everywhere(found.model) == {DEVICE}


def test_memory_counts_as_on_the_cpu(networks: tuple[nn.Module, nn.Module], images: Tensor) -> None:
    """The inputs once, though they are moved."""
    here, there = (peak(model, Batch((images,))) for model in networks)
    assert there == here > 0


def test_a_saved_network_loads_on_the_card(
    networks: tuple[nn.Module, nn.Module], images: Tensor, tmp_path: Path
) -> None:
    budget = polyad.Budget(params=0.6)
    found = polyad.compress(networks[1], images, budget=budget, samples=80, forms=("svd",), work=tmp_path / "work")
    polyad.save(found, tmp_path / "small")
    again = polyad.load(tmp_path / "small", model=Small()).to(DEVICE).eval()
    assert same_outputs(found.model.cpu(), again, images) < 1e-4


@pytest.mark.parametrize("level", ["reconstruction", "distillation"])
@pytest.mark.parametrize("home", ["cpu", DEVICE])
def test_a_training_runs_on_the_card(
    networks: tuple[nn.Module, nn.Module], images: Tensor, level: str, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a network that lies beside it, to which it is given back; terms of CP are made small before."""
    devices: set[str] = set()
    step = Soap.step

    def watched(self: Soap) -> None:
        devices.update(one.device.type for group in self.param_groups for one in group["params"])
        step(self)

    monkeypatch.setattr(Soap, "step", watched)
    model = networks[home == DEVICE]
    fixed = {name: ("cp", (4,)) for name in ("conv", "stem")}
    start = polyad.compress(model, images, budget=polyad.Budget(params=0.9), samples=80, fixed=fixed, recover="none")
    training = Training(epochs=30, batch=16, augment="none", rate=3e-3)
    found = polyad.recover(start, model, images, level=level, training=training, samples=80)
    assert devices == {DEVICE}
    assert everywhere(found.model) == {home} == everywhere(model)
    with torch.no_grad():
        expected = model(images.to(home)).cpu()
        before, after = (apart(one.model(images.to(home)), expected) for one in (start, found))
    assert after < before
