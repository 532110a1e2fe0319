"""How factors are executed: match, parameters and multiply-accumulates on drawn layers; orders; what is exported."""

from itertools import permutations
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from awkward import LAYERS, build
from polyad.decompositions.base import FORMS, Decomposition
from polyad.execution.build import in_a_row
from polyad.execution.contraction import ROWS, contract, macs, path
from polyad.execution.order import _macs, _roles, _state, steps
from polyad.layers import LayerSpec
from polyad.records import Rank


@st.composite
def layers(draw: st.DrawFn) -> tuple[LayerSpec, tuple[int, ...]]:
    """Any layer that networks have, and the spatial size of an input that it accepts."""
    kind = draw(st.sampled_from(["linear", "embedding", "conv", "conv", "conv_transpose"]))
    small = st.integers(1, 6)
    if kind in ("linear", "embedding"):
        inp, out = draw(st.sampled_from([1, 5, 8, 12, 16])), draw(st.sampled_from([1, 3, 8, 12]))
        bias = kind == "linear" and draw(st.booleans())
        return LayerSpec(kind=kind, in_features=inp, out_features=out, bias=bias), (draw(small),)
    dims, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 1, 2, 3]))
    inp, out = groups * draw(st.sampled_from([1, 3, 4, 8])), groups * draw(st.sampled_from([1, 2, 4, 8]))

    def axes(values: st.SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(values) for _ in range(dims))

    kernel, stride, dilation = axes(st.integers(1, 4)), axes(st.integers(1, 3)), axes(st.integers(1, 2))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding: tuple[int, ...] | str = tuple(draw(st.integers(0, min(2, r))) for r in reach)
    mode, extra = "zeros", ()
    if kind == "conv":
        mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
        if draw(st.booleans()) and stride == (1,) * dims:
            padding = draw(st.sampled_from(["same", "valid"]))
    else:
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        assume(all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)))
    size = tuple(r + draw(st.integers(2, 4)) for r in reach)
    fields = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding, "output_padding": extra}
    bias = draw(st.booleans())
    spec = LayerSpec(
        kind=kind, in_features=inp, out_features=out, bias=bias, groups=groups, padding_mode=mode, **fields
    )
    assume(all(length > 0 for length in spec.output_size(size)))
    return spec, size


def inputs_of(layer: LayerSpec, size: tuple[int, ...], samples: int = 2) -> torch.Tensor:
    if layer.kind == "embedding":
        return torch.randint(layer.in_features, (samples, *size))
    shape = (samples, *size, layer.in_features) if layer.kind == "linear" else (samples, layer.in_features, *size)
    return torch.randn(shape, dtype=torch.float64)


def random_factors(form: Decomposition, layer: LayerSpec, rank: Rank) -> list[torch.Tensor]:
    factors = [torch.randn(shape, dtype=torch.float64) for shape in form.factor_shapes(layer, rank)]
    if form.reorders:
        groups, out, *_ = layer.weight_shape
        factors.append(torch.stack([torch.randperm(out) for _ in range(groups)]))
    return factors


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=layers(), data=st.data())
def test_match_count_or_refuse(name: str, drawn: tuple[LayerSpec, tuple[int, ...]], data: st.DataObject) -> None:
    """Laws 1 and 4 on drawn layers, ranks and factors: outputs, parameters and MACs."""
    layer, size = drawn
    found = FORMS[name].variants(layer)
    assert bool(found) >= (FORMS[name].refuses(layer) is None)
    if not found:
        return
    form = data.draw(st.sampled_from(list(found)), label="form")
    rank = tuple(data.draw(st.integers(1, top), label="rank") for top in form.max_rank(layer))
    torch.manual_seed(0)
    factors, inputs = random_factors(form, layer, rank), inputs_of(layer, size)
    dense = layer.build(torch.float64)
    with torch.no_grad():
        dense.weight.copy_(layer.native(form.reconstruct(factors)))
    module = form.skeleton(layer, rank, torch.float64)
    form.load(module, layer, factors, dense.bias if layer.bias else None)
    assert sum(parameter.numel() for parameter in module.parameters()) == form.params(layer, rank)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        outputs = module(inputs[:1])
    assert counted.get_total_flops() == 2 * form.macs(layer, rank, size)
    expected = dense(inputs)
    scale = float(expected.abs().max()) + 1e-12
    assert float((outputs - expected[:1]).abs().max()) < 1e-9 * scale
    assert float((module(inputs) - expected).abs().max()) < 1e-9 * scale


def one(form: str, layer: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, torch.Tensor, Decomposition]:
    """A factorised layer at half of its largest rank, with random factors; refused pairs skip."""
    model, inputs = build(layer, dtype)
    spec = LayerSpec.of(model[0])
    if FORMS[form].refuses(spec):
        pytest.skip(f"{form} refuses {layer}")
    rank = tuple(max(1, top // 2) for top in FORMS[form].max_rank(spec))
    module = FORMS[form].skeleton(spec, rank, dtype)
    FORMS[form].load(module, spec, random_factors(FORMS[form], spec, rank), getattr(model[0], "bias", None))
    return module.eval(), inputs, FORMS[form]


@pytest.mark.parametrize("layer", ["linear_tokens", "embedding", "conv_wide", "conv_grouped", "transposed"])
@pytest.mark.parametrize("form", FORMS)
def test_the_exported_graph_has_no_einsum_and_the_same_outputs(form: str, layer: str) -> None:
    """Also for any batch size."""
    module, inputs, _ = one(form, layer, torch.float32)
    batch = torch.export.Dim("batch", min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(module, (inputs,), dynamic_shapes=({0: batch},))
        names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert names and not [name for name in names if "einsum" in name]
        for samples in (inputs, torch.cat([inputs, inputs])):
            torch.testing.assert_close(program.module()(samples), module(samples), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [name for name in LAYERS if not name.startswith(("linear", "embedding"))])
@pytest.mark.parametrize("form", FORMS)
def test_no_order_of_the_factors_is_cheaper(form: str, layer: str) -> None:
    """The dynamic program against all permutations."""
    spec = LayerSpec.of(build(layer)[0][0])
    for variant in FORMS[form].variants(spec)[:2]:
        network = variant.network(spec, tuple(max(1, top // 2) for top in variant.max_rank(spec)))
        count = len(network.factors)
        if count > 5:
            continue

        def cost(order: tuple[int, ...]) -> int:
            total = 0
            for at, factor in enumerate(order):
                channels, size = _state(network, spec, order[:at])  # noqa: B023
                total += _macs(network, spec, _roles(network, channels, factor, order[at + 1 :]), factor, size)  # noqa: B023
            return total

        chosen = tuple(step.factor for step in steps(network, spec))
        assert cost(chosen) == min(map(cost, permutations(range(count))))


def cheapest(tensors: tuple[str, ...], output: str, size: dict[str, int]) -> int:
    """Multiply-accumulates of the best pairwise order, by trying all of them."""
    if len(tensors) == 1:
        return 0
    best = None
    for a in range(len(tensors)):
        for b in range(a + 1, len(tensors)):
            rest = tuple(t for at, t in enumerate(tensors) if at not in (a, b))
            needed = set(output).union(*rest)
            joined = dict.fromkeys(tensors[a] + tensors[b])
            kept = "".join(letter for letter in joined if letter in needed)
            total = prod(size[letter] for letter in joined) + cheapest((*rest, kept), output, size)
            best = total if best is None else min(best, total)
    return best or 0


@pytest.mark.parametrize("form", ["tt_matrix", "tr_matrix", "kronecker", "group_svd", "stack_tucker/3", "stack_cp/3"])
def test_matrices_meet_their_factors_in_the_cheapest_order_for_the_rows_at_hand(form: str) -> None:
    layer = LayerSpec(kind="linear", in_features=24, out_features=30)
    rank = tuple(min(top, 4) for top in FORMS[form].max_rank(layer))
    network = FORMS[form].network(layer, rank)
    tensors, output, paths = (ROWS + network.inputs, *network.factors), ROWS + network.outputs, set()
    for rows in (1, 4, 64, 5000):
        sizes = ((ROWS, rows), *network.sizes)
        assert macs(tensors, output, sizes) == cheapest(tensors, output, dict(sizes))
        paths.add(path(tensors, output, sizes))
    if not in_a_row(network, layer) and len(network.factors) > 2:
        assert len(paths) > 1  # for many rows it pays to join factors first


def test_contraction_is_einsum() -> None:
    torch.manual_seed(0)
    size = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2}
    for names, output in ((("ab", "bc", "cd"), "da"), (("abe", "bce", "cde"), "ead"), (("ab", "ac", "ad"), "bcd")):
        tensors = [torch.randn([size[letter] for letter in letters], dtype=torch.float64) for letters in names]
        expected = torch.einsum(f"{','.join(names)}->{output}", *tensors)
        torch.testing.assert_close(contract(tensors, names, output, tuple(size.items())), expected)


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
        result = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return result


@pytest.mark.parametrize("form", ["svd", "tt_matrix", "tr_matrix", "kronecker", "stack_tucker/4", "stack_cp/4"])
def test_an_embedding_looks_rows_up_without_building_the_table(form: str) -> None:
    layer = LayerSpec(kind="embedding", in_features=4096, out_features=64)
    rank = tuple(min(top, 4) for top in FORMS[form].max_rank(layer))
    module = FORMS[form].skeleton(layer, rank)
    FORMS[form].load(module, layer, [f.float() for f in random_factors(FORMS[form], layer, rank)], None)
    held = max(parameter.numel() for parameter in module.parameters())
    with torch.no_grad(), _Largest() as seen:
        module(torch.tensor([[0, 17, 4095]]))
    assert 0 < seen.elements <= max(held, 4096 * 4)
    assert seen.elements < 4096 * 64 / 4


@pytest.mark.parametrize("layer", ["linear", "embedding", "conv_wide", "conv_grouped", "transposed"])
@pytest.mark.parametrize("form", FORMS)
def test_no_samples_give_no_outputs(form: str, layer: str) -> None:
    module, inputs, _ = one(form, layer, torch.float32)
    with torch.no_grad():
        assert module(inputs[:0]).shape == (0, *module(inputs).shape[1:])
