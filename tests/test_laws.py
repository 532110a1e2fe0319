"""The laws that every form obeys on every layer, in every norm: a form is tested by being registered."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from awkward import LAYERS, build
from polyad.batches import Batch, as_batches
from polyad.checkpoint import load_network, read_plan, save_network
from polyad.cost import site_macs
from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import FormError
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.rebuild import factorise, rebuild
from polyad.records import Choice, Plan, Rank, Site, Statistics, Trace
from polyad.sites import weight_of
from polyad.solvers import fit, fit_path, problems
from polyad.trace import trace

PAIRS = [(form, layer) for form in FORMS for layer in LAYERS]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
EACH_KIND = ("linear", "embedding", "conv3x3", "conv_grouped", "transposed")
PLAIN_AND_GROUPED = ("conv3x3", "conv_grouped")
VARIANTS = ("inputs_diagonal", "inputs_full", "inputs_modes")
"""What a layer is like shows in any norm that weights all its inputs, so the inputs norm alone sees every layer. The
solver has one way each for no matrix, a matrix and a matrix at the outputs: weights and curvature see each kind of
layer. The variants of the inputs norm hand it another matrix: a layer with one group and one with several do. Types of
numbers come in behind the solver: in one norm."""


def layers_of(norm: str) -> tuple[str, ...]:
    if norm == "inputs":
        return tuple(LAYERS)
    return PLAIN_AND_GROUPED if norm in VARIANTS else EACH_KIND


NORMED = [(form, layer, norm) for norm in METRICS for form in FORMS for layer in layers_of(norm)]
TYPED = [(*case, dtype) for case in NORMED for dtype in TOLERANCE if case[2] == "inputs" or dtype is torch.float32]
NO_HALF = ("transposed3d", "conv3d")
"""Layers for which PyTorch has no float16 kernel on the CPU."""


@cache
def known(layer: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, torch.Tensor, Trace, Statistics]:
    """Network, inputs, trace and statistics of one layer; no test changes them."""
    model, inputs = build(layer, dtype)
    found = trace(model, Batch((inputs,)))
    assert len(found.sites) == 1, found.refused
    statistics = observe(model, found.sites, as_batches([inputs]), curvature=True)
    return model, inputs, found, statistics[found.sites[0].name]


def plan_for(found: Trace, form: Decomposition, rank: Rank, metric: str) -> Plan:
    site = found.sites[0]
    params, macs = form.params(site.layer, rank), site_macs(site, form.name, rank)
    choice = Choice(site=site, form=form.name, rank=rank, params=params, macs=macs, damage=0.0, why="law")
    return Plan(
        metric=metric, allocator="-", budget="-", choices=(choice,), params_before=found.params, macs_before=found.macs
    )


def middle(form: Decomposition, site: Site) -> Rank:
    return tuple(max(1, r // 2) for r in form.max_rank(site.layer))


def ladder(form: Decomposition, site: Site) -> list[Rank]:
    """Ranks from 1 to the largest, growing in every entry."""
    largest = form.max_rank(site.layer)
    steps = {tuple(max(1, round(top * share)) for top in largest) for share in (0.1, 0.25, 0.5, 0.75, 1)}
    return sorted(steps)


def variants(form: str, layer: str) -> Iterator[Decomposition]:
    """The arrangements of a form that carry a layer; refused pairs skip: test_match_or_refuse looks at those."""
    found = FORMS[form].variants(known(layer)[2].sites[0].layer)
    if not found:
        pytest.skip(f"{form} refuses {layer}")
    yield from found


def ends(form: str, layer: str) -> list[Decomposition]:
    """The first and the last arrangement, for the laws that take long."""
    found = list(variants(form, layer))
    return found[:1] + found[-1:] if len(found) > 1 else found


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def check_match(form: Decomposition, layer: str, dtype: torch.dtype, metric: str) -> None:
    """The factorised layer against the dense layer that carries the reconstructed weight."""
    model, inputs, found, statistics = known(layer, dtype)
    site = found.sites[0]
    plan = plan_for(found, form, middle(form, site), metric)
    (fitted,) = factorise(model, plan, {site.name: statistics}, steps=2)
    student = rebuild(model, [fitted])
    dense = deepcopy(model).double()
    with torch.no_grad():
        dense[0].weight.copy_(site.layer.native(form.reconstruct(fitted.factors)))
        if fitted.shift is not None:
            dense[0].bias += fitted.shift
        expected = dense(inputs.double() if inputs.is_floating_point() else inputs)
        assert student(inputs).dtype is dtype
        assert relative(student(inputs), expected) < TOLERANCE[dtype], form.name


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_match_or_refuse(form: str, layer: str) -> None:
    """1. The factorised layer equals the dense layer that carries the reconstructed weight, or is refused."""
    site = known(layer)[2].sites[0]
    if reason := FORMS[form].refuses(site.layer):
        assert len(reason) > 20
        with pytest.raises(FormError, match=form):
            FORMS[form].check(site.layer, (1,))
    for variant in FORMS[form].variants(site.layer):
        check_match(variant, layer, torch.float32, "inputs")
        assert FORMS[variant.name].name == variant.name


@pytest.mark.parametrize(("form", "layer", "metric", "dtype"), TYPED, ids=str)
def test_match_in_every_type_and_norm(form: str, layer: str, metric: str, dtype: torch.dtype) -> None:
    """1. In each type of weights."""
    if dtype is torch.float16 and layer.startswith(NO_HALF):
        pytest.skip("PyTorch has no float16 kernel for it on the CPU")
    check_match(next(variants(form, layer)), layer, dtype, metric)


@pytest.mark.parametrize(("form", "layer", "metric"), NORMED)
def test_exact_at_the_largest_rank(form: str, layer: str, metric: str) -> None:
    """2."""
    for variant in variants(form, layer):
        model, inputs, found, statistics = known(layer)
        site = found.sites[0]
        plan = plan_for(found, variant, variant.max_rank(site.layer), metric)
        (fitted,) = factorise(model, plan, {site.name: statistics})
        assert fitted.weight_error < 1e-12, variant.name
        with torch.no_grad():
            assert relative(rebuild(model, [fitted])(inputs), model(inputs)) < 1e-5


@pytest.mark.parametrize(("form", "layer", "metric"), NORMED)
def test_error_never_rises_with_the_rank(form: str, layer: str, metric: str) -> None:
    """3."""
    for variant in ends(form, layer):
        model, _, found, statistics = known(layer)
        site = found.sites[0]
        problem, _ = problems(site, weight_of(model, site), METRICS[metric], statistics)
        errors = [fitted.error for fitted in fit_path(variant, site.layer, problem, ladder(variant, site), steps=10)]
        assert all(b <= a + 1e-12 for a, b in zip(errors, errors[1:], strict=False)), (variant.name, errors)


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_counts_are_the_equations(form: str, layer: str) -> None:
    """4. The parameters that a plan promises are those of the executed layers (MACs: test_execution.py)."""
    for variant in variants(form, layer):
        site = known(layer)[2].sites[0]
        for rank in ladder(variant, site):
            skeleton = variant.skeleton(site.layer, rank)
            counted = sum(parameter.numel() for parameter in skeleton.parameters())
            assert counted == variant.params(site.layer, rank), variant.name


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_break_even_is_the_last_rank_that_saves(form: str, layer: str) -> None:
    """4. Below the dense layer's parameters at it, and no longer one step beyond."""
    layer_spec = known(layer)[2].sites[0].layer
    for variant in variants(form, layer):
        largest = variant.max_rank(layer_spec)
        steps = [tuple(max(1, round(top * at / max(largest))) for top in largest) for at in range(1, max(largest) + 1)]
        saving = [rank for rank in steps if variant.params(layer_spec, rank) < layer_spec.params]
        assert variant.break_even(layer_spec) == (saving[-1] if saving else None), variant.name
        assert steps[: len(saving)] == saving, f"{variant.name}: a larger rank with fewer parameters"


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_plan_and_folder_come_back_with_the_same_bits(form: str, layer: str, tmp_path: Path) -> None:
    """5. plan -> JSON -> plan, and save -> load."""
    for variant in ends(form, layer):
        model, inputs, found, _ = known(layer)
        plan = plan_for(found, variant, middle(variant, found.sites[0]), "weights")
        student = rebuild(model, factorise(model, plan, {}, steps=2))
        save_network(student, plan, tmp_path)
        again = read_plan(tmp_path / "plan.json")
        assert again == plan
        with torch.no_grad():
            assert torch.equal(load_network(tmp_path, model)(inputs), student(inputs))
            assert torch.equal(rebuild(model, factorise(model, again, {}, steps=2))(inputs), student(inputs))


@pytest.mark.parametrize(("form", "layer"), PAIRS)
def test_original_is_untouched(form: str, layer: str) -> None:
    """6. The original keeps its tensors, and the result shares no storage with it."""
    for variant in ends(form, layer):
        model, _, found, _ = known(layer)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        fitted = factorise(model, plan_for(found, variant, middle(variant, found.sites[0]), "weights"), {}, steps=2)
        student = rebuild(model, fitted)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        storages = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
        assert storages.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in student.state_dict().values())


@pytest.mark.parametrize("layer", ["conv_depthwise", "conv_multiplier", "conv_grouped", "conv3x3", "linear"])
@pytest.mark.parametrize("form", FORMS)
def test_dead_inputs_leave_finite_balanced_factors(form: str, layer: str) -> None:
    """Channels, and whole groups, that are always zero: what they cannot tell must not blow up in float32."""
    for variant in ends(form, layer):
        model, inputs, found, _ = known(layer)
        inputs = inputs.clone()
        inputs[:, : max(1, inputs.shape[1] // 2)] = 0
        site = found.sites[0]
        statistics = observe(model, found.sites, as_batches([inputs]))
        for rank in ladder(variant, site):
            (fitted,) = factorise(model, plan_for(found, variant, rank, "inputs"), statistics, steps=20)
            assert fitted.weight_error < 100, variant.name
            factors = fitted.factors[:-1] if variant.reorders else fitted.factors
            assert max(float(factor.abs().max()) for factor in factors) < 100, variant.name
            with torch.no_grad():
                assert relative(rebuild(model, [fitted])(inputs), model(inputs)) < 1.1


@pytest.mark.parametrize("layer", ["conv_grouped", "conv_wide", "linear", "embedding"])
@pytest.mark.parametrize("form", FORMS)
def test_same_input_same_factors(form: str, layer: str) -> None:
    """7. Also while other fits run beside it: nothing random, nothing shared."""
    for variant in variants(form, layer):
        model, _, found, statistics = known(layer)
        site = found.sites[0]
        problem, _ = problems(site, weight_of(model, site), METRICS["inputs"], statistics)
        first, second = (fit(variant, site.layer, problem, middle(variant, site), steps=20).factors for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("layer", ["conv_grouped", "conv_wide", "linear", "embedding"])
@pytest.mark.parametrize("form", FORMS)
def test_a_rank_out_of_range_names_the_layer_and_the_range(form: str, layer: str) -> None:
    """8."""
    for variant in variants(form, layer):
        model, _, found, _ = known(layer)
        largest = variant.max_rank(found.sites[0].layer)
        for rank in (tuple(r + 1 for r in largest), (0,) * len(largest), (*largest, 1)):
            plan = plan_for(found, variant, largest, "weights")
            choice = plan.choices[0].model_copy(update={"rank": rank})
            with pytest.raises(FormError, match=r"0: .*ranks from"):
                factorise(model, plan.model_copy(update={"choices": (choice,)}), {})
