"""A network is expanded only where it stays the same, and whatever stays as it is has its reason."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from expandable import Fused, Rows, Tokens, built, images
from polyad.batches import Batch
from polyad.errors import ModelError, PlanError
from polyad.expand import expand, parse_split, redo
from polyad.looking import trace_expanded
from polyad.splits import Call
from polyad.steps import Step
from polyad.trace import trace


def example(padded: bool = True) -> Batch:
    return Batch((images(4, padded),))


def reasons(model: nn.Module, batch: Batch | None = None) -> dict[str, str]:
    expanded = expand(model, batch or example())
    return {refusal.name: refusal.reason for refusal in expanded.refused}


def sites(model: nn.Module, batch: Batch | None = None) -> set[str]:
    batch = batch or example()
    return {site.name for site in trace_expanded(expand(model, batch), batch).sites}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}, {"bias": False}], ids=str)
def test_a_transformer_encoder_is_the_same_with_all_of_its_layers_as_sites(options: dict, padded: bool) -> None:
    model, x = built(Tokens, **options), images(6, padded)
    found = expand(model, Batch((x[:2],)))
    assert found.refused == ()
    inner = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "linear1", "linear2")
    assert sites(model) == {"embed", "head", *(f"encoder.layers.{n}.{part}" for n in (0, 1) for part in inner)}
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(found.model(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [None, "norm"])
def test_padded_positions_are_what_nested_tensors_leave_there(norm: str | None) -> None:
    """Every position, not only those that count: zeros behind the layers in evaluation, and none with gradients."""
    encoder = built(Tokens).encoder
    if norm is None:
        encoder.norm = None  # type: ignore[assignment]
    x = torch.randn(3, 5, 16)
    left = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 1, 1, 1, 1]]).bool()
    mask = torch.zeros(5, 5, dtype=torch.bool)
    found = expand(encoder, Batch((x,), {"src_key_padding_mask": left})).model
    assert found is not encoder
    for options in (
        {"src_key_padding_mask": left},
        {"src_key_padding_mask": left.float().masked_fill(left, float("-inf"))},
        {"src_key_padding_mask": left.flip(1)},
        {"src_key_padding_mask": left, "mask": mask},
        {"mask": mask.logical_not().triu(1), "is_causal": True},
        {},
    ):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(found(x, **options), encoder(x, **options), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert encoder(x, src_key_padding_mask=left)[1, 4].eq(0).all() == (norm is None)  # what is at stake


def test_decoder_layers_are_expanded_too() -> None:
    torch.manual_seed(0)
    model = nn.Transformer(16, 2, 1, 1, 32, batch_first=True).eval()
    source, target = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    batch = Batch((source, target), {"tgt_mask": nn.Transformer.generate_square_subsequent_mask(4)})
    found = expand(model, batch)
    assert found.refused == () and len(found.names) == 4
    names = {site.name for site in trace(found.model, batch).sites}
    assert {"decoder.layers.0.multihead_attn.k_proj", "decoder.layers.0.linear1", "encoder.layers.0.linear2"} <= names
    torch.testing.assert_close(batch.run(found.model), batch.run(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks_are_the_same(kind: type[nn.Module]) -> None:
    model = built(Rows, kind=kind)
    batch = example()
    found = expand(model, batch)
    assert found.names == {"rnn": Step(kind="recurrent")} and found.refused == ()
    torch.testing.assert_close(batch.run(found.model), batch.run(model), rtol=1e-4, atol=1e-5)
    traced = trace_expanded(found, batch)
    assert traced.params == sum(p.numel() for p in model.parameters())
    assert traced.site("rnn.hh_l0").calls == 8 and traced.site("rnn.ih_l0").calls == 1
    assert traced.site("rnn.hh_l0").macs == 8 * model.rnn.weight_hh_l0.numel()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", [Tokens, Rows])
def test_rounding_in_other_precisions_is_no_disagreement(make: type[nn.Module], dtype: torch.dtype) -> None:
    model, x = built(make).to(dtype), images(4).to(dtype)
    found = expand(model, Batch((x,)))
    assert found.names and found.refused == ()
    assert {p.dtype for p in found.model.parameters()} == {dtype}


def test_the_original_is_not_changed_and_shares_nothing() -> None:
    model = built(Tokens).train()
    modules, state = list(model.modules()), {k: v.clone() for k, v in model.state_dict().items()}
    found = expand(model, example())
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert all(module.training for module in (*model.modules(), *found.model.modules()))
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in found.model.parameters()}


def test_a_network_without_candidates_is_not_copied() -> None:
    model = Fused().eval()
    assert expand(model, example()).model is model
    hooked = built(Rows)
    hooked.rnn.register_forward_hook(lambda module, args, output: None)
    assert expand(hooked, example()).model is hooked


class Twice(nn.Module):
    def __init__(self, same: bool) -> None:
        super().__init__()
        self.a = nn.GRU(8, 8, batch_first=True)
        self.b = self.a if same else nn.GRU(8, 8, batch_first=True)
        self.b.weight_hh_l0 = self.a.weight_hh_l0
        self.head = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)[0])[0])


class Packs(Rows):
    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, [8] * len(x), batch_first=True)
        return self.head(self.rnn(packed)[1][0][0].repeat(1, 2))


class Reads(Rows):
    """Looks at a weight of its recurrent module."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.rnn.weight_ih_l0.dtype))


class Branches(Rows):
    """Does something else where its recurrent module is no longer an nn.LSTM."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if isinstance(self.rnn, nn.LSTM) else 2)


class Own(nn.LSTM):
    def forward(self, input: Tensor, hx: object = None) -> tuple:  # noqa: A002
        return super().forward(input * 2)


def with_hook(model: nn.Module) -> nn.Module:
    model.rnn.register_full_backward_hook(lambda module, before, after: None)  # type: ignore[union-attr]
    return model


def parametrized(model: nn.Module) -> nn.Module:
    nn.utils.parametrizations.weight_norm(model.rnn, "weight_hh_l0")  # type: ignore[arg-type]
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "shared": (lambda: Twice(True), "a", "a and b are one module"),
    "tied": (lambda: Twice(False), "b", "a.weight_hh_l0 and b.weight_hh_l0 are one tensor"),
    "hooks": (lambda: with_hook(Rows()), "rnn", "carries hooks"),
    "parametrized": (lambda: parametrized(Rows()), "rnn", "a parametrization"),
    "packed": (Packs, "rnn", "PackedSequence"),
    "read": (Reads, "rnn", "has no attribute 'weight_ih_l0'"),
    "branches": (Branches, "rnn", "its outputs differ by"),
    "own forward": (lambda: Rows(Own), "rnn", "forward is not that of LSTM"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_give_their_reason_and_leave_the_module(case: str) -> None:
    make, name, says = REFUSED[case]
    torch.manual_seed(0)
    model = make().eval()
    found = reasons(model, example(False))
    assert says in found[name]
    listed = trace_expanded(expand(model, example(False)), example(False)).refused
    refusal = next(refusal for refusal in listed if refusal.name == name)
    own = model.get_submodule(name)
    assert refusal.label == type(own).__name__
    assert refusal.params == sum(p.numel() for p in own.parameters(recurse=False))


def test_one_that_disagrees_does_not_take_the_others_with_it() -> None:
    model = nn.Sequential(Branches(), nn.Unflatten(1, (1, 10)), nn.GRU(10, 4, batch_first=True)).eval()
    found = expand(model, example(False))
    assert set(found.names) == {"2"} and [refusal.name for refusal in found.refused] == ["0.rnn"]
    torch.testing.assert_close(found.model(images(3))[0], model(images(3))[0])


def test_attention_stays_where_the_encoder_around_it_has_to_stay() -> None:
    model = built(Tokens)
    model.encoder.register_forward_hook(lambda module, args, output: None)  # type: ignore[union-attr]
    found = reasons(model)
    assert "hooks" in found["encoder"]
    assert "encoder around it" in found["encoder.layers.0.self_attn"]
    assert sites(model) == {"embed", "head"}


def test_a_network_that_is_such_a_module_itself() -> None:
    lstm = nn.LSTM(8, 8).eval()
    found = expand(lstm, example())
    assert set(found.names) == {""} and {name for name, _ in found.model.named_children()} == {"ih_l0", "hh_l0"}
    lstm.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(ModelError, match="it carries hooks"):
        trace_expanded(expand(lstm, example()), example())


def test_a_function_that_runs_the_network_is_an_example() -> None:
    model = built(Rows)
    found = expand(model, Call(lambda network: [network(x) for x in images(4).split(2)] and None))
    assert set(found.names) == {"rnn"}
    silent = expand(model, Call(lambda network: None))
    assert "no tensor" in silent.refused[0].reason


def test_splits_by_number_sizes_and_pattern_inside_expanded_modules_too() -> None:
    model, batch = built(Fused), example(False)
    for split, parts in (({"qkv": 3}, (16, 16, 16)), ({"re:q.*": (8, 24, 16)}, (8, 24, 16))):
        found = expand(model, batch, split)
        assert found.names == {"qkv": Step(kind="split", parts=parts)}
        assert [part.out_features for part in found.model.qkv] == list(parts)  # type: ignore[union-attr]
        torch.testing.assert_close(batch.run(found.model), batch.run(model))
    rows = expand(built(Rows), batch, {"rnn.ih_l*": 4})
    assert list(rows.names)[0] == "rnn" and len(rows.names) == 5
    torch.testing.assert_close(batch.run(rows.model), batch.run(built(Rows)), rtol=1e-4, atol=1e-5)
    again = redo(built(Rows), rows.names)
    assert torch.equal(batch.run(again), batch.run(rows.model))


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ({"nothing.*": 3}, "matches no linear layer; there are qkv, proj"),
        ({"qkv": 5}, "48 outputs do not make 5 equal parts"),
        ({"qkv": 1}, "do not make 1 equal parts"),
        ({"qkv": (16, 16)}, "48 outputs, and the parts .* have 32"),
        ({"re:(": 3}, "no regular expression"),
    ],
)
def test_a_split_that_cannot_be_is_an_error(split: dict, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        expand(built(Fused), example(), split)


def test_a_split_of_what_is_read_from_outside_is_an_error() -> None:
    model = built(Tokens)
    model.embed.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(PlanError, match="embed, which stays whole: it carries hooks"):
        expand(model, example(), {"embed": 2})


def test_splits_are_read_from_text() -> None:
    assert parse_split(["blocks.*.qkv=3", "re:a=b.*=64,32,32"]) == {"blocks.*.qkv": 3, "re:a=b.*": (64, 32, 32)}
    for text in ("qkv", "qkv=", "=3", "qkv=a", "qkv=3,", "qkv=-3"):
        with pytest.raises(PlanError, match="LAYER=PARTS"):
            parse_split([text])


def test_redoing_on_another_network_is_an_error() -> None:
    for names, says in (
        ({"gone": Step(kind="attention")}, "expands gone, which Rows does not have"),
        ({"head": Step(kind="attention")}, "is a Linear here"),
        ({"head": Step(kind="split", parts=(3, 4))}, "10 outputs"),
    ):
        with pytest.raises(PlanError, match=says):
            redo(built(Rows), names)
