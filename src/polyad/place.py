"""A site of a compressed network beside the same site of the original: read and set its factors and its bias."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from polyad.decompositions.base import FORMS, Decomposition
from polyad.records import Choice, Site
from polyad.sites import weight_of

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
    """One site, a single layer, in both networks."""

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
    def dense(self) -> tuple[Tensor, Tensor]:
        """Weight (groups, out, n) and bias (groups, out) of the original layer, float64."""
        weight = weight_of(self.teacher, self.site).to("cpu", torch.float64).flatten(2)
        bias = getattr(self.teacher.get_submodule(self.site.name), "bias", None)
        return weight, weight.new_zeros(weight.shape[:2]) if bias is None else self._grouped(bias)

    def read(self) -> State:
        """How the student has it now."""
        module = self.student.get_submodule(self.site.name)
        factors = self.form.read(module, self.site.layer, self.choice.rank)  # type: ignore[arg-type]
        shift = torch.zeros_like(self.dense[1])
        if self.site.layer.bias:
            shift = self._grouped(module[-1].bias) - self.dense[1]  # type: ignore[index]
        elif self.site.norm_behind is not None:
            mine, theirs = self._norms()
            shift = self._grouped(theirs.running_mean) - self._grouped(mine.running_mean)  # type: ignore[arg-type]
        return State(tuple(factors), shift)

    @torch.no_grad()
    def put(self, state: State) -> None:
        """Let the student have it so."""
        module, bias = self.student.get_submodule(self.site.name), None
        if self.site.layer.bias:
            bias = (self.dense[1] + state.shift).flatten()
        elif self.site.norm_behind is not None:
            mine, theirs = self._norms()
            mine.running_mean.copy_(theirs.running_mean.double().cpu() - state.shift.flatten())  # type: ignore[operator, union-attr]
        self.form.load(module, self.site.layer, state.factors, bias)  # type: ignore[arg-type]

    def weight(self, state: State) -> Tensor:
        """W^ (groups, out, n)."""
        return self.form.reconstruct(state.factors).reshape(self.dense[0].shape)

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
