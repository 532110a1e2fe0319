"""The laws that every form obeys on every layer, in every norm: a form is tested by being registered."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from awkward import LAYERS, build
from polyad.batches import Batch, as_batches
from polyad.checkpoint import load_network, read_plan, save_network
from polyad.cost import site_macs
from polyad.decompositions.base import FORMS
from polyad.errors import FormError
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.rebuild import factorise, rebuild
from polyad.records import Choice, Plan, Rank, Site, Trace
from polyad.solvers import fit, fit_path, problems
from polyad.trace import trace

PAIRS = [(form, layer) for form in FORMS for layer in LAYERS]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def traced(model: nn.Module, inputs: torch.Tensor) -> tuple[Trace, Site]:
    found = trace(model, Batch((inputs,)))
    assert len(found.sites) == 1, found.refused
    return found, found.sites[0]


def plan_for(found: Trace, form: str, rank: Rank, metric: str) -> Plan:
    site = found.sites[0]
    params, macs = FORMS[form].params(site.layer, rank), site_macs(site, form, rank)
    choice = Choice(site=site, form=form, rank=rank, params=params, macs=macs, damage=0.0, why="law")
    return Plan(
        metric=metric, allocator="-", budget="-", choices=(choice,), params_before=found.params, macs_before=found.macs
    )


def middle(rank: Rank) -> Rank:
    return tuple(max(1, r // 2) for r in rank)


def ladder(form: str, site: Site) -> list[Rank]:
    """Ranks from 1 to the largest, growing in every entry."""
    largest = FORMS[form].max_rank(site.layer)
    steps = {tuple(max(1, round(top * share)) for top in largest) for share in (0.1, 0.25, 0.5, 0.75, 1)}
    return sorted(steps)


def carried(form: str, layer: str) -> tuple[nn.Sequential, torch.Tensor, Trace, Site]:
    """Skip the pairs that are refused: test_match_or_refuse looks at those."""
    model, inputs = build(layer)
    found, site = traced(model, inputs)
    if FORMS[form].refuses(site.layer):
        pytest.skip(f"{form} refuses {layer}")
    return model, inputs, found, site


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_match_or_refuse(form: str, layer: str, dtype: torch.dtype, metric: str) -> None:
    """1. The factorised layer equals the dense layer that carries the reconstructed weight, or is refused."""
    model, inputs = build(layer, dtype)
    if dtype is torch.float16 and layer.startswith(("transposed3d", "conv3d")):
        pytest.skip("PyTorch has no float16 kernel for it on the CPU")
    found, site = traced(model, inputs)
    if reason := FORMS[form].refuses(site.layer):
        assert len(reason) > 20
        with pytest.raises(FormError, match=form):
            FORMS[form].check(site.layer, (1,))
        return
    statistics = observe(model, found.sites, as_batches([inputs]))
    plan = plan_for(found, form, middle(FORMS[form].max_rank(site.layer)), metric)
    (fitted,) = factorise(model, plan, statistics, steps=3)
    student = rebuild(model, [fitted])
    dense = deepcopy(model).double()
    with torch.no_grad():
        weight = FORMS[form].reconstruct(fitted.factors)
        dense[0].weight.copy_(site.layer.native(weight))
        if fitted.shift is not None:
            dense[0].bias += fitted.shift
        expected = dense(inputs.double())
        assert student(inputs).dtype is dtype
        assert relative(student(inputs), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_exact_at_the_largest_rank(form: str, layer: str, metric: str) -> None:
    """2."""
    model, inputs, found, site = carried(form, layer)
    statistics = observe(model, found.sites, as_batches([inputs]))
    plan = plan_for(found, form, FORMS[form].max_rank(site.layer), metric)
    (fitted,) = factorise(model, plan, statistics)
    assert fitted.weight_error < 1e-12
    with torch.no_grad():
        assert relative(rebuild(model, [fitted])(inputs), model(inputs)) < 1e-5


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_error_never_rises_with_the_rank(form: str, layer: str, metric: str) -> None:
    """3."""
    model, inputs, found, site = carried(form, layer)
    statistics = observe(model, found.sites, as_batches([inputs]))
    problem, _ = problems(site, model[0].weight, METRICS[metric], statistics[site.name])
    errors = [fitted.error for fitted in fit_path(FORMS[form], site.layer, problem, ladder(form, site), steps=10)]
    assert all(b <= a + 1e-12 for a, b in zip(errors, errors[1:], strict=False)), errors


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_counts_are_the_equations(form: str, layer: str) -> None:
    """4. Parameters and MACs that the plan promises are those of the executed layers."""
    model, inputs, found, site = carried(form, layer)
    for rank in ladder(form, site):
        skeleton = FORMS[form].skeleton(site.layer, rank)
        params = FORMS[form].params(site.layer, rank)
        assert sum(parameter.numel() for parameter in skeleton.parameters()) == params
        counted = trace(nn.Sequential(skeleton), Batch((inputs,)))
        assert counted.params == params
        assert counted.macs == site_macs(site, form, rank)


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_plan_and_folder_come_back_with_the_same_bits(form: str, layer: str, tmp_path: Path) -> None:
    """5. plan -> JSON -> plan, and save -> load."""
    model, inputs, found, site = carried(form, layer)
    plan = plan_for(found, form, middle(FORMS[form].max_rank(site.layer)), "weights")
    student = rebuild(model, factorise(model, plan, {}, steps=3))
    save_network(student, plan, tmp_path)
    again = read_plan(tmp_path / "plan.json")
    assert again == plan
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path, model)(inputs), student(inputs))
        assert torch.equal(rebuild(model, factorise(model, again, {}, steps=3))(inputs), student(inputs))


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_original_is_untouched(form: str, layer: str) -> None:
    """6. The original keeps its tensors, and the result shares no storage with it."""
    model, inputs, found, site = carried(form, layer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted = factorise(model, plan_for(found, form, middle(FORMS[form].max_rank(site.layer)), "weights"), {}, steps=3)
    student = rebuild(model, fitted)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    storages = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    assert storages.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in student.state_dict().values())


@pytest.mark.parametrize("layer", ["conv_depthwise", "conv_multiplier", "conv_grouped", "conv3x3", "linear"])
@pytest.mark.parametrize("form", FORMS)
def test_dead_inputs_leave_finite_balanced_factors(form: str, layer: str) -> None:
    """Channels, and whole groups, that are always zero: what they cannot tell must not blow up in float32."""
    model, inputs, found, site = carried(form, layer)
    inputs[:, : max(1, inputs.shape[1] // 2)] = 0
    statistics = observe(model, found.sites, as_batches([inputs]))
    for rank in ladder(form, site):
        (fitted,) = factorise(model, plan_for(found, form, rank, "inputs"), statistics, steps=20)
        assert fitted.weight_error < 100
        assert max(float(factor.abs().max()) for factor in fitted.factors) < 100
        with torch.no_grad():
            assert relative(rebuild(model, [fitted])(inputs), model(inputs)) < 1.1


@pytest.mark.parametrize("form", FORMS)
def test_same_input_same_factors(form: str) -> None:
    """7. Also while other fits run beside it: nothing random, nothing shared."""
    model, inputs, found, site = carried(form, "conv3x3")
    statistics = observe(model, found.sites, as_batches([inputs]))
    problem, _ = problems(site, model[0].weight, METRICS["inputs"], statistics[site.name])
    rank = middle(FORMS[form].max_rank(site.layer))
    first, second = (fit(FORMS[form], site.layer, problem, rank).factors for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_a_rank_out_of_range_names_the_layer_and_the_range(form: str) -> None:
    """8."""
    model, _, found, site = carried(form, "conv3x3")
    largest = FORMS[form].max_rank(site.layer)
    for rank in (tuple(r + 1 for r in largest), (0,) * len(largest), (*largest, 1)):
        choice = plan_for(found, form, largest, "weights").choices[0].model_copy(update={"rank": rank})
        plan = plan_for(found, form, largest, "weights").model_copy(update={"choices": (choice,)})
        with pytest.raises(FormError, match=r"0: .*ranks from"):
            factorise(model, plan, {})
