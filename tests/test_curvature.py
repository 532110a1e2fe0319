"""The curvature norm: gradients at the outputs are those of the network's own prediction, fits are optimal in it, and
what it predicts is what is measured."""

from collections.abc import Iterator
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import check_grad
from sklearn.datasets import load_digits
from torch import nn

import polyad
from awkward import LAYERS, build
from polyad.batches import Batch, as_batches
from polyad.decompositions.base import FORMS
from polyad.errors import DataError, ModelError
from polyad.gradients import SAMPLES, output_moments
from polyad.layers import LayerSpec
from polyad.metrics import METRICS
from polyad.metrics.curvature import SHRINKAGE
from polyad.observe import observe
from polyad.propose import propose
from polyad.records import Site, Trace
from polyad.settings import Settings
from polyad.sites import stacked, weight_of
from polyad.solvers import Problem, fit, problems
from polyad.solvers.descent import Descent
from polyad.splits import Call
from polyad.trace import trace

LINEAR = LayerSpec(kind="linear", in_features=12, out_features=9)


def sites_of(model: nn.Module, x: torch.Tensor) -> tuple[Site, ...]:
    return trace(model, Batch((x[:2],))).sites


def test_of_a_classifier_it_is_the_fisher_information() -> None:
    """At the logits diag(p) - p p', averaged over samples; in front of them that, through the Jacobian."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double().eval()
    x = 2 * torch.randn(20000, 5).double()
    found = output_moments(model, sites_of(model, x), [Batch((x,))])
    with torch.no_grad():
        hidden = model[0](x)
        p = model(x).softmax(1)
        fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        jacobian = model[2].weight * (1 - hidden.tanh().square()).unsqueeze(1)  # (samples, 3, 4)
        inner = (jacobian.mT @ fisher @ jacobian).mean(0)
    assert torch.allclose(found["2"][0], fisher.mean(0), atol=0.01)
    assert torch.allclose(found["0"][0], inner, atol=0.03 * float(inner.abs().max()))


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.startswith("linear")])
def test_every_kind_of_layer_gives_the_moment_of_its_outputs_per_group(name: str) -> None:
    """Of a network that is the layer alone the gradient is the noise that was drawn."""
    model, inputs = build(name, torch.float64, samples=5)
    (site,) = sites_of(model, inputs)
    (found,) = output_moments(model, [site], [Batch((inputs,))], seed=3).values()
    noise = torch.randn(model(inputs).shape, generator=torch.Generator().manual_seed(3)).double()
    noise = noise.movedim(-1, 1) if site.layer.matrix else noise
    rows = noise.reshape(5, site.layer.groups, -1, noise[0, 0].numel())
    assert torch.allclose(found, torch.einsum("ngot,ngpt->gop", rows, rows) / 5)


def test_calls_of_one_layer_and_batches_add_up() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.inner(x), self.inner(x + 1)], 1)

    model, x = Twice().double(), torch.randn(SAMPLES + 8, 3).double()
    sites = sites_of(model, x)
    whole = output_moments(model, sites, [Batch((x,))])["inner"]
    parts = output_moments(model, sites, [Batch((x[:SAMPLES],)), Batch((x[SAMPLES:],))])["inner"]
    assert torch.allclose(whole, parts)
    assert float(whole.diagonal(dim1=-2, dim2=-1).mean()) == pytest.approx(2, rel=0.3)


class InPlace(nn.Module):
    """The first layer frozen, its output changed in place behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 11)
        self.embed.weight.requires_grad_(False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.embed(tokens), inplace=True).transpose(1, 2)
        return self.head(F.relu(self.norm(self.conv(x)), inplace=True).transpose(1, 2))


def test_nothing_is_left_behind() -> None:
    torch.manual_seed(0)
    model, tokens = InPlace().train(), torch.randint(11, (40, 7))
    model.norm.eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sites = sites_of(model, tokens)
    statistics = observe(model, sites, [Batch((tokens,))], curvature=True)
    assert {site.name for site in sites} == {"embed", "conv", "head"}
    assert all(float(statistics[site.name].curvature.norm()) > 0 for site in sites)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.embed.weight.requires_grad and model.conv.weight.requires_grad
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"head.weight"}
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert model.training and model.conv.training and not model.norm.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_where_tokens_go_in_each_position_is_a_prediction() -> None:
    """At the scores the moment is the sum over positions of diag(p) - p p', whose rows sum to zero."""
    torch.manual_seed(0)
    model, tokens = InPlace().eval(), torch.randint(11, (3000, 2))
    found = output_moments(model, sites_of(model, tokens), [Batch((tokens,))])["head"][0]
    with torch.no_grad():
        p = model(tokens).double().softmax(-1)
    fisher = (torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)).sum(1).mean(0)
    assert torch.allclose(found.sum(0), torch.zeros(11, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(found, fisher, atol=0.03)


def test_it_is_refused_where_there_is_no_way_back() -> None:
    class Off(nn.Sequential):
        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    model, x = Off(nn.Linear(3, 3)), torch.randn(4, 3)
    with pytest.raises(ModelError, match="turns gradients off"):
        output_moments(model, sites_of(model, x), [Batch((x,))])
    with pytest.raises(DataError, match="function that runs the model"):
        output_moments(model, sites_of(model, x), [Call(lambda network: network(x))])
    with pytest.raises(DataError, match="needs gradients at the outputs of 0"):
        statistics = observe(model, sites_of(model, x), [Batch((x,))])
        propose(model, trace(model, Batch((x,))), statistics, Settings(metric="curvature"))


def two_sided(seed: int, groups: int = 1, out: int = 9, n: int = 12) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def moment(size: int) -> torch.Tensor:
        x = torch.randn(groups, size, 3 * size, generator=generator, dtype=torch.float64)
        x = x * torch.randn(groups, size, 1, generator=generator, dtype=torch.float64).exp()
        return x @ x.mT / (3 * size)

    weight = torch.randn(groups, out, n, generator=generator, dtype=torch.float64)
    return Problem(weight, moment(n), moment(out))


def root(matrix: torch.Tensor, sign: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values ** (sign / 2)) @ vectors.mT


def test_svd_is_the_truncation_between_both_roots() -> None:
    given = two_sided(0)
    u, s, vh = torch.linalg.svd((root(given.left, 1) @ given.weight @ root(given.matrix, 1))[0])
    kept = root(given.left[0], -1) @ (u[:, :4] * s[:4] @ vh[:4]) @ root(given.matrix[0], -1)
    found = fit(FORMS["svd"], LINEAR, given, (4,))
    assert torch.allclose(FORMS["svd"].reconstruct(found.factors)[0], kept, atol=1e-6)
    assert found.error == pytest.approx(float(s[4:].square().sum() / s.square().sum()), rel=1e-8)


def cases() -> Iterator[tuple[str, LayerSpec, tuple[int, ...]]]:
    conv = LayerSpec(kind="conv", in_features=6, out_features=8, kernel=(3, 3), stride=(1, 1), dilation=(1, 1))
    conv = conv.model_copy(update={"padding": (1, 1)})
    linear = LayerSpec(kind="linear", in_features=8, out_features=8)
    for name in FORMS:
        for layer in (conv, linear, linear.model_copy(update={"stack": 3})):
            if FORMS[name].refuses(layer) is None:
                yield name, layer, tuple(max(1, top // 3) for top in FORMS[name].max_rank(layer))


@pytest.mark.parametrize(("form", "layer", "rank"), list(cases()), ids=str)
def test_the_left_norm_counts_in_every_form(form: str, layer: LayerSpec, rank: tuple[int, ...]) -> None:
    """A fit in the two-sided norm does better there than one that ignores G, and its error is the one it names."""
    groups, out, *rest = layer.weight_shape
    given = two_sided(1, groups, out, int(torch.Size(rest).numel()))
    blind = fit(FORMS[form], layer, Problem(given.weight, given.matrix), rank, steps=100)
    found = fit(FORMS[form], layer, given, rank, steps=100)

    def error(factors: tuple[torch.Tensor, ...]) -> float:
        return given.relative(FORMS[form].reconstruct(factors).reshape(given.weight.shape))

    assert found.error == pytest.approx(error(found.factors), rel=1e-6)
    assert found.error < error(blind.factors)


@pytest.mark.parametrize(("form", "groups"), [("kronecker", 1), ("stack_cp", 3), ("filter_cp", 1)])
def test_gradient_of_the_descent_is_that_of_the_value(form: str, groups: int) -> None:
    conv = LayerSpec(kind="conv", in_features=4, out_features=6, kernel=(3, 3), stride=(1, 1), dilation=(1, 1))
    layer = conv.model_copy(update={"padding": (1, 1), "stack": groups})
    descent = Descent(FORMS[form], two_sided(2, groups, 6, 36))
    shapes = FORMS[form].factor_shapes(layer, (2,))
    sizes = [int(np.prod(shape)) for shape in shapes]

    def at(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parts = torch.from_numpy(flat).split(sizes)
        value, gradients = descent.value_and_gradients([p.view(s) for p, s in zip(parts, shapes, strict=True)])
        return value, torch.cat([gradient.flatten() for gradient in gradients]).numpy()

    x = np.random.default_rng(0).standard_normal(sum(sizes))
    assert check_grad(lambda v: at(v)[0], lambda v: at(v)[1], x) < 1e-5 * np.linalg.norm(at(x)[1])


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Sequential, torch.Tensor, Trace]:
    """A small network trained on half of the digits, and the images of the other half."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(150):
        at = torch.randint(900, (64,), generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        F.cross_entropy(model(x[at]), y[at]).backward()
        optimiser.step()
    return model.eval(), x[900:], trace(model, Batch((x[:2],)))


def test_half_the_norm_is_the_divergence_of_a_small_error(digits: tuple[nn.Sequential, torch.Tensor, Trace]) -> None:
    """Predicted tr(G D C D') / 2 against the measured KL, for truncations of every layer: within a factor of three each
    (the factors of K-FAC are no exact Fisher), and in the right order."""
    model, x, found = digits
    statistics = observe(model, found.sites, [Batch((x,))], curvature=True)
    with torch.no_grad():
        before = model(x).log_softmax(1)
    predicted, measured = [], []
    for site in found.sites:
        norm, seen = METRICS["curvature"], statistics[site.name]
        problem, _ = problems(site, weight_of(model, site), norm, seen)
        exact = Problem(problem.weight, METRICS["inputs_full"].matrix(site, seen), seen.curvature)
        for seed in range(3):
            noise = torch.randn(problem.weight.shape, generator=torch.Generator().manual_seed(seed)).double()
            noise *= 0.1 * problem.weight.norm() / noise.norm()
            predicted.append(float(exact.squared_norm(noise)) / 2)
            module = model.get_submodule(site.name)
            kept = module.weight.data.clone(), module.bias.data.clone()
            with torch.no_grad():
                module.weight -= site.layer.native(noise).to(module.weight)
                module.bias += torch.einsum("gon,gn->go", noise, seen.mean).flatten().to(module.bias)
                measured.append(float((before.exp() * (before - model(x).log_softmax(1))).sum(1).mean()))
                module.weight.copy_(kept[0])
                module.bias.copy_(kept[1])
    logs = np.log(predicted), np.log(measured)
    assert np.abs(logs[0] - logs[1]).max() < log(3), (predicted, measured)
    assert np.corrcoef(*logs)[0, 1] > 0.9


def test_the_menu_tells_nats(digits: tuple[nn.Sequential, torch.Tensor, Trace]) -> None:
    model, x, found = digits
    statistics = observe(model, found.sites, [Batch((x[:600],))], [Batch((x[600:],))], curvature=True)
    settings = Settings(forms=("svd",), metric="curvature")
    menu = propose(model, found, statistics, settings)
    site = found.site("5")
    candidate = menu.candidates["5"][1]
    problem, unseen = problems(site, weight_of(model, site), METRICS["curvature"], statistics["5"])
    rebuilt = fit(FORMS["svd"], site.layer, problem, candidate.rank)
    difference = problem.weight - FORMS["svd"].reconstruct(rebuilt.factors)
    assert candidate.nats == pytest.approx(float(unseen.squared_norm(difference)) / 2, rel=1e-3)
    assert candidate.error == pytest.approx(rebuilt.error, rel=1e-3)
    level = statistics["5"].curvature.diagonal(dim1=-2, dim2=-1).sum()
    assert float(problem.left.diagonal(dim1=-2, dim2=-1).sum()) == pytest.approx(float(level))
    assert 0 < SHRINKAGE < 1


def test_a_network_is_compressed_in_it(digits: tuple[nn.Sequential, torch.Tensor, Trace]) -> None:
    model, x, _ = digits
    options = {"metric": "curvature", "forms": ("svd", "tucker2", "cp", "kronecker"), "samples": 300}
    result = polyad.compress(model, [x[:300]], budget=polyad.Budget(params=0.4), evaluation=[x[300:]], **options)
    plain = polyad.compress(model, [x[:300]], budget=polyad.Budget(params=0.4), metric="weights", evaluation=[x[300:]])
    assert result.report.metric == "curvature"
    assert result.report.after.divergence < plain.report.after.divergence
    replayed = polyad.compress(model, [x[:300]], plan=result.plan, samples=300)
    with torch.no_grad():
        assert torch.allclose(replayed.model(x), result.model(x), atol=1e-5)


def test_stacks_have_a_norm_for_each_of_their_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))).eval()
    x = torch.randn(200, 8)
    found = stacked(trace(model, Batch((x,))), ("*.0",))
    statistics = observe(model, found.sites, as_batches([x]), curvature=True)["*.0"]
    alone = observe(model, trace(model, Batch((x,))).sites, as_batches([x]), curvature=True)
    assert torch.equal(statistics.curvature, torch.cat([alone[f"{at}.0"].curvature for at in range(3)]))
    assert statistics.noise.shape == (3,)
