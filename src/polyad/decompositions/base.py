"""The one interface of a decomposition: an einsum of small factors.

The equation is the definition: reconstruction, parameters, multiply-accumulates, the executable layers, the solver's
updates and the documentation all come from it. Its letters: `o` output channels, `i` input channels, `h` the first
kernel axis, `w` the others, `k` all kernel axes as one, `n` input channels and kernel as one. A form may split channels
into several letters (`sizes`). Every other letter is a rank, or has a size that belongs to the form (`structure`).

The groups of a layer, and the layers of a stack, are a leading dimension `G` of each factor; it is written only where
some factor lacks it because all of them share that factor.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn

from polyad.errors import FormError, UnknownNameError
from polyad.execution.build import build, fill, parameter_names, read
from polyad.execution.build import macs as network_macs
from polyad.execution.network import BATCH, KERNEL, Network
from polyad.layers import LayerSpec, Size
from polyad.plain.cuts import Ladder, tails, trimmed
from polyad.records import Rank
from polyad.registry import FormRegistry


class Decomposition(ABC):
    """weight <-> factors <-> layers, for one representation.

    Attributes:
        name: as on the command line.
        equation: einsum of the factors; the right-hand side is the view of the weight that the form works on: letters
            of the outputs, of the inputs, of the kernel, in this order.
        summary: one line for `polyad forms`.
        good_for: where it wins, and where it does not.
        source: the paper.
        outputs: the letters of the view that are output channels.
        own: what the letters are whose sizes belong to the form, as in {"g": "terms"}.
        on_request: variants that only their names bring onto a menu, an example of each, and what they are.
        default: whether the menu offers it where no forms are named.
        start_is_optimal: whether `start` is the best fit in the plain norm; then, with a single rank, its first slices
            along that rank are the starts of all smaller ranks (Eckart and Young 1936).
        additive: whether the weight is a sum of independent terms, so that a fit of rank r + s can start from one of r.
        many_optima: whether descents from different starts end in optima of different worth, so that several are tried.
        reorders: whether it sorts the outputs before it fits; then the last factor is their order (groups, out).
        norm_bounded: whether its terms are kept small at the price of a slightly larger error.
    """

    name: str
    equation: str
    summary: str
    good_for: str
    source: str
    outputs: str = "o"
    own: Mapping[str, str] = {}
    on_request: Mapping[str, str] = {}
    default: bool = False
    start_is_optimal: bool = False
    additive: bool = False
    many_optima: bool = False
    reorders: bool = False
    norm_bounded: bool = False

    @abstractmethod
    def refuses(self, layer: LayerSpec) -> str | None:
        """Why this form cannot carry the layer, or None."""

    @abstractmethod
    def max_rank(self, layer: LayerSpec) -> Rank:
        """The largest useful rank: every weight is represented exactly."""

    @abstractmethod
    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """A good fit of `target` (groups, *view) in the plain norm: where the solver starts."""

    def structure(self, layer: LayerSpec) -> Mapping[str, int]:
        """Sizes of letters that are neither in the view nor ranks."""
        return {}

    def variants(self, layer: LayerSpec) -> Sequence["Decomposition"]:
        """The arrangements of this form that can carry a layer, the plain one first; none where it is refused."""
        return () if self.refuses(layer) else (self,)

    def variant(self, text: str) -> "Decomposition":
        """The arrangement that a name such as "tt/iwho" asks for by what stands behind the slash."""
        raise UnknownNameError(f"The form {self.name} has no variants, so {self.name}/{text} does not exist.")

    def sorted_outputs(self, weight: Tensor, layer: LayerSpec) -> Tensor:
        """Order (groups, out) in which a form that reorders wants the rows of a weight (groups, out, n)."""
        raise NotImplementedError(self.name)

    @cached_property
    def letters(self) -> list[str]:
        """Letters of each factor, without the groups."""
        return [letters.replace(BATCH, "") for letters in self.equation.split("->")[0].split(",")]

    @cached_property
    def shared(self) -> list[bool]:
        """Whether each factor is one and the same for all groups."""
        written = self.equation.split("->")[0].split(",")
        return [BATCH in self.equation and BATCH not in letters for letters in written]

    @cached_property
    def view(self) -> str:
        """Letters of the weight, without the groups."""
        return self.equation.split("->")[1].replace(BATCH, "")

    @cached_property
    def term_letter(self) -> str | None:
        """The letter that counts the terms of a sum of rank-one terms: it stands in all factors."""
        common = set.intersection(*map(set, self.letters)) - set(self.view)
        return common.pop() if len(common) == 1 else None

    @cached_property
    def canonical(self) -> bool:
        """Whether it is a plain sum of rank-one terms: one factor (groups, size, terms) for each mode of the view."""
        modes = [letters[:-1] for letters in self.letters]
        same = all(letters[-1] == self.term_letter for letters in self.letters)
        return same and sorted(modes) == sorted(self.view) and not any(self.shared)

    def rank_letters(self, layer: LayerSpec) -> str:
        """The rank letters in the order of a rank tuple (order of appearance)."""
        known = set(self.view).union(self.structure(layer))
        return "".join(letter for letter in dict.fromkeys("".join(self.letters)) if letter not in known)

    def sizes(self, layer: LayerSpec) -> dict[str, int]:
        """Size of every letter of the view."""
        _, out, inp, *kernel = layer.weight_shape
        known = {"o": out, "i": inp, "k": prod(kernel), "n": inp * prod(kernel)}
        known |= {"h": prod(kernel[:1]), "w": prod(kernel[1:])}
        return {letter: known[letter] for letter in self.view}

    def letter_sizes(self, layer: LayerSpec, rank: Rank) -> dict[str, int]:
        """Size of every letter at a rank."""
        ranks = dict(zip(self.rank_letters(layer), rank, strict=True))
        return self.sizes(layer) | dict(self.structure(layer)) | ranks

    def factor_shapes(self, layer: LayerSpec, rank: Rank) -> list[tuple[int, ...]]:
        """Shapes (groups, ...) of the factors, from the equation; (1, ...) of those that all groups share."""
        size, groups = self.letter_sizes(layer, rank), layer.weight_shape[0]
        return [
            (1 if shared else groups, *(size[letter] for letter in letters))
            for letters, shared in zip(self.letters, self.shared, strict=True)
        ]

    def network(self, layer: LayerSpec, rank: Rank) -> Network:
        """The factors of one layer (one of a stack) as what is executed; `n` parts into input channels and kernel."""
        groups = BATCH if layer.groups > 1 else ""
        inputs = "".join(letter for letter in self.view if letter not in self.outputs + KERNEL)
        size = self.letter_sizes(layer.member, rank)
        factors = [("" if one else groups) + letters for letters, one in zip(self.letters, self.shared, strict=True)]
        if "n" in inputs:
            inputs, factors = inputs.replace("n", "i"), [letters.replace("n", "ik") for letters in factors]
            size |= {"i": layer.weight_shape[2], "k": prod(layer.kernel)}
            del size["n"]
        if layer.matrix:  # kernel letters of one position
            factors = ["".join(letter for letter in letters if letter not in KERNEL) for letters in factors]
        size = ({BATCH: layer.groups} if groups else {}) | size
        return Network(tuple(factors), groups + inputs, groups + self.outputs, tuple(size.items()))

    def params(self, layer: LayerSpec, rank: Rank) -> int:
        """Number of parameters at a rank, bias included; of all layers of a stack."""
        return sum(prod(shape) for shape in self.factor_shapes(layer, rank)) + layer.params - layer.weight_params

    def macs(self, layer: LayerSpec, rank: Rank, size: Size) -> int:
        """Multiply-accumulates of one layer for one input of spatial size `size`."""
        return network_macs(self.network(layer, rank), layer.member, size)

    def contracted(self, factors: Sequence[Tensor]) -> Tensor:
        """Factors -> weight (groups, *view), its outputs in the order in which the form computes them."""
        names = [letters if one else BATCH + letters for letters, one in zip(self.letters, self.shared, strict=True)]
        tensors = [factor[0] if one else factor for factor, one in zip(factors, self.shared, strict=True)]
        return torch.einsum(f"{','.join(names)}->{BATCH}{self.view}", *tensors)

    def reconstruct(self, factors: Sequence[Tensor]) -> Tensor:
        """Factors (and for forms that reorder the order) -> weight (groups, *view)."""
        if not self.reorders:
            return self.contracted(factors)
        *factors, order = factors
        return self._reordered(self.contracted(factors), order.argsort(-1))

    def _reordered(self, weight: Tensor, order: Tensor) -> Tensor:
        """The outputs of (groups, *view) in another order (groups, out)."""
        flat = weight.flatten(1, len(self.outputs)).flatten(2)
        return flat.gather(1, order.unsqueeze(-1).expand_as(flat)).reshape(weight.shape)

    def balanced(self, layer: LayerSpec, factors: Sequence[Tensor]) -> list[Tensor]:
        """The same weight from factors whose slices along each rank, and bond of the form, have equal norms.

        A term may be huge in one factor and tiny in another, which float32 and smaller types cannot hold.
        """
        result = list(factors)
        for letter in (*self.rank_letters(layer), *self.structure(layer)):
            axes = {at: letters.index(letter) + 1 for at, letters in enumerate(self.letters) if letter in letters}
            norms = [_slice_norms(result[at], axis, any(self.shared)) for at, axis in axes.items()]
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
        """The executable layers of one layer (one of a stack), not yet filled."""
        self.check(layer, rank)
        return build(self.network(layer, rank), layer.member, dtype, device, reorders=self.reorders)

    def shared_parameters(self, layer: LayerSpec, rank: Rank) -> list[str]:
        """Names of the parameters of a skeleton that all layers of a stack share."""
        names = parameter_names(self.network(layer.member, rank), layer.member)
        return [name for name, one in zip(names, self.shared, strict=True) if one]

    def load(self, module: nn.Sequential, layer: LayerSpec, factors: Sequence[Tensor], bias: Tensor | None) -> None:
        """Fill a skeleton: factors (groups, ...) of one layer and its bias (out,) go in, cast to its dtype."""
        order = None
        if self.reorders:
            *factors, order = factors
            order = (order + torch.arange(len(order))[:, None] * order.shape[1]).flatten()
        found = {letter: size for letters, f in zip(self.letters, factors, strict=True)
                 for letter, size in zip(letters, f.shape[1:], strict=True)}  # fmt: skip
        rank = tuple(found[letter] for letter in self.rank_letters(layer))
        fill(module, self.network(layer, rank), layer.member, factors, bias, order)

    def read(self, module: nn.Sequential, layer: LayerSpec, rank: Rank) -> list[Tensor]:
        """As `live`, factors in float64 on the CPU, without gradients."""
        found = [one.detach().cpu() for one in self.live(module, layer, rank)]
        return [one.double() if one.is_floating_point() else one for one in found]

    def live(self, module: nn.Sequential, layer: LayerSpec, rank: Rank) -> list[Tensor]:
        """The factors (groups, ...) of one layer that `load` filled, last their order for forms that reorder; gradients
        flow back to its parameters."""
        found, order = read(module, self.network(layer, rank), layer.member)
        shapes = self.factor_shapes(layer.member, rank)
        factors = [factor.reshape(shape) for factor, shape in zip(found, shapes, strict=True)]
        if order is None:
            return factors
        split = order.reshape(layer.groups, -1)
        return [*factors, split - torch.arange(len(split), device=split.device)[:, None] * split.shape[1]]

    def ranks(self, layer: LayerSpec, target: Tensor, shares: Sequence[float]) -> list[Rank]:
        """For every share of the dense weights a good rank within it, ascending, without repeats.

        Forms with one rank take the largest. With several, each rank letter cuts the network in two: what its unfolding
        leaves out beyond a rank bounds the error, and ranks fall where that costs least per parameter.

        Args:
            target: the weight (groups, *view) in whitened coordinates.
        """
        largest = self.max_rank(layer)
        bias, dense = layer.params - layer.weight_params, layer.weight_params

        def params(rank: Rank) -> int:
            return self.params(layer, rank) - bias

        if len(largest) == 1:
            found = {(min(largest[0], int(share * dense / params((1,)))),) for share in shares}  # linear in the rank
            return sorted(rank for rank in found if rank[0] >= 1)
        letters = self.rank_letters(layer)
        fixed = self.sizes(layer) | dict(self.structure(layer))
        left = tails(self.letters, self.view, letters, target, largest)
        ladder = Ladder(params, largest, left, lambda rank: trimmed(self.letters, letters, fixed, rank))
        return sorted(set(ladder.within([share * dense for share in shares])), key=lambda rank: (params(rank), rank))

    def break_even(self, layer: LayerSpec) -> Rank | None:
        """The largest rank in the proportions of `max_rank` with fewer parameters than the dense layer, if any has."""
        largest = self.max_rank(layer)

        def at(step: int) -> Rank:
            return tuple(max(1, round(top * step / max(largest))) for top in largest)

        steps = range(1, max(largest) + 1)  # parameters never fall from one to the next
        below = bisect_left(steps, layer.params, key=lambda step: self.params(layer, at(step)))
        return at(steps[below - 1]) if below else None


def _slice_norms(factor: Tensor, axis: int, together: bool) -> Tensor:
    """Norms (groups, rank) of the slices along one axis of (groups, ...); (1, rank) where groups share factors."""
    norms = factor.movedim(axis, 1).flatten(2).norm(dim=-1) if factor.dim() > 2 else factor.abs()
    return norms.norm(dim=0, keepdim=True) if together else norms


FORMS: FormRegistry[Decomposition] = FormRegistry("form", "polyad.decompositions")
