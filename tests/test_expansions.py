"""An expanded module gives what the original gives: every option, gradients, modes, keys, export."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from polyad.errors import DataError
from polyad.expansions.base import EXPANSIONS

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}
DTYPES = st.sampled_from(list(TOLERANCE))
OFTEN = settings(max_examples=80, deadline=None, derandomize=True)
RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def expanded(module: nn.Module, kind: str, parts: tuple[int, ...] = ()) -> nn.Module:
    found = EXPANSIONS[kind]
    assert found.takes(module) and found.refuses(module, parts) is None
    return found.expand(module, parts)


def tensors(output: object) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def assert_same(found: object, expected: object, tolerance: float) -> None:
    pairs = list(zip(tensors(found), tensors(expected), strict=True))
    assert pairs
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def filled(module: nn.Module) -> nn.Module:
    """Biases too are random: as PyTorch makes them, an attention's are zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.6, 0.6)
    return module


@st.composite
def attentions(draw: st.DrawFn) -> tuple[nn.MultiheadAttention, tuple, dict, float]:
    """An attention with inputs and options of its forward."""
    dtype, heads, batched = draw(DTYPES), draw(st.integers(1, 4)), draw(st.booleans())
    dim = heads * draw(st.integers(1, 4))
    n, length, positions = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    kdim, vdim = draw(st.sampled_from([(None, None), (5, 3), (dim, 7)]))
    torch.manual_seed(draw(st.integers(0, 9)))
    batch_first = draw(st.booleans())
    module = nn.MultiheadAttention(
        dim, heads, bias=draw(st.booleans()), kdim=kdim, vdim=vdim, batch_first=batch_first, dtype=dtype
    )
    shapes = [(length, dim), (positions, kdim or dim), (positions, vdim or dim)]
    if batched:
        shapes = [(n, t, e) if batch_first else (t, n, e) for t, e in shapes]
    inputs = tuple(torch.randn(shape, dtype=dtype) for shape in shapes)
    if kdim is None and draw(st.booleans()):
        inputs, positions = (inputs[0],) * 3, length  # self-attention: the original may take its fast path
    options = draw(masks(dtype, n if batched else 1, heads, length, positions))
    if not batched and "key_padding_mask" in options:
        options["key_padding_mask"] = options["key_padding_mask"][0]
    options |= {"need_weights": draw(st.booleans()), "average_attn_weights": draw(st.booleans())}
    return filled(module), inputs, options, TOLERANCE[dtype]


@st.composite
def masks(draw: st.DrawFn, dtype: torch.dtype, n: int, heads: int, length: int, positions: int) -> dict:
    boolean, options = draw(st.booleans()), {}

    def mask(*shape: int) -> torch.Tensor:
        found = torch.rand(shape) < 0.4
        found[..., 0] = False  # a row without any position has no attention: NaN, or 0 on the fast path
        return found if boolean else torch.where(found, -3.0, 0.7).to(dtype)

    if draw(st.booleans()):
        options["key_padding_mask"] = mask(n, positions)
    kind = draw(st.sampled_from(["none", "all", "each", "causal"]))
    if kind in ("all", "each"):
        options["attn_mask"] = mask(length, positions) if kind == "all" else mask(n * heads, length, positions)
    if kind == "causal":
        causal = torch.ones(length, positions, dtype=torch.bool).triu(1)
        options["attn_mask"] = causal if boolean else torch.zeros(causal.shape, dtype=dtype).masked_fill(causal, -1e9)
        options["is_causal"] = True
    return options


@OFTEN
@given(attentions(), st.booleans(), st.booleans())
def test_attention_is_the_same(case: tuple, training: bool, grad: bool) -> None:
    module, inputs, options, tolerance = case
    module.train(training)
    with torch.set_grad_enabled(grad):
        found = expanded(module, "attention")(*inputs, **options)
        expected = module(*inputs, **options)
    assert (found[1] is None) == (not options["need_weights"])
    assert_same(found, expected, tolerance)


@st.composite
def recurrences(draw: st.DrawFn) -> tuple[nn.RNNBase, tuple, float]:
    """A recurrent module with an input and perhaps an initial state."""
    kind, dtype, batched = draw(st.sampled_from(sorted(RECURRENT))), draw(DTYPES), draw(st.booleans())
    size, hidden, n, steps = (draw(st.integers(low, 5)) for low in (1, 2, 1, 1))
    options: dict = {"num_layers": draw(st.integers(1, 3)), "bidirectional": draw(st.booleans())}
    options |= {"batch_first": draw(st.booleans()), "bias": draw(st.booleans()), "dtype": dtype}
    if kind == "lstm":
        options["proj_size"] = draw(st.integers(0, hidden - 1))
    if kind == "rnn":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    torch.manual_seed(draw(st.integers(0, 9)))
    module = RECURRENT[kind](size, hidden, **options)
    shape = (n, steps, size) if options["batch_first"] else (steps, n, size)
    arguments: tuple = (torch.randn(shape if batched else (steps, size), dtype=dtype),)
    if draw(st.booleans()):
        count = options["num_layers"] * (1 + options["bidirectional"])
        sizes = [options.get("proj_size") or hidden, *([hidden] if kind == "lstm" else [])]
        states = tuple(torch.randn((count, n, s) if batched else (count, s), dtype=dtype) for s in sizes)
        arguments += (states if kind == "lstm" else states[0],)
    return filled(module), arguments, TOLERANCE[dtype]


@OFTEN
@given(recurrences())
def test_recurrent_modules_are_the_same(case: tuple) -> None:
    module, arguments, tolerance = case
    assert_same(expanded(module, "recurrent")(*arguments), module(*arguments), tolerance)


@OFTEN
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.booleans(), DTYPES)
def test_splits_are_the_same(parts: list[int], bias: bool, dtype: torch.dtype) -> None:
    module = filled(nn.Linear(4, sum(parts), bias=bias, dtype=dtype))
    x = torch.randn(2, 3, 4, dtype=dtype)
    assert_same(expanded(module, "split", tuple(parts))(x), module(x), TOLERANCE[dtype])


MODULES = {
    "attention": (lambda: nn.MultiheadAttention(8, 2, dropout=0.4), (torch.randn(5, 3, 8),) * 3),
    "other_sizes": (
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
        tuple(torch.randn(5, 3, k) for k in (8, 4, 4)),
    ),
    "lstm": (lambda: nn.LSTM(6, 4, 2, dropout=0.4, bidirectional=True, proj_size=3), (torch.randn(5, 3, 6),)),
    "gru": (lambda: nn.GRU(6, 4, 2, batch_first=True), (torch.randn(5, 3, 6),)),
    "split": (lambda: nn.Linear(6, 9), (torch.randn(5, 6),)),
}
KINDS = {"other_sizes": "attention", "lstm": "recurrent", "gru": "recurrent"}


def pair(name: str) -> tuple[nn.Module, nn.Module, tuple]:
    torch.manual_seed(0)
    make, inputs = MODULES[name]
    module = filled(make())
    kind = KINDS.get(name, name)
    return module, expanded(module, kind, (4, 3, 2) if kind == "split" else ()), inputs


@pytest.mark.parametrize("name", MODULES)
def test_parameters_are_copies_of_the_same_number_in_linear_layers(name: str) -> None:
    module, found, inputs = pair(name)
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in module.parameters())
    layers = [part for part in found.modules() if type(part) is nn.Linear]
    assert {id(p) for layer in layers for p in layer.parameters()} == {id(p) for p in found.parameters()}
    before = found.eval()(*inputs)
    torch.manual_seed(1)
    filled(module)
    assert_same(found(*inputs), before, 0)
    assert not {p.data_ptr() for p in module.parameters()} & {p.data_ptr() for p in found.parameters()}


@pytest.mark.parametrize("name", MODULES)
def test_gradients_are_the_same(name: str) -> None:
    module, found, inputs = pair(name)
    grads = []
    for one in (module.eval(), found.eval()):
        given_ = [x.clone().requires_grad_() for x in inputs]
        sum(t.square().sum() for t in tensors(one(*given_))).backward()  # type: ignore[union-attr]
        assert all(p.grad is not None for p in one.parameters())
        total = sum(p.grad.square().sum() for p in one.parameters())  # type: ignore[union-attr]
        grads.append([*(x.grad for x in given_), total])
    assert_same(grads[1], grads[0], 1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_modes_and_frozen_weights_stay(name: str) -> None:
    make, _ = MODULES[name]
    module = make().eval()
    kind = KINDS.get(name, name)
    next(module.parameters()).requires_grad_(False)
    with torch.no_grad():
        found = expanded(module, kind, (4, 3, 2) if kind == "split" else ())
    assert not any(part.training for part in found.modules())
    frozen = sum(p.numel() for p in found.parameters() if not p.requires_grad)
    assert frozen == next(module.parameters()).numel()
    assert expanded(module.to("meta"), kind, (4, 3, 2) if kind == "split" else ()).training is False


def test_keys_of_the_state_are_those_of_linear_layers() -> None:
    keys = set(pair("attention")[1].state_dict())
    assert keys == {f"{part}_proj.{kind}" for part in ("q", "k", "v", "out") for kind in ("weight", "bias")}
    lstm = expanded(nn.LSTM(3, 4, 1, bidirectional=True, proj_size=2), "recurrent")
    layers = ("ih_l0", "hh_l0", "hr_l0", "ih_l0_reverse", "hh_l0_reverse", "hr_l0_reverse")
    assert [name for name, _ in lstm.named_children()] == list(layers)
    assert set(pair("split")[1].state_dict()) == {f"{n}.{kind}" for n in range(3) for kind in ("weight", "bias")}


@pytest.mark.parametrize("name", ["attention", "lstm"])
def test_dropout_is_that_of_the_original_in_training(name: str) -> None:
    module, found, inputs = pair(name)
    outputs = []
    for one in (module, found):
        one.train()
        torch.manual_seed(5)
        outputs.append(one(*inputs))
    assert_same(outputs[1], outputs[0], 1e-5)
    torch.manual_seed(6)
    assert not torch.allclose(tensors(found(*inputs))[0], tensors(outputs[1])[0])
    assert torch.equal(tensors(found.eval()(*inputs))[0], tensors(found(*inputs))[0])


@pytest.mark.parametrize("name", MODULES)
def test_expanded_modules_are_exported(name: str) -> None:
    module, found, inputs = pair(name)
    expected = module.eval()(*inputs)
    assert_same(torch.export.export(found.eval(), inputs).module()(*inputs), expected, 1e-5)
    assert_same(torch.jit.trace(found, inputs)(*inputs), expected, 1e-5)


def test_what_would_broadcast_silently_is_an_error() -> None:
    attention = expanded(nn.MultiheadAttention(4, 2, batch_first=True), "attention")
    x, one = torch.randn(3, 5, 4), torch.randn(1, 5, 4)
    for arguments, options in [
        ((x, one, one), {}),
        ((x, x, x[:, :1]), {}),
        ((x, x, x), {"attn_mask": torch.zeros(1, 5)}),
        ((x, x, x), {"attn_mask": torch.zeros(1, 5, 5)}),
        ((x, x, x), {"key_padding_mask": torch.zeros(1, 5)}),
        ((x, x, x), {"key_padding_mask": torch.zeros(3, 5, dtype=torch.int)}),
        ((x, x, x), {"is_causal": True}),
    ]:
        with pytest.raises(RuntimeError):
            attention(*arguments, **options)
    lstm = expanded(nn.LSTM(4, 6, batch_first=True), "recurrent")
    with pytest.raises(DataError, match=r"expected \[\(1, 3, 6\), \(1, 3, 6\)\]"):
        lstm(x, (torch.zeros(1, 1, 6), torch.zeros(1, 1, 6)))
    with pytest.raises(DataError, match="PackedSequence"):
        lstm(pack_sequence([x[0], x[1, :2]]))


def test_what_no_expansion_carries_is_refused_with_the_reason() -> None:
    refuses = EXPANSIONS["attention"].refuses
    assert "add_bias_kv" in (refuses(nn.MultiheadAttention(4, 2, add_bias_kv=True), ()) or "")
    assert "add_zero_attn" in (refuses(nn.MultiheadAttention(4, 2, add_zero_attn=True), ()) or "")
    odd = nn.MultiheadAttention(4, 2)
    odd.out_proj = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))  # type: ignore[assignment]
    assert "Sequential" in (refuses(odd, ()) or "")
    raw = nn.LSTM(3, 3)
    weight = raw.weight_hh_l0
    del raw.weight_hh_l0
    raw.weight_hh_l0 = weight * 1  # as some dropout on weights does it
    assert "weight_hh_l0 is computed" in (EXPANSIONS["recurrent"].refuses(raw, ()) or "")
    for parts, says in [((2, 2), "9 outputs"), ((9,), "no sizes"), ((10, -1), "no sizes")]:
        assert says in (EXPANSIONS["split"].refuses(nn.Linear(3, 9), parts) or "")
