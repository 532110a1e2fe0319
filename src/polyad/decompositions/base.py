"""The one interface of a decomposition: an einsum of small factors, and the standard layers that execute it.

The equation is the definition. Its letters: `o` output channels, `i` input channels, `h`, `w` kernel axes, `k` all
kernel axes as one, `n` input channels and kernel as one; every other letter is a rank. Each factor carries the groups
of the layer as a leading dimension that the equation does not show; all groups share one rank.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from polyad.errors import FormError
from polyad.layers import LayerSpec, Size
from polyad.records import Rank
from polyad.registry import Registry

BATCH = "G"
"""Letter of the groups; upper case, so that no equation uses it."""


class Decomposition(ABC):
    """weight <-> factors <-> layers, for one representation.

    Class attributes:
        name: as on the command line.
        equation: einsum of the factors; the right-hand side is the view of the weight that the form works on.
        summary: one line for `polyad forms`.
        source: the paper.
        good_for: one or two honest sentences: where it wins and where it does not.
    """

    name: ClassVar[str]
    equation: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    good_for: ClassVar[str]
    start_is_optimal: ClassVar[bool] = False
    """Whether `start` is the best fit in the plain norm."""
    additive: ClassVar[bool] = False
    """Whether the weight is a sum of independent terms, so that a fit of rank r + s can start from one of rank r."""

    @property
    def inputs(self) -> list[str]:
        """Letters of each factor."""
        return self.equation.split("->")[0].split(",")

    @property
    def view(self) -> str:
        """Letters of the weight."""
        return self.equation.split("->")[1]

    @property
    def rank_letters(self) -> str:
        """The rank letters in the order of a rank tuple (order of appearance)."""
        seen = dict.fromkeys("".join(self.inputs))
        return "".join(letter for letter in seen if letter not in self.view)

    @abstractmethod
    def refuses(self, layer: LayerSpec) -> str | None:
        """Why this form cannot carry the layer, or None."""

    @abstractmethod
    def max_rank(self, layer: LayerSpec) -> Rank:
        """The rank at which every weight is represented exactly."""

    @abstractmethod
    def layers(self, layer: LayerSpec, rank: Rank) -> tuple[LayerSpec, ...]:
        """The standard layers, in execution order; the last one carries the bias."""

    @abstractmethod
    def weights(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """Factors -> weights of `layers`, canonical up to a reshape."""

    @abstractmethod
    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """A good fit of `target` (groups, *view) in the plain norm: where the solver starts."""

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        """Size of every letter of the view."""
        _, out, inp, *kernel = layer.weight_shape
        known = {"o": out, "i": inp, "k": prod(kernel), "n": inp * prod(kernel)}
        known |= dict(zip("hw", kernel, strict=False))
        return {letter: known[letter] for letter in self.view}

    def factor_shapes(self, layer: LayerSpec, rank: Rank) -> list[tuple[int, ...]]:
        """Shapes (groups, ...) of the factors, from the equation."""
        size = self.sizes(layer) | dict(zip(self.rank_letters, rank, strict=True))
        return [(layer.groups, *(size[letter] for letter in letters)) for letters in self.inputs]

    def params(self, layer: LayerSpec, rank: Rank) -> int:
        """Number of parameters at a rank, bias included."""
        return sum(prod(shape) for shape in self.factor_shapes(layer, rank)) + (layer.out_features if layer.bias else 0)

    def macs(self, layer: LayerSpec, rank: Rank, size: Size) -> int:
        """Multiply-accumulates for one input of spatial size `size`."""
        total = 0
        for part in self.layers(layer, rank):
            total += part.macs(size)
            size = part.output_size(size)
        return total

    def reconstruct(self, factors: Sequence[Tensor]) -> Tensor:
        """Factors -> weight (groups, *view)."""
        letters = ",".join(BATCH + letters for letters in self.inputs)
        return torch.einsum(f"{letters}->{BATCH}{self.view}", *factors)

    def balanced(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """The same weight from factors whose slices along each rank have equal norms.

        A term may be huge in one factor and tiny in another, which float32 and smaller types cannot hold.
        """
        result = list(factors)
        for letter in self.rank_letters:
            axes = {at: letters.index(letter) + 1 for at, letters in enumerate(self.inputs) if letter in letters}
            norms = [_slice_norms(result[at], axis) for at, axis in axes.items()]  # (groups, rank) each
            alive = torch.stack(norms).min(0).values > 0
            logs = torch.stack([norm.clamp_min(torch.finfo(norm.dtype).tiny).log() for norm in norms])
            for (at, axis), log in zip(axes.items(), logs, strict=True):
                scale = torch.where(alive, (logs.mean(0) - log).exp(), torch.ones_like(log))
                shape = [scale.shape[0], *(1,) * (result[at].dim() - 1)]
                shape[axis] = scale.shape[1]
                result[at] = result[at] * scale.view(shape)
        return result

    def check(self, layer: LayerSpec, rank: Rank) -> None:
        """Raise FormError when the form refuses the layer or has no such rank."""
        if reason := self.refuses(layer):
            raise FormError(f"{self.name} cannot carry this {layer.label}: {reason}.")
        largest = self.max_rank(layer)
        fits = len(rank) == len(largest) and all(1 <= r <= top for r, top in zip(rank, largest, strict=True))
        if not fits:
            raise FormError(f"{self.name} takes ranks from {(1,) * len(largest)} to {largest} here, not {rank}.")

    def skeleton(
        self, layer: LayerSpec, rank: Rank, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> nn.Sequential:
        """The executable layers, not yet filled."""
        self.check(layer, rank)
        return nn.Sequential(*(part.build(dtype, device) for part in self.layers(layer, rank)))

    @torch.no_grad()
    def load(self, module: nn.Sequential, layer: LayerSpec, factors: Sequence[Tensor], bias: Tensor | None) -> None:
        """Fill a skeleton: factors (groups, ...) and the bias (out,) go in, cast to its dtype."""
        rank = dict(zip("".join(self.inputs), (s for f in factors for s in f.shape[1:]), strict=True))
        specs = self.layers(layer, tuple(rank[letter] for letter in self.rank_letters))
        for part, spec, weight in zip(module, specs, self.weights(factors), strict=True):
            part.weight.copy_(spec.native(weight))  # type: ignore[operator, union-attr]
        if bias is not None:
            module[-1].bias.copy_(bias)  # type: ignore[operator, union-attr]

    def ranks(self, layer: LayerSpec, target: Tensor, shares: Sequence[float]) -> list[Rank]:
        """For every share of the dense weights the largest rank within it, ascending, without repeats.

        `target` is the weight (groups, *view) in whitened coordinates, for forms with several ranks to weigh them.
        """
        (largest,) = self.max_rank(layer)
        bias = layer.params - layer.weight_params
        per_rank = self.params(layer, (1,)) - bias
        found = {min(largest, int(share * layer.weight_params / per_rank)) for share in shares}
        return [(rank,) for rank in sorted(found) if rank >= 1]


def _slice_norms(factor: Tensor, axis: int) -> Tensor:
    """Norms (groups, rank) of the slices along one axis of (groups, ...)."""
    return factor.movedim(axis, 1).flatten(2).norm(dim=-1) if factor.dim() > 2 else factor.abs()


FORMS: Registry[Decomposition] = Registry("form", "polyad.decompositions")


def pointwise(layer: LayerSpec, in_features: int, out_features: int, *, bias: bool = False) -> LayerSpec:
    """A 1x1 convolution with as many dimensions and groups as `layer` (channels of all groups together)."""
    ones = (1,) * layer.dims
    return LayerSpec(
        kind="conv",
        in_features=in_features,
        out_features=out_features,
        bias=bias,
        kernel=ones,
        stride=ones,
        padding=(0,) * layer.dims,
        dilation=ones,
        groups=layer.groups,
    )


def resized(layer: LayerSpec, in_features: int, out_features: int, **changes: object) -> LayerSpec:
    """The same layer with other channel numbers and without a bias."""
    return layer.model_copy(update={"in_features": in_features, "out_features": out_features, "bias": False} | changes)


def one_channel(layer: LayerSpec) -> str | None:
    """Why forms that mix channels refuse depthwise and single-channel layers."""
    _, out, inp, *_ = layer.weight_shape
    if out == 1 and inp == 1:
        return "it is depthwise: one input and one output channel per group leave no channels to mix"
    if out == 1 or inp == 1:
        side = "output" if out == 1 else "input"
        return f"it has one {side} channel per group, so its weight is a matrix: use svd"
    return None


def without_kernel(layer: LayerSpec) -> str | None:
    """Why forms of three and more modes refuse matrices."""
    if layer.kind == "linear":
        return "its weight is a matrix, for which this form is the svd"
    if prod(layer.kernel) == 1:
        return "its kernel has one position, so its weight is a matrix: use svd"
    return None
