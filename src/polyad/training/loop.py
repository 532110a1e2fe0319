"""Train a network: the loop that every level with gradients shares.

`Course(student, samples, objective, figure, name)` says what is trained on what; `train(course, Training(...))` runs it
and leaves the best state in the student: that of the averaged weights with the least validation figure, the
    start among them. So nothing gets worse by it on validation samples.

A step depends on nothing but the tensors, the optimiser and the number of the step: the order of the samples and the
random numbers of a step are drawn from seeds. So a run that goes on from a checkpoint ends as one that was not broken.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.memory_format import channels_last
from polyad.progress import Progress, silent
from polyad.records import Choice
from polyad.settings import Training
from polyad.training.average import Average, put
from polyad.training.prepared import prepared
from polyad.training.ranks import ALONE, Ranks
from polyad.training.samples import Draw, Samples
from polyad.training.schedule import HIGHEST, Extent, rate_at, suited
from polyad.training.soap import Soap
from polyad.training.state import Keeper, State, training_key
from polyad.training.ticks import Ticks
from polyad.training.variation import UNVARIED, Variation
from polyad.work import NOTHING_KEPT, Work

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"soap": Soap, "adamw": torch.optim.AdamW}

Objective = Callable[[Batch], Tensor]
"""A batch beside the student -> the mean loss over its samples."""


@dataclass(frozen=True)
class Course:
    """What is trained, on what, and what is good.

    Attributes:
        student: trained in place.
        samples: to learn from.
        objective: what is minimised.
        figure: of the student as it is, on samples that are not learned from; less is better.
        name: of the level, for progress and notes.
        variation: how samples are varied.
        parameters: those that are trained; all by default.
        choices: what was replaced, so that factorised layers can be run in the quickest way.
        key: what objective, figure and `settle` depend on beside student and samples; equal for equal runs.
        own: the share of what is wanted that the network makes itself; an error is as large as it is beside that.
        settle: brings the student, once it was judged as it came, into a state that trains well.
    """

    student: nn.Module
    samples: Samples
    objective: Objective
    figure: Callable[[], float]
    name: str
    variation: Variation = UNVARIED
    parameters: tuple[nn.Parameter, ...] | None = None
    choices: tuple[Choice, ...] = ()
    key: tuple[object, ...] = ()
    own: float = 1.0
    settle: Callable[[], None] | None = None

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        chosen = self.student.parameters() if self.parameters is None else self.parameters
        return [parameter for parameter in chosen if parameter.is_floating_point()]


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        before, after: the validation figure at the start and of what was kept.
        epochs: that were run, the last one perhaps in part.
        seconds: of wall clock, those of interrupted runs included.
        history: (epochs, figure) of each validation.
        failure: why it ended early, or "".
    """

    before: float
    after: float
    epochs: float
    seconds: float
    history: tuple[tuple[float, float], ...] = ()
    failure: str = ""

    @property
    def improved(self) -> bool:
        return self.after < self.before

    def text(self, figure: str) -> str:
        """One sentence; `figure` is what the figure is called."""
        result = (
            f"{figure} {self.before:.4g} -> {self.after:.4g}" if self.improved else f"no {figure} below that of the"
        )
        result += "" if self.improved else f" start, {self.before:.4g}, so all is as it was"
        ended = f"; {self.failure}, and the best state before it is kept" if self.failure else ""
        return f"{self.epochs:.3g} epochs in {self.seconds:.0f} s, {result}{ended}"


def train(
    course: Course,
    training: Training,
    *,
    work: Work = NOTHING_KEPT,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train the student of a course and leave the best state in it.

    Args:
        course: what is trained.
        training: how.
        work: where checkpoints are kept and found.
        ranks: the processes that share the work, this one among them.
    """
    with prepared(course.student, course.trained, course.choices, training, ranks.device):
        key = training_key(course.name, course.student, course.samples.key, training, course.variation.key, *course.key)
        run = _Run(course, training, Keeper(key, work, ranks, training.checkpoint), ranks)
        run.to_the_end(progress if ranks.first else silent)
        state = run.state
        put(course.student, state.best)
    epochs = state.steps / state.per_epoch
    return Trained(state.history[0][1], state.figure, epochs, state.seconds, tuple(state.history), state.failure)


class _Run:
    """One training under way."""

    def __init__(self, course: Course, training: Training, keeper: Keeper, ranks: Ranks) -> None:
        self.course, self.training, self.keeper, self.ranks = course, training, keeper, ranks
        self.trained = course.trained
        self._epoch: tuple[int, list[Draw]] = (-1, [])
        for parameter in self.trained:
            parameter.grad = torch.zeros_like(parameter)  # also where a process has no sample of a batch
        optimizer = OPTIMIZERS[training.optimizer](self.trained, weight_decay=training.decay)
        average = Average(course.student, training.average)
        self.state = State(course.student, optimizer, average, course.samples.per_epoch(training.batch))
        if (piece := keeper.find()) is not None:
            self.state.restore(piece)

    def to_the_end(self, progress: Progress) -> None:
        """Steps until the training is over, or fails."""
        state, training = self.state, self.training
        epochs = training.passes
        extent = Extent(None if epochs is None else epochs * state.per_epoch, training.time)
        if not state.history:
            self._begin()
        if extent.done(state.steps, state.seconds) < 1:
            state.finished = bool(state.failure) or state.stale(training.patience)  # within a limit that was lower
        with Ticks(progress, self.course.name) as ticks:
            while not state.finished:
                done = extent.done(state.steps, state.seconds)
                done = done if training.time is None else self.ranks.agreed(done)
                ticks.show(done, state.figure)
                if done >= 1:
                    break
                self._step(rate_at(done, training.warmup))
                if state.steps % state.per_epoch == 0 and not self._goes_on():
                    break
                self.keeper.in_time(state)
        if not state.finished:
            if state.judged < state.steps and self._sound():
                self._judge()
            state.finished = True
            self.keeper.now(state)

    def _begin(self) -> None:
        """Judged as it came, which is what has to be beaten, then settled."""
        self._judge()
        if self.course.settle is not None:
            self.course.settle()
            self.state.average.begin_again()

    @property
    def _highest(self) -> float:
        """The rate, which may hang on what the first validation said."""
        highest = HIGHEST[self.training.optimizer]
        return self.training.rate or suited(self.state.history[0][1] / self.course.own, highest)

    def _goes_on(self) -> bool:
        """At the end of an epoch."""
        if not self._sound():
            return False
        self._judge()
        return not self.state.stale(self.training.patience)

    def _sound(self) -> bool:
        """Whether it has not failed so far."""
        if not self.state.failure and not self.ranks.agreed(self.state.sound):
            epoch = -(-self.state.steps // self.state.per_epoch)
            self.state.failure = f"the loss was no longer finite in epoch {epoch}"
        return not self.state.failure

    def _judge(self) -> None:
        with self.state.average.in_place(), torch.no_grad():
            self.state.judge(self.ranks.agreed(self.course.figure()))

    def _step(self, rate: float) -> None:
        """One step of the optimiser on one batch, of which each process takes its share."""
        state, training = self.state, self.training
        batch = self._batch()
        mine = self.ranks.share(torch.arange(batch.size))
        state.optimizer.zero_grad(set_to_none=False)
        for part in mine.tensor_split(training.accumulate):
            if len(part):
                loss = self._loss(batch.pick(part)) * (len(part) / batch.size)
                loss.backward()
                state.add_loss(loss.detach())
        self.ranks.add_up([parameter.grad for parameter in self.trained if parameter.grad is not None])
        if training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.trained, training.clip)
        for group in state.optimizer.param_groups:
            group["lr"] = self._highest * rate
        state.optimizer.step()
        state.steps += 1
        state.average.update()

    def _batch(self) -> Batch:
        """The samples of the next step, all of them in every process: what they are mixed with may be another's."""
        drawn = self._draw()
        numbers = self.course.variation.draw(len(drawn[1]), _generator(self.training.seed, self.state.steps))
        return self.course.variation.apply(self.course.samples.take(drawn).beside(self.course.student), numbers)

    def _draw(self) -> Draw:
        """The samples of the next step."""
        epoch, at = divmod(self.state.steps, self.state.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self.course.samples.epoch(epoch, self.training.batch, self.training.seed)
        return self._epoch[1][at]

    def _loss(self, batch: Batch) -> Tensor:
        device = self.trained[0].device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.training.precision == "bfloat16"):
            return self.course.objective(channels_last(batch))


def _generator(seed: int, step: int) -> torch.Generator:
    """Of the random numbers of one step, whatever came before it."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
