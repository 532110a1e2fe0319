"""Stacks: layers of one shape that are replaced together and may share factors."""

from pathlib import Path

import pytest
import torch
from torch import nn

import polyad
from conftest import Polyad
from polyad.batches import Batch, as_batches
from polyad.checkpoint import save_network
from polyad.decompositions.base import FORMS
from polyad.errors import PlanError
from polyad.metrics import METRICS
from polyad.observe import observe
from polyad.rebuild import factorise, rebuild
from polyad.records import Choice, Plan, Trace
from polyad.sites import stacked, weight_of
from polyad.solvers import fit, problems
from polyad.trace import trace


class Blocks(nn.Module):
    """Four convolutions of one shape, an odd one, and three linear layers of one shape; an input of (3, 7, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.heads = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = x + torch.relu(block(x))
        x = x.mean((2, 3))
        return sum(torch.relu(head(x)) for head in self.heads)  # type: ignore[return-value]


PATTERNS = ("blocks.*", "heads.*")


def network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Blocks().eval(), torch.randn(40, 3, 7, 7)


def traced() -> tuple[nn.Module, torch.Tensor, Trace]:
    model, inputs = network()
    return model, inputs, stacked(trace(model, Batch((inputs[:2],))), PATTERNS)


def plan_for(found: Trace, form: str, share: float) -> Plan:
    """Both stacks in one form, the rest as it is."""
    choices = []
    for site in found.sites:
        if not site.members or FORMS[form].refuses(site.layer):
            continue
        rank = tuple(max(1, int(top * share)) for top in FORMS[form].max_rank(site.layer))
        params = FORMS[form].params(site.layer, rank)
        choices.append(Choice(site=site, form=form, rank=rank, params=params, macs=0, damage=0, why="law"))
    return Plan(
        metric="inputs",
        allocator="-",
        budget="-",
        choices=tuple(choices),
        params_before=found.params,
        macs_before=found.macs,
    )


CARRYING = [form for form in FORMS if plan_for(traced()[2], form, 1).choices]


def test_a_stack_is_one_site_with_the_costs_of_its_layers() -> None:
    model, _, found = traced()
    assert [site.name for site in found.sites] == ["stem", "blocks.*", "heads.*"]
    blocks = found.site("blocks.*")
    assert blocks.members == tuple(f"blocks.{at}" for at in range(4))
    assert blocks.params == sum(parameter.numel() for parameter in model.blocks.parameters())
    assert blocks.macs == 4 * 8 * 8 * 9 * 49
    assert blocks.layer.label == "4 x Conv2d"
    assert torch.equal(weight_of(model, blocks)[2], model.blocks[2].weight)
    assert "stack_tucker" in CARRYING and "stack_cp" in CARRYING and "svd" in CARRYING and "cp" in CARRYING


@pytest.mark.parametrize("form", CARRYING)
def test_every_layer_of_a_stack_equals_its_reconstruction(form: str, tmp_path: Path) -> None:
    """And parameters are counted once where they are shared; the saved folder comes back, still sharing."""
    model, inputs, found = traced()
    statistics = observe(model, found.sites, as_batches([inputs]))
    plan = plan_for(found, form, 0.4)
    fitted = factorise(model, plan, statistics, steps=5)
    student = rebuild(model, fitted)
    dense, _ = network()
    with torch.no_grad():
        for site in fitted:
            weights = FORMS[form].reconstruct(site.factors)
            shifts = site.shift.chunk(len(weights))
            for name, weight, shift in zip(site.choice.site.members, weights, shifts, strict=True):
                dense.get_submodule(name).weight.copy_(weight.reshape(dense.get_submodule(name).weight.shape))
                dense.get_submodule(name).bias += shift
        torch.testing.assert_close(student(inputs), dense(inputs), rtol=1e-4, atol=1e-5)
    counted = sum(parameter.numel() for parameter in student.parameters())
    assert counted == plan.params
    save_network(student, plan, tmp_path)
    again = polyad.load(tmp_path, model=model)
    assert sum(parameter.numel() for parameter in again.parameters()) == counted
    with torch.no_grad():
        assert torch.equal(again(inputs), student(inputs))


@pytest.mark.parametrize("form", CARRYING)
@pytest.mark.parametrize("metric", METRICS)
def test_a_stack_is_exact_at_the_largest_rank(form: str, metric: str) -> None:
    model, inputs, found = traced()
    statistics = observe(model, found.sites, as_batches([inputs]), curvature=True)
    for site in found.sites[1:]:
        if FORMS[form].refuses(site.layer):
            continue
        problem, _ = problems(site, weight_of(model, site), METRICS[metric], statistics[site.name])
        found_fit = fit(FORMS[form], site.layer, problem, FORMS[form].max_rank(site.layer))
        weight = FORMS[form].reconstruct(found_fit.factors).reshape(problem.weight.shape)
        assert float((weight - problem.weight).norm() / problem.weight.norm()) < 1e-6


def test_layers_with_common_directions_share_them_for_less() -> None:
    """Four weights with the same rank-2 bases: the stack needs them once, four SVDs four times."""
    model, inputs, _ = traced()
    torch.manual_seed(1)
    out, inp = torch.randn(8, 2), torch.randn(2, 8)
    with torch.no_grad():
        for block in model.blocks:
            block.weight.copy_(torch.einsum("op,pqhw,qi->oihw", out, torch.randn(2, 2, 3, 3), inp))
    found = stacked(trace(model, Batch((inputs[:2],))), PATTERNS)
    site = found.site("blocks.*")
    problem, _ = problems(site, weight_of(model, site), METRICS["weights"], None)
    together = fit(FORMS["stack_tucker"], site.layer, problem, (2, 2))
    apart = fit(FORMS["tucker2"], site.layer, problem, (2, 2))
    assert together.error < 1e-12 and apart.error < 1e-12
    assert FORMS["stack_tucker"].params(site.layer, (2, 2)) < FORMS["tucker2"].params(site.layer, (2, 2))


def test_a_network_is_compressed_with_stacks_saved_replayed_and_loaded(tmp_path: Path) -> None:
    model, inputs = network()
    options = {"forms": ("stack_tucker", "tucker2", "svd"), "stack": PATTERNS, "samples": 40}
    result = polyad.compress(model, [inputs], budget=polyad.Budget(params=0.6), evaluation=[inputs], **options)
    assert result.plan.params <= 0.6 * result.plan.params_before
    assert {choice.site.name for choice in result.plan.choices} == {"stem", "blocks.*", "heads.*"}
    assert sum(parameter.numel() for parameter in result.model.parameters()) == result.plan.params
    polyad.save(result, tmp_path / "small")
    again = polyad.load(tmp_path / "small", model=model)
    with torch.no_grad():
        assert torch.equal(again(inputs), result.model(inputs))
    replayed = polyad.compress(model, [inputs], plan=polyad.read_plan(tmp_path / "small" / "plan.json"), samples=40)
    assert replayed.plan.choices == result.plan.choices


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing.*", "matches 0 layers"),
        ("blocks.0", "matches 1 layers"),
        ("re:(", "no regular expression"),
        ("re:stem|blocks.0", "one kind and shape"),
    ],
)
def test_stacks_that_cannot_be_are_refused(pattern: str, message: str) -> None:
    model, inputs = network()
    with pytest.raises(PlanError, match=message):
        stacked(trace(model, Batch((inputs[:2],))), [pattern])


def test_a_layer_in_two_stacks_is_refused() -> None:
    model, inputs = network()
    with pytest.raises(PlanError, match="blocks.\\*"):
        stacked(trace(model, Batch((inputs[:2],))), ["blocks.*", "re:blocks.*"])


def test_the_command_line_stacks(polyad: Polyad) -> None:
    ran = polyad("inspect", "zoo:vdsr", "--stack", "residual_layer.*.conv", "--json")
    assert ran.code == 0, ran.err
    import json

    sites = {site["name"]: site for site in json.loads(ran.out)["sites"]}
    assert len(sites["residual_layer.*.conv"]["members"]) == 18
    ran = polyad("inspect", "zoo:vdsr", "--stack", "absent.*")
    assert ran.code == 2 and "absent.*" in ran.err


def test_every_layer_of_a_stack_counts_alike() -> None:
    """A layer whose outputs are a thousand times larger must not be fitted at the cost of the others."""
    model, inputs = network()
    with torch.no_grad():
        model.blocks[1].weight.mul_(1000)
    found = stacked(trace(model, Batch((inputs[:2],))), PATTERNS)
    site = found.site("blocks.*")
    problem, _ = problems(site, weight_of(model, site), METRICS["weights"], None)
    fitted = fit(FORMS["stack_tucker"], site.layer, problem, (4, 4))
    weights = FORMS["stack_tucker"].reconstruct(fitted.factors).reshape(problem.weight.shape)
    errors = (weights - problem.weight).square().sum((1, 2)) / problem.weight.square().sum((1, 2))
    assert float(errors.max()) < 2 * float(errors.min())
    assert fitted.error == pytest.approx(float(errors.mean()))
