"""A site of a compressed network beside the same site of the original: read and set its factors and its bias."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.records import Choice, Site
from polyad.solvers import Problem, fit

LEAST_SCALE = 1e-2
"""A batch norm is taken to multiply each channel with at least this share of the largest factor: what stands behind it
is divided by that."""


@dataclass(frozen=True)
class State:
    """How a site is approximated.

    Attributes:
        factors: of its form.
        shift: (groups, out) what its bias has in addition, or the batch norm behind in its place.
    """

    factors: tuple[Tensor, ...]
    shift: Tensor


@dataclass(frozen=True)
class Place:
    """One site, a single layer, in both networks; here one that has factors."""

    choice: Choice
    teacher: nn.Module
    student: nn.Module

    @property
    def site(self) -> Site:
        return self.choice.site

    @property
    def form(self) -> Decomposition:
        return FORMS[self.choice.form]

    @cached_property
    def original(self) -> nn.Module:
        """The layer that errors are counted from."""
        return self.teacher.get_submodule(self.site.name)

    @cached_property
    def dense(self) -> tuple[Tensor, Tensor]:
        """Weight (groups, out, n) and bias (groups, out) of the original layer, float64."""
        member, module = self.site.layer, self.original
        weight = member.canonical(module.weight.detach()).to("cpu", torch.float64).flatten(2)  # type: ignore[operator, union-attr]
        bias = getattr(module, "bias", None)
        return weight, weight.new_zeros(weight.shape[:2]) if bias is None else self._grouped(bias)

    def read(self) -> State:
        """How the student has it now."""
        shift = torch.zeros_like(self.dense[1])
        if self.site.layer.bias:
            shift = self._grouped(self._last.bias) - self.dense[1]  # type: ignore[arg-type]
        elif self.site.norm_behind is not None:
            mine, theirs = self._norms()
            shift = self._grouped(theirs.running_mean) - self._grouped(mine.running_mean)  # type: ignore[arg-type]
        return State(tuple(self._factors()), shift)

    @torch.no_grad()
    def put(self, state: State) -> None:
        """Let the student have it so."""
        bias = None
        if self.site.layer.bias:
            bias = (self.dense[1] + state.shift).flatten()
        elif self.site.norm_behind is not None:
            mine, theirs = self._norms()
            mine.running_mean.copy_(theirs.running_mean.double().cpu() - state.shift.flatten())  # type: ignore[operator, union-attr]
        self._load(state.factors, bias)

    def weight(self, state: State) -> Tensor:
        """W^ (groups, out, n)."""
        return self.form.reconstruct(state.factors).reshape(self.dense[0].shape)

    def fitted(self, problem: Problem, factors: Sequence[Tensor], steps: int) -> tuple[Tensor, ...]:
        """Factors that solve a problem, from some on."""
        return fit(self.form, self.site.layer, problem, self.choice.rank, steps=steps, init=factors).factors

    @property
    def _module(self) -> nn.Module:
        return self.student.get_submodule(self.site.name)

    @property
    def _last(self) -> nn.Module:
        """What carries the bias."""
        return self._module[-1]  # type: ignore[index, return-value]

    def _factors(self) -> Sequence[Tensor]:
        factors = self.form.read(self._module, self.site.layer, self.choice.rank)  # type: ignore[arg-type]
        return [factor.cpu() for factor in factors]

    def _load(self, factors: Sequence[Tensor], bias: Tensor | None) -> None:
        self.form.load(self._module, self.site.layer, factors, bias)  # type: ignore[arg-type]

    def scale(self) -> tuple[Tensor, Tensor]:
        """What the batch norm behind makes of a channel in the teacher: factor and constant (out,), float64."""
        out = self.site.layer.out_features
        if self.site.norm_behind is None:
            return torch.ones(out, dtype=torch.float64), torch.zeros(out, dtype=torch.float64)
        _, norm = self._norms()
        mean, variance = (getattr(norm, name).double().cpu() for name in ("running_mean", "running_var"))
        weight, bias = (getattr(norm, name) for name in ("weight", "bias"))
        factor = (variance + norm.eps).rsqrt()  # type: ignore[operator]
        factor = factor if weight is None else factor * weight.detach().double().cpu()
        factor = factor if factor.any() else torch.ones_like(factor)
        least = LEAST_SCALE * factor.abs().max()
        factor = torch.where(factor.abs() < least, torch.where(factor < 0, -least, least), factor)
        return factor, (0 if bias is None else bias.detach().double().cpu()) - factor * mean

    def _norms(self) -> tuple[nn.Module, nn.Module]:
        name = self.site.norm_behind or ""
        return self.student.get_submodule(name), self.teacher.get_submodule(name)

    def _grouped(self, channels: Tensor) -> Tensor:
        return channels.detach().to("cpu", torch.float64).reshape(self.site.layer.groups, -1)


class Plain(Place):
    """One that is a plain layer in the student too, perhaps with fewer inputs; errors are counted from what it is now.

    Its only factor is its weight.
    """

    @cached_property
    def site(self) -> Site:  # type: ignore[override]
        """With as many channels as the student has."""
        return self.choice.site.model_copy(update={"layer": LayerSpec.of(self._plain)})

    @cached_property
    def original(self) -> nn.Module:
        return deepcopy(self._plain)

    def weight(self, state: State) -> Tensor:
        return state.factors[0]

    def fitted(self, problem: Problem, factors: Sequence[Tensor], steps: int) -> tuple[Tensor, ...]:
        """What is wanted, whatever the norm."""
        return (problem.weight,)

    @property
    def _plain(self) -> nn.Module:
        return self.student.get_submodule(self.choice.site.name)

    @property
    def _last(self) -> nn.Module:
        return self._plain

    def _factors(self) -> Sequence[Tensor]:
        return (self.site.layer.canonical(self._plain.weight.detach()).to("cpu", torch.float64).flatten(2),)  # type: ignore[operator, union-attr]

    def _load(self, factors: Sequence[Tensor], bias: Tensor | None) -> None:
        self._plain.weight.copy_(self.site.layer.native(factors[0]))  # type: ignore[operator, union-attr]
        if bias is not None:
            self._plain.bias.copy_(bias)  # type: ignore[operator, union-attr]


def place_of(choice: Choice, teacher: nn.Module, student: nn.Module) -> Place:
    """The place of a choice, as it is in the student."""
    return (Plain if choice.dense else Place)(choice, teacher, student)
