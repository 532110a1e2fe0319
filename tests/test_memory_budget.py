"""Bytes on disk and peak memory of activations: counted as they are measured, limited as they are counted."""

import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import polyad
from polyad.allocators.allocate import allocate
from polyad.batches import Batch
from polyad.decompositions.base import FORMS
from polyad.errors import BudgetError, ModelError
from polyad.peaks import peak, with_peaks
from polyad.propose import outline
from polyad.rebuild import swap
from polyad.settings import Settings
from polyad.sites import stacked
from polyad.storage import saved_bytes
from polyad.trace import trace
from polyad.zoo.base import ZOO


class Measured(TorchDispatchMode):
    """Bytes of the storages that are alive, by their end of life, while operations run; the largest sum is kept."""

    def __init__(self, constants: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in constants}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for leaf in tree_iter(found):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.known:
                self.add(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        return found

    def add(self, storage: torch.UntypedStorage) -> None:
        self.known.add(storage._cdata)
        self.now += storage.nbytes()
        weakref.finalize(storage, self.end, storage._cdata, storage.nbytes())

    def end(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def measured(model: nn.Module, x: torch.Tensor) -> int:
    """The exported graph, run by an interpreter that frees each value behind its last use."""
    module = torch.export.export(model.eval(), (x,)).module()
    mode = Measured([*module.parameters(), *module.buffers(), x])
    with torch.no_grad(), mode:
        torch.fx.Interpreter(module).run(x)
    return mode.peak + x.nbytes


class Residual(nn.Module):
    """An input that waits beside two layers, a concatenation, and results in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.one, self.two = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 48, 3, padding=1),
            nn.Conv2d(48, 16, 3, padding=1),
        )
        self.bn, self.act, self.head = nn.BatchNorm2d(48), nn.ReLU(inplace=True), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.two(self.act(self.bn(self.one(x))))
        return self.head(torch.cat([x, y], 1).mean((2, 3)))


IMAGES = torch.rand(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "sequence": lambda: nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=2), nn.ReLU(True), nn.Flatten(), nn.Linear(1536, 4)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_is_that_of_the_exported_graph(name: str) -> None:
    model = NETWORKS[name]()
    assert peak(model, Batch((IMAGES,))) == measured(model, IMAGES[:1])


@pytest.mark.parametrize("name", ["resnet20", "resnet8", "mobilenet_v2", "vgg16_bn"])
def test_the_peaks_of_known_networks(name: str) -> None:
    model = ZOO[name].build()
    x = torch.randn(1, 3, 32, 32)
    assert peak(model, Batch((x,))) == measured(model, x)


@pytest.mark.parametrize("form", FORMS)
def test_what_a_candidate_is_said_to_take_is_what_the_network_then_takes(form: str) -> None:
    """Every layer in the form at its smallest: the peak is the largest of what was said, or lies between the layers."""
    for build in NETWORKS.values():
        model, batch = build(), Batch((IMAGES,))
        try:
            menu = outline(model, trace(model, batch), Settings(forms=(form,)))
        except ModelError:
            continue  # the form carries no layer of it
        menu = with_peaks(model, menu, batch)
        least = menu.fixed("params") + sum(min(c.params for c in found) for found in menu.candidates.values())
        plan = allocate(menu, polyad.Budget(params=least, memory=menu.memory * 2))
        taken = [c for x in plan.choices for c in menu.candidates[x.site.name] if (c.form, c.rank) == (x.form, x.rank)]
        student = deepcopy(model)
        swap(student, plan.choices)
        assert max(menu.memory_elsewhere, *(c.memory for c in taken)) == measured(student, IMAGES[:1])
        assert menu.memory == measured(model, IMAGES[:1])
        assert plan.bytes == saved_bytes(student)


def wide() -> nn.Module:
    """A network whose peak lies in its second layer."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 24), (24, 24))]
    return nn.Sequential(
        layers[0], nn.ReLU(True), layers[1], nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    )


def test_a_limit_of_memory_is_kept_and_is_one_on_each_candidate() -> None:
    whole = peak(wide(), Batch((IMAGES,)))
    options = {"forms": ["svd", "tucker2"], "metric": "weights", "recover": "none"}
    free = polyad.compress(wide(), IMAGES, budget=polyad.Budget(params=0.95), **options)
    tight = polyad.compress(wide(), IMAGES, budget=polyad.Budget(memory=0.8, params=0.95), **options)
    alone = polyad.compress(wide(), IMAGES, budget=polyad.Budget(memory=0.8), **options)
    assert peak(free.model, Batch((IMAGES,))) > 0.8 * whole >= peak(tight.model, Batch((IMAGES,)))
    assert alone.report.memory is not None and alone.report.memory.before == whole
    assert 0.8 * whole >= alone.report.memory.after == measured(alone.model, IMAGES[:1])
    assert sum(c.damage for c in alone.plan.choices) <= sum(c.damage for c in tight.plan.choices) + 1e-9


def test_memory_out_of_reach_names_what_takes_it() -> None:
    with pytest.raises(BudgetError, match=r"memory=\d.* cannot be reached: .* takes [\d,]+ .*to [\d,]+ \(100 %\)"):
        polyad.plan(wide(), IMAGES, budget=polyad.Budget(memory=0.05), forms=["svd"], metric="weights")


def test_bytes_are_what_is_saved(tmp_path: Path) -> None:
    """In half of the bytes of float32, with batch norms, buffers and an order of outputs among what is saved."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 600),
    ).to(torch.bfloat16)  # fmt: skip
    options = {"forms": ["svd", "coupled_cp"], "metric": "weights", "recover": "none"}
    result = polyad.compress(model, IMAGES.to(torch.bfloat16), budget=polyad.Budget(bytes=0.4), **options)
    assert result.plan.bytes == result.report.bytes.after == saved_bytes(result.model)
    assert result.plan.bytes <= 0.4 * result.plan.bytes_before
    polyad.save(result, tmp_path / "small")
    file = tmp_path / "small" / "model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size - header == result.plan.bytes


class Twice(nn.Module):
    """One layer that runs twice, beside another of its shape, on rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(self.a(x))) + x
        return self.d(torch.relu(self.c(self.b(y) + y)))


@pytest.mark.parametrize(("form", "stack"), [("svd", ()), ("stack_tucker", ("[ab]",)), ("svd", ("[ab]",))])
def test_layers_that_run_twice_and_stacks(form: str, stack: tuple[str, ...]) -> None:
    model, rows = Twice(), torch.randn(3, 20, 16)
    menu = outline(model, stacked(trace(model, Batch((rows,))), stack), Settings(forms=(form,)))
    menu = with_peaks(model, menu, Batch((rows,)))
    least = menu.fixed("params") + sum(min(c.params for c in found) for found in menu.candidates.values())
    plan = allocate(menu, polyad.Budget(params=least))
    taken = [c for x in plan.choices for c in menu.candidates[x.site.name] if (c.form, c.rank) == (x.form, x.rank)]
    student = deepcopy(model)
    swap(student, plan.choices)
    assert max(menu.memory_elsewhere, *(c.memory for c in taken)) == measured(student, rows[:1].clone())


def test_more_than_was_asked_for_is_said() -> None:
    """A plan for another limit is carried out as it is, and what the network then takes is counted."""
    options = {"forms": ["svd"], "metric": "weights", "recover": "none"}
    plan = polyad.plan(wide(), IMAGES, budget=polyad.Budget(memory=1.0, params=0.95), forms=["svd"], metric="weights")
    result = polyad.compress(wide(), IMAGES, plan=plan.model_copy(update={"budget": "memory=50%"}), **options)
    assert result.report.memory is not None and "bytes where" in result.report.recovered[-1]


def test_a_floor_holds_in_the_whole_pipeline() -> None:
    options = {"forms": ["svd"], "metric": "weights"}
    plan = polyad.plan(wide(), IMAGES, budget=polyad.Budget(params=0.55), floor=0.4, **options)
    assert all(choice.params >= 0.4 * choice.site.params for choice in plan.choices)
    with pytest.raises(BudgetError, match="floor=1.5"):
        polyad.plan(wide(), IMAGES, budget=polyad.Budget(params=0.5), floor=1.5, **options)
