"""Every layer is either a site or listed with the reason why not."""

import pytest
import torch
from torch import nn

from polyad.batches import Batch
from polyad.errors import ModelError, NumericalError
from polyad.trace import trace


def reasons(model: nn.Module, *inputs: torch.Tensor) -> dict[str, str]:
    return {refusal.name: refusal.reason for refusal in trace(model, Batch(inputs)).refused}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(tokens)))


class Twice(nn.Module):
    """One module under two names, run on inputs of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)[..., ::2, ::2])


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 4)
        self.free = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.free(self.read(x.to(self.read.weight.dtype)))


class Odd(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) * 2


class Plain(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return nn.functional.linear(input, self.weight, self.bias)


def test_tied_weights_are_refused_and_name_each_other() -> None:
    found = reasons(Tied(), torch.zeros(1, 3, dtype=torch.long))
    assert set(found) == {"head", "embed"}
    assert all("embed.weight" in reason and "head.weight" in reason for reason in found.values())


def test_a_module_called_twice_under_two_names_is_one_site() -> None:
    found = trace(Twice(), Batch((torch.zeros(2, 3, 8, 8),)))
    (site,) = found.sites
    assert (site.name, site.aliases, site.calls) == ("first", ("second",), 2)
    assert site.macs == 81 * (64 + 16)
    assert found.params == 84


def test_layers_that_cannot_be_hidden_are_refused() -> None:
    found = trace(Reader(), Batch((torch.zeros(2, 4),)))
    assert [site.name for site in found.sites] == ["free"]
    assert "reads its attributes" in found.refused[0].reason


def test_subclasses_are_sites_only_with_the_standard_forward() -> None:
    assert "forward is not that" in reasons(nn.Sequential(Odd(4, 4)), torch.ones(2, 4))["0"]
    assert reasons(nn.Sequential(Plain(4, 4)), torch.ones(2, 4)) == {}


def test_weights_that_are_computed_unused_or_hooked_are_refused() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].register_forward_hook(lambda module, args, output: None)
    model.add_module("3", nn.Identity())
    model[3].spare = nn.Linear(2, 2)
    found = reasons(model, torch.ones(2, 4))
    assert "computed from other tensors" in found["0"]
    assert "hooks" in found["1"]
    assert "never runs it" in found["3.spare"]
    assert set(found) == {"0", "1", "3.spare"}


def test_attention_projections_read_by_their_parent_are_refused() -> None:
    found = reasons(nn.Sequential(Wrapped()), torch.ones(2, 3, 8))
    assert "never runs it" in found["0.attention.out_proj"]


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


def test_batch_norm_behind_is_seen_only_where_it_alone_takes_the_output() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    between = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4))
    shared = nn.BatchNorm2d(4)
    twice = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.Conv2d(4, 4, 3), shared)
    norms = [
        [site.norm_behind for site in trace(model, Batch((torch.ones(1, 3, 9, 9),))).sites]
        for model in (plain, between, twice)
    ]
    assert norms == [["1"], [None], [None, None]]


def test_nothing_changes_by_tracing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = list(model.modules())
    trace(model, Batch((torch.rand(2, 3, 9, 9),)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_macs_of_a_network_of_tokens_and_of_images() -> None:
    found = trace(nn.Sequential(nn.Linear(5, 7)), Batch((torch.zeros(4, 11, 5),)))
    assert found.sites[0].macs == 11 * 35
    found = trace(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, groups=1)), Batch((torch.zeros(4, 3, 9, 9),)))
    assert found.sites[0].macs == 16 * 216


def test_errors_name_the_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(NumericalError, match="weight of 1 holds NaN"):
        trace(model, Batch((torch.ones(1, 3),)))
    with pytest.raises(ModelError, match="nothing to compress"):
        trace(nn.Sequential(nn.ReLU()), Batch((torch.ones(1, 3),)))
    assert "wrap it" in reasons(nn.Linear(3, 3), torch.ones(1, 3))[""]
