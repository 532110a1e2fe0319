"""The training core: the best state stays, failures roll back, checkpoints go on bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.budget import Budget
from polyad.cli.training import FURTHER, OPTIONS, training_of
from polyad.errors import PolyadError
from polyad.pipeline import compress
from polyad.settings import Training
from polyad.training.contracted import able, contracted, worth_contracting
from polyad.training.loop import OPTIMIZERS, Course, train
from polyad.training.prepared import prepared
from polyad.training.ranks import Ranks
from polyad.training.samples import Samples
from polyad.training.schedule import FLOOR, HIGHEST, LOWEST, Extent, rate_at, suited
from polyad.training.variation import UNVARIED, Variation
from polyad.work import Work


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 36, 4),
    ).eval()  # fmt: skip


def course(student: nn.Module, teacher: nn.Module, loss: Callable[[Tensor], Tensor] = torch.square) -> Course:
    torch.manual_seed(1)
    samples, unseen = Samples([Batch((torch.randn(90, 2, 6, 6),))]), torch.randn(30, 2, 6, 6)

    def apart(x: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(x)
        return loss(student(x) - wanted).mean()

    return Course(student, samples, lambda batch: apart(batch.args[0]), lambda: apart(unseen).item(), "test")


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


QUICK = Training(epochs=4, batch=16, rate=3e-2)


def test_it_learns_and_leaves_all_but_the_values_as_it_was() -> None:
    student, teacher = network(0).train(), network(1)
    student[0].weight.requires_grad_(False)
    asked = [parameter.requires_grad for parameter in student.parameters()]
    before = values(student)
    found = train(course(student, teacher), QUICK)
    assert found.after < 0.5 * found.before and found.improved and not found.failure
    assert (found.epochs, len(found.history), found.history[0]) == (4, 5, (0, found.before))
    assert found.after == min(figure for _, figure in found.history)
    assert all(module.training for module in student.modules())
    assert [parameter.requires_grad for parameter in student.parameters()] == asked
    assert all(parameter.grad is None and parameter.is_contiguous() for parameter in student.parameters())
    assert torch.equal(student[1].running_mean, before["1.running_mean"])  # batch norm is frozen
    assert course(student.eval(), teacher).figure() == pytest.approx(found.after, rel=1e-5)


def test_only_what_is_asked_for_is_trained() -> None:
    student, teacher = network(0), network(1)
    before = values(student)
    chosen = (student[3].weight, student[3].bias)
    one = course(student, teacher)
    train(Course(one.student, one.samples, one.objective, one.figure, "test", parameters=chosen), QUICK)
    moved = {name for name, tensor in values(student).items() if not torch.equal(tensor, before[name])}
    assert moved == {"3.weight", "3.bias"}


def test_nothing_gets_worse() -> None:
    student = network(0)
    before = values(student)
    found = train(course(student, student), Training(epochs=2, batch=16, rate=1.0))  # it is perfect already
    assert found.after == found.before == 0 and not found.improved
    assert same(values(student), before)


def test_a_loss_that_is_not_finite_ends_it_at_the_best_state() -> None:
    student, teacher, calls = network(0), network(1), 0
    good = course(student, teacher)

    def objective(batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        return good.objective(batch) * (nan if calls > 12 else 1)  # in the third epoch of five steps

    found = train(Course(student, good.samples, objective, good.figure, "test"), QUICK)
    assert "no longer finite in epoch 3" in found.failure and len(found.history) == 3
    assert found.after < found.before and all(tensor.isfinite().all() for tensor in values(student).values())
    assert good.figure() == pytest.approx(found.after, rel=1e-5)


def test_patience_ends_it() -> None:
    student, figures = network(0), iter([5.0, 4.0, 4.5, 4.2, 4.1, 1.0])
    one = course(student, network(1))
    stop = Training(epochs=5, batch=16, patience=2)
    found = train(Course(student, one.samples, one.objective, lambda: next(figures), "test"), stop)
    assert [figure for _, figure in found.history] == [5.0, 4.0, 4.5, 4.2] and found.after == 4.0


def test_more_time_than_it_was_given_before_is_used(tmp_path: Path) -> None:
    """One that ended by itself stays ended."""
    student, work = network(0), Work(tmp_path)
    short, long = (QUICK.model_copy(update={"epochs": None, "time": seconds}) for seconds in (0.2, 1.5))
    before = train(course(student, network(1)), short, work=work)
    again = train(course(network(0), network(1)), short, work=work)
    more = train(course(network(0), network(1)), long, work=work)
    assert again.epochs == before.epochs < more.epochs and more.history[: len(before.history)] == before.history
    impatient = long.model_copy(update={"patience": 1, "rate": 1.0})
    ended = train(course(network(0), network(1)), impatient, work=work)
    longer = train(course(network(0), network(1)), impatient.model_copy(update={"time": 3.0}), work=work)
    assert longer.epochs == ended.epochs


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", [1, 7, 13])
def test_going_on_ends_in_the_same_bits(tmp_path: Path, moment: int) -> None:
    options = QUICK.model_copy(update={"checkpoint": 0.0})
    whole, teacher = network(0), network(1)
    expected = train(course(whole, teacher), options)
    broken, calls = network(0), 0
    one = course(broken, teacher)

    def until(batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > moment:
            raise Killed
        return one.objective(batch)

    with pytest.raises(Killed):
        train(Course(broken, one.samples, until, one.figure, "test"), options, work=Work(tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    again, work = network(0), Work(tmp_path)
    found = train(course(again, teacher), options, work=work)
    assert work.taken["training"] == 1 and found.history == expected.history
    assert same(values(again), values(whole))
    third = network(0)
    calls = 0
    finished = train(Course(third, one.samples, until, one.figure, "test"), options, work=Work(tmp_path))
    assert calls == 0 and finished.after == found.after and same(values(third), values(whole))


def test_another_training_takes_no_checkpoint(tmp_path: Path) -> None:
    train(course(network(0), network(1)), QUICK, work=Work(tmp_path))
    for student, options in ((network(2), QUICK), (network(0), QUICK.model_copy(update={"rate": 1e-4}))):
        work = Work(tmp_path)
        train(course(student, network(1)), options, work=work)
        assert not work.taken


def test_seconds_end_it_with_a_low_rate() -> None:
    rates: list[float] = []
    student, step = network(0), torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *args: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        found = train(course(student, network(1)), Training(time=1.0, batch=16, rate=1e-3, optimizer="adamw"))
    assert 1.0 <= found.seconds < 5.0
    assert max(rates) > 5e-4 and rates[-1] < 1e-4 and found.history[-1][0] == found.epochs


@pytest.mark.parametrize("variation", [UNVARIED, Variation(shift=True, flip=True, mix=True)])
def test_accumulated_parts_are_one_batch(variation: Variation) -> None:
    one, two, options = network(0), network(0), QUICK.model_copy(update={"optimizer": "adamw"})
    train(replace(course(one, network(1)), variation=variation), options)
    train(replace(course(two, network(1)), variation=variation), options.model_copy(update={"accumulate": 3}))
    for a, b in zip(one.parameters(), two.parameters()):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_less_is_left_to_win_the_lower_is_the_rate() -> None:
    rates = [suited(figure, 2e-3) for figure in (0.0, 1e-3, 0.25, 1.0, 9.0)]
    assert rates == pytest.approx([2e-3 * LOWEST, 2e-3 * 1e-3**0.5, 1e-3, 2e-3, 2e-3])


def test_a_rate_of_zero_is_refused_not_passed_over() -> None:
    options = dict.fromkeys((*OPTIONS, FURTHER)) | {"seed": 0, "dense_control": False, "rate": 0.0}
    with pytest.raises(PolyadError, match="rate=0.0 of a training is no positive number"):
        training_of(options)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rate", [None, 2e-4])
def test_the_rate_is_the_one_given_or_the_suited_one(rate: float | None, optimizer: str) -> None:
    rates: list[float] = []
    one = course(network(0), network(1))
    step, highest = OPTIMIZERS[optimizer].step, HIGHEST[optimizer]  # type: ignore[attr-defined]

    def watched(self: torch.optim.Optimizer, *args: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OPTIMIZERS[optimizer], "step", watched)
        found = train(one, Training(epochs=4, batch=16, rate=rate, warmup=0.0, optimizer=optimizer))
    assert rates[0] == pytest.approx(rate or suited(found.before, highest)) and rates[0] < highest


def test_samples_are_drawn_in_an_order_that_can_be_drawn_again() -> None:
    batches = [
        Batch((torch.arange(10.0)[:, None],)),
        Batch((torch.arange(10.0, 14)[:, None],)),
        Batch((torch.ones(3, 2),)),
    ]
    samples = Samples(batches)
    assert len(samples) == 17 and [part.size for part in samples.parts] == [14, 3]
    assert samples.per_epoch(4) == len(samples.epoch(0, 4, 0)) == 4
    drawn = [samples.take(draw).args[0] for draw in samples.epoch(3, 4, 5)]
    again = [samples.take(draw).args[0] for draw in Samples(batches).epoch(3, 4, 5)]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    seen = torch.cat([batch.flatten() for batch in drawn if batch.shape[1] == 1])
    assert len(seen.unique()) == len(seen) == 12
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(samples.epoch(3, 4, 5), samples.epoch(4, 4, 5), strict=True))
    assert Samples(batches).key == samples.key != Samples(batches[:2]).key


def test_processes_share_every_batch() -> None:
    positions = torch.arange(10)
    shares = [Ranks(index, 3).share(positions) for index in range(3)]
    assert torch.equal(torch.cat(shares), positions) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(done / 100, 0.1) for done in range(101)]
    assert max(rates) == rates[10] == 1 and rates[-1] == FLOOR
    assert all(a < b for a, b in zip(rates[1:10], rates[2:11])) and all(a > b for a, b in zip(rates[10:], rates[11:]))
    assert (
        Extent(10, None).done(5, 99) == 0.5 and Extent(None, 10).done(99, 5) == 0.5 and Extent(10, 8).done(2, 4) == 0.5
    )


@pytest.mark.parametrize("form", ["cp", "cp4", "tucker2", "spatial_svd", "svd", "tt", "block_term", "group_svd"])
def test_a_contracted_layer_is_the_same_function_of_the_same_parameters(form: str) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(8, 12, 3, stride=2, padding=1, padding_mode="reflect"), nn.ReLU(),
        nn.Conv2d(12, 8, 3, groups=2, dilation=2, padding=2), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, stride=2),
    ).double().eval()  # fmt: skip
    x = torch.randn(4, 8, 9, 9, dtype=torch.float64)
    found = compress(teacher, [x], budget=Budget(params=0.7), forms=(form,), allocator="uniform", damage="relative",
                     metric="weights", recover="none")  # fmt: skip
    choices = able(found.plan.choices)
    assert choices
    ways = []
    for chosen in ([], choices):
        found.model.zero_grad()
        with contracted(found.model, chosen):
            y = found.model(x)
            y.square().sum().backward()
        ways.append([y.detach(), *(parameter.grad.clone() for parameter in found.model.parameters())])  # type: ignore[union-attr]
    assert all(torch.allclose(a, b, rtol=1e-8, atol=1e-10) for a, b in zip(*ways, strict=True))
    assert not any("forward" in vars(module) for module in found.model.modules())


@pytest.mark.parametrize("execution", ["factored", "contracted"])
@pytest.mark.parametrize("form", ["cp", "tucker2", "dense"])
def test_a_folded_batch_norm_is_the_same_function_of_the_same_parameters(form: str, execution: str) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, groups=2, padding=1), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 3, 1),
    ).eval()  # fmt: skip
    for norm in (teacher[1], teacher[4]):
        nn.init.uniform_(norm.running_var, 0.5, 2)  # pyright: ignore[reportArgumentType]
        nn.init.uniform_(norm.running_mean, -1, 1)  # pyright: ignore[reportArgumentType]
    nn.init.uniform_(teacher[1].weight, -1, 1)  # pyright: ignore[reportArgumentType]
    x = torch.randn(4, 4, 9, 9)
    fixed = {"0": (form, (2, 2) if form == "tucker2" else (3,)), "3": (form, (2, 2) if form == "tucker2" else (3,))}
    fixed = dict.fromkeys(fixed, ("dense", ())) if form == "dense" else fixed
    found = compress(teacher, [x], budget=Budget(params=1.0), fixed=fixed, damage="relative", metric="weights",
                     recover="none")  # fmt: skip
    expected = found.model(x)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in found.model.parameters()]  # type: ignore[union-attr]
    with prepared(found.model, list(found.model.parameters()), found.plan.choices, Training(execution=execution)):
        assert all("forward" in vars(norm) for norm in (found.model[1], found.model[4]))
        found.model.zero_grad()
        y = found.model(x)
        y.square().sum().backward()
        again = [parameter.grad.clone() for parameter in found.model.parameters()]  # type: ignore[union-attr]
    assert torch.allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(again, gradients, strict=True))
    assert not any("forward" in vars(module) for module in found.model.modules())


def test_small_layers_are_worth_contracting_and_deep_ones_not() -> None:
    teacher = nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(4), nn.Conv2d(16, 64, 1), nn.Conv2d(64, 64, 3, padding=1)
    ).eval()
    fixed = {"0": ("cp", (20,)), "2": ("dense", ()), "3": ("cp", (59,))}
    found = compress(teacher, [torch.randn(2, 16, 32, 32)], budget=Budget(params=0.9), fixed=fixed, recover="none",
                     metric="weights", damage="relative")  # fmt: skip
    assert [choice.site.name for choice in worth_contracting(found.plan.choices)] == ["0"]


def test_batch_norm_trains_where_it_is_asked_to() -> None:
    student = network(0)
    before = student[1].running_mean.clone()
    with prepared(student, list(student.parameters()), (), Training(norms="batch")):
        assert student[1].training and not student[0].training
    train(course(student, network(1)), QUICK.model_copy(update={"norms": "batch"}))
    assert not torch.equal(before, student[1].running_mean) and not student[1].training
