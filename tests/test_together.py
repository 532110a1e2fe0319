"""Problems of one layer shape that are fitted together: each as it would be alone, whatever the others are like."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.solvers import Fit, Problem, compare, fit, fit_path, goes_abreast
from polyad.solvers.abreast import minimise_each
from polyad.solvers.comparison import as_it_is
from polyad.solvers.descent import MEMORY, ROOM, THOROUGH, pairs_kept
from polyad.solvers.elimination import Elimination
from polyad.solvers.products import TiedRows
from polyad.solvers.projection import Projection

OUT, INPUTS, KERNEL = 12, 8, 9
N = INPUTS * KERNEL
CONV = LayerSpec(
    kind="conv", in_features=INPUTS, out_features=OUT, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)
)
GROUPED = CONV.model_copy(update={"in_features": 2 * INPUTS, "out_features": 2 * OUT, "groups": 2})
RANKS = [(2,), (7,), (13,)]
TOGETHER = [name for name in FORMS if goes_abreast(FORMS[name], CONV)]
BRIEF = 20


def problem(seed: int, groups: int = 1, *, decay: float = 0.7) -> Problem:
    """A weight with a falling spectrum and inputs whose channels and positions go together."""
    generator = torch.Generator().manual_seed(seed)
    left, right, rows, mix = (
        torch.randn(groups, *size, generator=generator, dtype=torch.float64)
        for size in ((OUT, OUT), (OUT, N), (300, N), (N, N))
    )
    rows = rows @ (mix / N**0.5 + torch.eye(N))
    return Problem((left * decay ** torch.arange(OUT)) @ right, rows.mT @ rows / 300)


def apart(found: list[list[Fit]], alone: list[list[Fit]]) -> Tensor:
    """Logarithms of the ratios of errors (problems, ranks)."""
    pairs = zip(found, alone, strict=True)
    return torch.tensor([[one.error / two.error for one, two in zip(*pair, strict=True)] for pair in pairs]).log()


def test_which_forms_go_abreast() -> None:
    assert {"cp", "spatial_svd"} <= set(TOGETHER)
    assert not {"svd", "tucker2", "block_term", "group_svd", "stack_cp"} & set(TOGETHER)


@pytest.mark.parametrize("form", TOGETHER)
@pytest.mark.parametrize("layer", [CONV, GROUPED], ids=["one group", "two groups"])
def test_each_errs_as_it_would_alone(form: str, layer: LayerSpec) -> None:
    """Up to what a descent that ends early makes of rounding (19 % is one standard deviation of CP at the largest rank
    here, without a bias); and the error is the one that is named."""
    given = [problem(seed, layer.groups) for seed in range(6)]
    ranks = [rank for rank in RANKS if rank <= FORMS[form].max_rank(layer)]
    found = compare(FORMS[form], layer, given, ranks, as_it_is, steps=BRIEF)
    ratios = apart(found, [fit_path(FORMS[form], layer, one, ranks, steps=BRIEF, brief=True) for one in given])
    assert ratios.abs().max() < 0.5 and ratios.mean().abs() < 0.05
    for own, fits in zip(given, found, strict=True):
        assert [fitted.rank for fitted in fits] == ranks
        assert all(after.error <= before.error for before, after in zip(fits, fits[1:], strict=False))
        for fitted in fits:
            weight = FORMS[form].reconstruct(fitted.factors).reshape(own.weight.shape)
            assert own.relative(weight) == pytest.approx(fitted.error, rel=1e-3)


@pytest.mark.parametrize("form", TOGETHER)
def test_one_by_itself_is_the_fit_alone(form: str) -> None:
    (found,) = compare(FORMS[form], CONV, [problem(0)], RANKS[:2], as_it_is, steps=BRIEF)
    for one, two in zip(
        found, fit_path(FORMS[form], CONV, problem(0), RANKS[:2], steps=BRIEF, brief=True), strict=True
    ):
        assert one.error == two.error and all(map(torch.equal, one.factors, two.factors))


@pytest.mark.parametrize("form", [*TOGETHER, "group_svd", "tucker2"])
def test_descents_of_many_unknowns_in_float32_end_as_low(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of layers too wide for vectors in float64; what comes out is float64 and as good as its error says."""
    given, ranks = problem(0), [rank for rank in RANKS if len(rank) == len(FORMS[form].rank_letters(CONV))]
    ranks = [rank for rank in ranks or [(2, 2), (5, 4)] if rank <= FORMS[form].max_rank(CONV)]

    def fits() -> list[Fit]:
        (brief,) = compare(FORMS[form], CONV, [given], ranks, as_it_is, steps=BRIEF)
        return [*brief, *(fit(FORMS[form], CONV, given, rank, steps=100) for rank in ranks)]

    expected = fits()
    monkeypatch.setattr("polyad.solvers.projection.MANY", 0)
    monkeypatch.setattr("polyad.solvers.projection.minimise", lambda *_: pytest.fail("vectors of float64"))
    found = fits()
    assert apart([found], [expected]).abs().max() < 0.3
    for one in found:
        assert all(factor.dtype == torch.float64 for factor in one.factors)
        weight = FORMS[form].reconstruct(one.factors).reshape(given.weight.shape)
        assert given.relative(weight) == pytest.approx(one.error, rel=1e-3)


def moment(rows: Tensor) -> Tensor:
    return (rows.mT @ rows / rows.shape[-2]).unsqueeze(0)


SPOILED: dict[str, Callable[[Problem], Problem]] = {
    "a weight of zeros": lambda p: Problem(torch.zeros_like(p.weight), p.matrix),
    "a tiny weight": lambda p: Problem(p.weight * 1e-25, p.matrix),
    "a single filter": lambda p: Problem(p.weight * (torch.arange(OUT) == 3).double()[:, None], p.matrix),
    "doubled filters": lambda p: Problem(p.weight[:, :1].expand_as(p.weight).clone(), p.matrix),
    "one input": lambda p: Problem(p.weight, moment(p.weight[0, :1])),
    "no inputs": lambda p: Problem(p.weight, torch.zeros(1, N, N, dtype=torch.float64)),
    "a huge norm": lambda p: Problem(p.weight, 1e30 * torch.ones(1, N, N, dtype=torch.float64)),
    "channels of all sizes": lambda p: Problem(
        p.weight, moment(torch.randn(200, N).double() * torch.logspace(-6, 6, N).double())
    ),
    "a weight of rank one": lambda p: Problem(p.weight[:, :1, :1] * p.weight[:, :, :1] * p.weight[:, :1], p.matrix),
}  # fmt: skip


@pytest.mark.parametrize("form", ["cp", "spatial_svd"])
@pytest.mark.parametrize("spoiled", SPOILED)
def test_one_that_is_out_of_the_ordinary_does_not_disturb_the_others(form: str, spoiled: str) -> None:
    good = [problem(seed) for seed in range(3)]
    odd = SPOILED[spoiled](problem(3))
    first, *others = compare(FORMS[form], CONV, [odd, *good], RANKS, as_it_is, steps=BRIEF)
    assert apart(others, compare(FORMS[form], CONV, good, RANKS, as_it_is, steps=BRIEF)).abs().max() < 0.2
    alone = fit_path(FORMS[form], CONV, odd, RANKS, steps=BRIEF, brief=True)
    for one, two in zip(first, alone, strict=True):
        assert all(factor.isfinite().all() for factor in one.factors)
        assert one.error == pytest.approx(two.error, rel=0.2, abs=2e-3)


@dataclass
class Valleys:
    """Rosenbrock's functions of two unknowns each, of several widths; `broken` gives no numbers away from its start."""

    widths: Tensor
    broken: Tensor

    def __call__(self, unknowns: Tensor) -> tuple[Tensor, Tensor]:
        x, y = unknowns.unbind(1)
        bend = y - x.square()
        values = (1 - x).square() + self.widths * bend.square()
        slopes = torch.stack([-2 * (1 - x) - 4 * self.widths * bend * x, 2 * self.widths * bend], 1)
        lost = self.broken & (x != -1.2)
        return values.masked_fill(lost, torch.nan), slopes.masked_fill(lost[:, None], torch.nan)

    def take(self, kept: Tensor) -> "Valleys":
        return Valleys(self.widths[kept], self.broken[kept])


@pytest.mark.parametrize("steps", [1, 3, 10, 200])
def test_descents_abreast_end_where_each_does_alone(steps: int) -> None:
    """Those that have made their steps stay where they are while others, refused one, go on."""
    widths = torch.tensor([1, 10, 100, 30, 3], dtype=torch.float64)
    broken = torch.tensor([False, False, False, True, False])
    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64).repeat(5, 1)
    found = minimise_each(Valleys(widths, broken), start, steps, THOROUGH)
    assert torch.equal(found[3], start[3])
    if steps == 200:
        torch.testing.assert_close(found[~broken], torch.ones(4, 2, dtype=torch.float64), rtol=0, atol=1e-3)
    for at in range(5):
        own = Valleys(widths[at : at + 1], broken[at : at + 1])
        torch.testing.assert_close(minimise_each(own, start[:1], steps, THOROUGH)[0], found[at], rtol=0, atol=1e-6)


def test_vectors_stay_in_float32() -> None:
    """Where one takes gigabytes nothing is to make it one of float64; and a single pair is kept then."""
    given: list[Tensor] = []

    class Watched(Valleys):
        def __call__(self, unknowns: Tensor) -> tuple[Tensor, Tensor]:
            given.append(unknowns)
            return super().__call__(unknowns)

    valley = Watched(torch.tensor([10.0]), torch.tensor([False]))
    found = minimise_each(valley, torch.tensor([[-1.2, 1.0]]), 100, THOROUGH)
    assert {one.dtype for one in given} | {found.dtype} == {torch.float32}
    torch.testing.assert_close(found, torch.ones(1, 2), rtol=0, atol=1e-2)
    assert pairs_kept(8) == MEMORY and pairs_kept(ROOM) == 1


def test_few_steps_never_end_higher() -> None:
    objectives = Valleys(torch.tensor([1, 10, 1e4], dtype=torch.float64), torch.zeros(3, dtype=torch.bool))
    start = torch.tensor([[-1.2, 1.0], [3.0, -8.0], [0.0, 9.0]], dtype=torch.float64)
    values = [objectives(start)[0]]
    for steps in (1, 2, 4, 8, 16):
        values.append(objectives(minimise_each(objectives, start, steps, THOROUGH))[0])
    assert (torch.stack(values).diff(dim=0) <= 0).all() and (values[1] < values[0]).all()


@pytest.mark.parametrize("tied", [False, True], ids=["full rows", "tied rows"])
@pytest.mark.parametrize("form", ["cp", "spatial_svd"])
def test_stacked_problems_have_the_values_and_gradients_of_each(
    form: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyad.solvers.products.WORTH", 0 if tied else 1 << 60)
    own, split, sizes = FORMS[form], Elimination.of(FORMS[form]), FORMS[form].sizes(GROUPED)
    assert split is not None
    given = [problem(seed, 2) for seed in range(4)]
    shapes = own.factor_shapes(GROUPED, (5,))
    generator = torch.Generator().manual_seed(0)
    factors = [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes[1:]] for _ in given]
    ridges, energies = (
        torch.tensor(values, dtype=torch.float64)
        for values in ([1e-2, 1e-4, 1e-6, 1e-1], [one.energy for one in given])
    )
    stack = Problem(torch.cat([one.weight for one in given]), torch.cat([one.matrix for one in given]))  # type: ignore
    whole = Projection(own, split, stack, sizes, [(8, *s[1:]) for s in shapes], ridges.repeat_interleave(2), energies)
    assert isinstance(whole.products, TiedRows) == (tied and form == "spatial_svd")
    kept = torch.tensor([0, 3])
    for projection, which in ((whole, range(4)), (whole.take(kept), kept.tolist())):
        values, gradients = projection.values_and_gradients([torch.cat(f) for f in zip(*(factors[at] for at in which))])
        for place, at in enumerate(which):
            alone = Projection(own, split, given[at], sizes, shapes, float(ridges[at]))
            assert alone.work == projection.work
            value, expected = alone.value_and_gradients(factors[at])
            assert float(values[place]) == pytest.approx(value, rel=1e-9)
            for gradient, wanted in zip(gradients, expected, strict=True):
                torch.testing.assert_close(gradient[2 * place : 2 * place + 2], wanted, rtol=1e-8, atol=1e-12)
