"""The Conv1D of transformers, a linear layer that stores its weight as (in, out), is a site like any other."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.budget import Budget
from polyad.checkpoint import load_network
from polyad.decompositions.base import FORMS
from polyad.errors import FormError, PlanError
from polyad.layers import LayerSpec, is_layer
from polyad.patches import patch_blocks
from polyad.pipeline import compress, plan
from polyad.rebuild import swap
from polyad.records import Choice, Site
from polyad.saving import save
from polyad.trace import trace


class Conv1D(nn.Module):
    """As in transformers 4.57, which is not installed here."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.nx = nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.2)
        nn.init.normal_(self.bias, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.size()[:-1], self.nf)


Conv1D.__module__ = "transformers.pytorch_utils"


class Same(Conv1D):
    """A subclass that changes nothing."""


class Doubled(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Block(nn.Module):
    """Like the attention of GPT-2: (n, positions, 12) -> (n, positions, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = Conv1D(36, 12)
        self.c_proj = Same(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).split(12, 2)
        return self.c_proj(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


@pytest.fixture
def model() -> Block:
    torch.manual_seed(0)
    return Block().eval()


X = torch.randn(20, 5, 12, generator=torch.Generator().manual_seed(1))


def test_its_weight_is_understood_both_ways(model: Block) -> None:
    layer = model.c_attn
    spec = LayerSpec.of(layer)
    assert (spec.label, spec.in_features, spec.out_features, spec.bias) == ("Conv1D", 12, 36, True)
    assert spec.params == sum(p.numel() for p in layer.parameters())
    canonical = spec.canonical(layer.weight)
    assert canonical.shape == spec.weight_shape == (1, 36, 12)
    assert torch.equal(spec.native(canonical), layer.weight)
    (rows,) = patch_blocks(spec, X)
    torch.testing.assert_close(canonical @ rows + layer.bias[:, None], layer(X).reshape(-1, 36).t()[None])
    assert LayerSpec.model_validate_json(spec.model_dump_json()) == spec
    assert not LayerSpec.model_validate({"kind": "linear", "in_features": 2, "out_features": 3}).transposed


def test_only_the_class_of_transformers_counts() -> None:
    class Conv1D(nn.Module):  # another one of that name
        nf = 3
        weight = torch.zeros(2, 3)

    assert not is_layer(Conv1D()) and is_layer(Same(3, 2))


def test_it_is_a_site(model: Block) -> None:
    found = trace(model, Batch((X[:4],)))
    assert [site.name for site in found.sites] == ["c_attn", "c_proj"] and found.refused == ()
    assert found.sites[0].macs == 5 * 36 * 12
    model.c_proj = Doubled(12, 12)
    (refusal,) = trace(model, Batch((X[:4],))).refused
    assert refusal.label == "Conv1D" and "forward is not that of Conv1D" in refusal.reason


@pytest.mark.parametrize("metric", ["inputs", "weights"])
def test_it_is_compressed_into_linear_layers_saved_and_loaded(model: Block, metric: str, tmp_path: Path) -> None:
    result = compress(model, [X], budget=Budget(params=0.7), metric=metric, evaluation=[X])
    assert result.report.params.kept <= 0.7
    replaced = [choice for choice in result.plan.choices if not choice.dense]
    for choice in replaced:
        parts = list(result.model.get_submodule(choice.site.name))  # type: ignore[call-overload]
        assert [type(part) for part in parts] == [nn.Linear, nn.Linear]
        assert sum(p.numel() for part in parts for p in part.parameters()) == choice.params
    assert replaced
    save(result, tmp_path / "small")
    loaded = load_network(tmp_path / "small", Block())
    with torch.no_grad():
        assert torch.equal(loaded(X), result.model(X))


def test_at_the_largest_rank_it_is_the_same(model: Block) -> None:
    found = plan(model, [X], budget=Budget(params=0.9))
    full = tuple(choice.model_copy(update={"form": "svd", "rank": (12,)}) for choice in found.choices)
    result = compress(model, [X], plan=found.model_copy(update={"choices": full}))
    with torch.no_grad():
        torch.testing.assert_close(result.model(X), model(X), rtol=1e-4, atol=1e-5)


def test_it_can_be_split(model: Block) -> None:
    found = plan(model, [X], budget=Budget(params=0.7), split={"c_attn": 3})
    assert [choice.site.name for choice in found.choices] == ["c_attn.0", "c_attn.1", "c_attn.2", "c_proj"]
    result = compress(model, [X], plan=found)
    assert result.report.params.after == sum(p.numel() for p in result.model.parameters()) <= 0.7 * 624


def test_a_plan_for_it_does_not_fit_a_linear_layer(model: Block) -> None:
    found = plan(model, [X], budget=Budget(params=0.7))
    model.c_attn = nn.Linear(12, 36)  # type: ignore[assignment]
    model.c_proj = nn.Linear(12, 12)  # type: ignore[assignment]
    with pytest.raises(PlanError, match="made for another c_"):
        swap(model, found.choices)


def test_it_is_replaced_by_ordinary_linear_layers() -> None:
    spec = LayerSpec.of(Conv1D(3, 2))
    with pytest.raises(FormError, match="ordinary linear layer"):
        spec.build()
    assert all(type(layer) is nn.Linear for layer in FORMS["svd"].skeleton(spec, (1,)))
    site = Site(name="x", layer=spec, dtype="float32", runs=())
    choice = Choice(site=site, form="svd", rank=(1,), params=5, macs=0, damage=0.0, why="")
    model = nn.ModuleDict({"x": Conv1D(3, 2)})
    swap(model, [choice])
    assert [part.weight.shape for part in model["x"]] == [(1, 2), (3, 1)]  # type: ignore[attr-defined]
