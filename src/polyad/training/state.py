"""Where a training is: all that a checkpoint holds, so that going on ends in the same bits."""

import json
from math import inf, isfinite
from time import perf_counter

import torch
from torch import Tensor, nn

from polyad.digests import digest
from polyad.settings import Training
from polyad.training.average import Average, copied, put, tensors_of
from polyad.training.ranks import Ranks
from polyad.work import Piece, Work, key_of

KIND = "training"

WAY = 3
"""Raised where the same settings lead elsewhere than before, so that nobody goes on from what was trained otherwise."""


class State:
    """A training between two steps.

    Attributes:
        steps: of the optimiser.
        per_epoch: steps of an epoch.
        best, figure: the averaged tensors with the least validation figure so far, and that figure.
        history: (epochs, figure) of each validation, the start first.
        judged: steps at the last validation.
        failure: why it ended early, or "".
        finished: whether nothing is left to do.
    """

    def __init__(self, student: nn.Module, optimizer: torch.optim.Optimizer, average: Average, per_epoch: int) -> None:
        self.student, self.optimizer, self.average, self.per_epoch = student, optimizer, average, per_epoch
        self.steps, self.judged, self.finished = 0, 0, False
        self.best, self.figure = copied(student), inf
        self.history: list[tuple[float, float]] = []
        self.failure = ""
        self._loss: Tensor | None = None
        self._before, self._since = 0.0, perf_counter()

    @property
    def seconds(self) -> float:
        """Of wall clock, those of interrupted runs included."""
        return self._before + perf_counter() - self._since

    @property
    def sound(self) -> bool:
        """Whether all losses were finite so far."""
        return self._loss is None or bool(self._loss.isfinite())

    def add_loss(self, loss: Tensor) -> None:
        """Kept as a tensor: to look at its value at every step would make a graphics card wait."""
        self._loss = loss if self._loss is None else self._loss + loss

    def judge(self, figure: float) -> None:
        """What validation says about the averaged tensors as they are."""
        figure = figure if isfinite(figure) else inf
        self.history.append((self.steps / self.per_epoch, figure))
        self.judged = self.steps
        if figure < self.figure:
            self.best, self.figure = {name: tensor.clone() for name, tensor in self.average.mean.items()}, figure

    def stale(self, patience: int | None) -> bool:
        """Whether so many validations in a row brought nothing."""
        figures = [figure for _, figure in self.history]
        return patience is not None and len(figures) - 1 - figures.index(min(figures)) >= patience

    def restore(self, piece: Piece) -> None:
        """Be where a checkpoint was."""
        said = json.loads(piece.text)
        self.steps, self.judged, self.finished = said["steps"], said["judged"], said["finished"]
        self.figure, self.failure, self.average.steps = said["figure"], said["failure"], self.steps
        self.history = [(epochs, figure) for epochs, figure in said["history"]]
        self._before = said["seconds"]
        put(self.student, _part(piece, "student."))
        for place, into in (("mean.", self.average.mean), ("best.", self.best)):
            for name, tensor in _part(piece, place).items():
                into[name].copy_(tensor)
        for at, parameter in enumerate(_parameters(self.optimizer)):
            found = _part(piece, f"optimizer.{at}.")
            self.optimizer.state[parameter] = {name: _beside(parameter, value) for name, value in found.items()}

    def piece(self) -> Piece:
        """What `restore` needs."""
        tensors = {f"student.{name}": tensor for name, tensor in tensors_of(self.student).items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.average.mean.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for at, parameter in enumerate(_parameters(self.optimizer)):
            own = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{at}.{name}": value for name, value in own.items()}
        said = {
            "steps": self.steps,
            "judged": self.judged,
            "finished": self.finished,
            "figure": self.figure,
            "history": self.history,
            "seconds": self.seconds,
            "failure": self.failure,
        }
        return Piece(tensors, json.dumps(said))


class Keeper:
    """Keeps checkpoints of one training in a folder of unfinished work, the last one under its name.

    Args:
        key: what the training is made from.
        work, ranks: only the first process writes and reads.
        every: seconds between checkpoints.
    """

    def __init__(self, key: str, work: Work, ranks: Ranks, every: float) -> None:
        self.key, self.work, self.ranks, self.every = key, work, ranks, every
        self.last = perf_counter()

    def find(self) -> Piece | None:
        return self.ranks.agreed(self.work.find(self.key) if self.ranks.first else None)

    def now(self, state: State) -> None:
        if self.ranks.first and self.work.folder is not None:
            self.work.keep(self.key, state.piece())
        self.last = perf_counter()

    def in_time(self, state: State) -> None:
        """Now, if the last one was long ago and the state can be gone on from."""
        if perf_counter() - self.last >= self.every and state.sound:
            self.now(state)


def training_key(name: str, student: nn.Module, samples: str, training: Training, *rest: object) -> str:
    """The name of the checkpoint of a training: equal only where all of it is but the time that it may take."""
    said = training.model_dump_json(exclude={"checkpoint", "time", "dense_control", "device"})
    return key_of(KIND, WAY, name, digest(tensors_of(student)), samples, said, *rest)


def _beside(parameter: Tensor, value: Tensor) -> Tensor:
    """What an optimiser knows of a parameter: of its shape, a matrix of its own, or a number, which stays."""
    if value.dim() == 0:
        return value
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.to(parameter.device)


def _part(piece: Piece, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in piece.tensors.items() if name.startswith(prefix)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
