"""Laws of the damages: not below 0, none for the dense layer, more for a larger error, the same however it is asked."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import polyad
from conftest import Polyad
from polyad.batches import Batch
from polyad.budget import Budget
from polyad.damages.assess import assess
from polyad.damages.base import DAMAGES, Ground
from polyad.damages.measured import sensitivities
from polyad.damages.probes import Probe, probe
from polyad.decompositions.base import FORMS as FORMS_BY_NAME
from polyad.errors import DataError, UnknownNameError
from polyad.menu import Menu
from polyad.metrics import METRICS
from polyad.metrics.moments import input_moment
from polyad.observe import observe
from polyad.propose import propose
from polyad.rebuild import factorise, rebuild
from polyad.records import DENSE, Statistics
from polyad.settings import Settings
from polyad.sites import stacked, weight_of
from polyad.solvers import Problem, problems
from polyad.trace import trace
from polyad.work import Work

FORMS = ("svd", "cp")


def network() -> nn.Module:
    """A batch norm behind one layer, a bias in others, two layers of one shape, one without either."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(144, 10),
    ).eval()


def inputs(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(3 * 64, 3 * 64, generator=generator) / 8
    return (torch.randn(40, 3 * 64, generator=generator) @ mix).reshape(40, 3, 8, 8)


@pytest.fixture(scope="module")
def made() -> tuple[Menu, Ground]:
    model, fitted, unseen = network(), [Batch((inputs(1),))], [Batch((inputs(2),))]
    found = stacked(trace(model, fitted[0].take(2)), ["re:[35]"])
    statistics = observe(model, found.sites, fitted, unseen, curvature=True)
    return propose(model, found, statistics, Settings(forms=FORMS)), Ground(
        model, statistics, [*unseen, *fitted], unseen=40
    )


def damages_of(menu: Menu) -> Mapping[str, list[float]]:
    return {site: [c.damage for c in candidates] for site, candidates in menu.candidates.items()}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_none_for_the_dense_layer_and_rises_with_the_error(name: str, made: tuple[Menu, Ground]) -> None:
    menu, ground = made
    found = assess(menu, name, ground)
    assert found.damage == name and found.metric == menu.metric
    for site, candidates in found.candidates.items():
        assert all(c.damage > 0 for c in candidates if c.form != DENSE)
        assert [c.damage for c in candidates if c.form == DENSE] == [0.0]
        for form in {c.form for c in candidates} - {DENSE}:
            own = sorted((c for c in candidates if c.form == form), key=lambda c: c.unseen_error)
            if DAMAGES[name].needs_curvature:  # another norm of the same errors: it rises by and large
                assert own[0].damage < own[-1].damage
            else:
                assert all(a.damage <= b.damage for a, b in zip(own, own[1:])), (site, form)


@pytest.mark.parametrize("name", DAMAGES)
def test_same_question_same_answer_and_nothing_is_changed(name: str, made: tuple[Menu, Ground], tmp_path: Path) -> None:
    menu, ground = made
    before = {key: tensor.clone() for key, tensor in ground.model.state_dict().items()}
    asked = damages_of(menu)
    found = damages_of(assess(menu, name, ground))
    turned = Menu(menu.sites[::-1], dict(reversed(menu.candidates.items())), menu.params, menu.macs, menu.metric)
    assert damages_of(assess(turned, name, ground)) == found  # the order of the sites does not matter
    assert damages_of(assess(assess(menu, "relative", ground), name, ground)) == found  # nor what was asked before
    work = Work(tmp_path)
    fresh = assess(menu, name, replace(ground, work=work))
    kept = assess(menu, name, replace(ground, work=work))
    assert damages_of(fresh) == damages_of(kept) == found
    assert work.taken["probe"] == work.made["probe"] == (len(menu.sites) if DAMAGES[name].needs_batches else 0)
    assert damages_of(menu) == asked
    assert all(torch.equal(tensor, before[key]) for key, tensor in ground.model.state_dict().items())
    assert not ground.model.training and ground.model[0].bias is None


def test_a_probe_is_what_a_rebuilt_network_does(made: tuple[Menu, Ground], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyad.channels.LARGEST_SCALE", 1.0)  # rows as they are, as `rebuild` leaves them
    menu, ground = made
    found = probe(menu, ground, (0.35,))
    for site in menu.sites:
        options = [c for c in menu.candidates[site.name] if c.form != DENSE and c.params <= 0.35 * site.params]
        best = min(options, key=lambda c: (c.unseen_error, c.params, c.form, c.rank))
        plan = polyad.plan(
            ground.model,
            [inputs(1)],
            budget=Budget(params=1.0),
            fixed={site.modules[0]: (best.form, best.rank)},
            ignore=[f"re:(?!{site.modules[0]}$).*"],
        )
        if site.members:
            continue
        (factors,) = factorise(ground.model, plan, ground.statistics, steps=20)
        student = rebuild(ground.model, [factors])
        after = polyad.evaluate(student, list(ground.batches), reference=ground.model)
        last = found[site.name][-1]
        assert last.divergence == pytest.approx(after.value, rel=0.02)
        moment = input_moment(site, ground.statistics[site.name])  # of the other half of the batches
        problem, _ = problems(site, weight_of(ground.model, site), METRICS["inputs"], ground.statistics[site.name])
        weight = FORMS_BY_NAME[best.form].reconstruct(factors.factors).reshape(problem.weight.shape)
        seen = Problem(problem.weight, moment).relative(weight)
        assert last.error == pytest.approx((factors.held_out_error + seen) / 2, rel=1e-6)
        assert seen < factors.held_out_error


def test_a_layer_that_matters_more_is_dearer_when_measured() -> None:
    """Two equal branches, one of which hardly reaches the output: relative errors do not tell them apart."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loud, self.quiet = nn.Linear(24, 24), nn.Linear(24, 24)
            self.last = nn.Linear(24, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.loud(x)) + 0.01 * torch.relu(self.quiet(x)))

    torch.manual_seed(0)
    model = Branches().eval()
    model.quiet.load_state_dict(model.loud.state_dict())
    data = [Batch((torch.randn(200, 24),))]
    found = trace(model, data[0])
    statistics = observe(model, found.sites, data, data, curvature=True)
    menu = propose(model, found, statistics, Settings(forms=("svd",)))
    for name in DAMAGES:
        priced = assess(menu, name, Ground(model, statistics, data)).candidates
        loud, quiet = (next(c.damage for c in priced[site] if c.rank == (4,)) for site in ("loud", "quiet"))
        assert loud == pytest.approx(quiet) if name == "relative" else loud > 30 * quiet


def test_a_probe_without_error_still_prices_larger_ones() -> None:
    found = sensitivities({"a": [Probe(0.4, 0.2)], "exact": [Probe(0.0, 0.0)], "dead": [Probe(0.3, 0.0)]})
    assert found["a"] == pytest.approx(0.5) and found["exact"] > 0 and found["dead"] > 0


def test_what_is_missing_is_said(made: tuple[Menu, Ground]) -> None:
    menu, ground = made
    with pytest.raises(DataError, match="needs batches|on batches"):
        assess(menu, "measured", replace(ground, batches=()))
    statistics: dict[str, Statistics] = {name: replace(one, curvature=None) for name, one in ground.statistics.items()}
    found = stacked(trace(ground.model, ground.batches[0].take(2)), ["re:[35]"])
    plain = propose(ground.model, found, statistics, Settings(forms=("svd",)))
    with pytest.raises(DataError, match="gradients"):
        assess(plain, "curvature", ground)
    with pytest.raises(UnknownNameError, match="no damage 'mesured'.*Did you mean 'measured'"):
        polyad.plan(ground.model, [inputs(1)], budget=Budget(params=0.5), damage="mesured")


def test_the_command_line_takes_and_notes_it(polyad: Polyad, tmp_path: Path) -> None:
    out = tmp_path / "small"
    chosen = ("zoo:digits_cnn", "--data", "digits", "--samples", "60", "--forms", "svd", "--budget", "params=50%")
    ran = polyad("compress", *chosen, "--damage", "measured", "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert '"damage": "measured"' in ran.out
    assert "damage: measured" in (out / "recipe.yaml").read_text()
    assert '"damage": "measured"' in (out / "plan.json").read_text().replace('":"', '": "')
    assert "measured" in (out / "report.html").read_text() and "`measured` damage" in (out / "README.md").read_text()
    bad = polyad("plan", *chosen, "--damage", "mesured")
    assert bad.code == 2 and "Did you mean 'measured'" in bad.err


def test_beyond_the_error_of_the_probe_the_price_rises_with_the_square(made: tuple[Menu, Ground]) -> None:
    menu, ground = made
    price, found = DAMAGES["measured"].price(menu, ground), probe(menu, ground)
    for site in menu.sites:
        error, some = found[site.name][0].error, menu.candidates[site.name][1]
        at = [price(some.model_copy(update={"held_out": share * error})) for share in (0.25, 0.5, 1.0, 2.0)]
        assert at[1] / at[0] == pytest.approx(2) and at[2] / at[1] == pytest.approx(2)
        assert at[3] / at[2] == pytest.approx(4)
