"""A weight to be approximated and the norm that counts, prepared once per layer and view.

The norm of an error D is tr(G D C D'), with C over the inputs and G over the outputs (the identity in most norms).

Mode-wise whitening: the norm C is approximated by a Kronecker product of one matrix per input mode (its partial
traces). Multiplying the weight by their square roots turns the weighted problem into nearly a plain one, without
destroying the tensor: any plain algorithm gives a good start there, and the exact norm, transformed likewise, is well
conditioned for the refinement. Undoing it is one small multiplication of the factor that carries the mode.

Where one factor alone carries the outputs G goes the same way, and exactly so: G^1/2 W is fitted in the norm of C.
Where groups share that factor their mean G is taken out, and what is left of each stays in the problem.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from math import log2

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.digests import digest
from polyad.layers import LayerSpec
from polyad.linalg import matrix_powers, raised, symmetric
from polyad.metrics import Metric, held_out_norm
from polyad.records import Site, Statistics
from polyad.solvers.transform import WIDE, along, partial_sum, partial_trace, root_and_inverse, times, transform

LIFT = 1e-12
"""What a norm is lifted by before it is whitened, relative to its mean eigenvalue."""

HUGE = 1 << 29
"""Bytes of a norm (8,192 inputs) from which on its views are of float32."""

SINGLE = 3e-3
"""Errors above this are told in float32, and descents for comparison that start there are computed in it: products take
half the time, and rounding (about 1e-6 of the weight's energy) does not show."""

SMALLEST = 1e-6
"""A weight or norm whose largest entry lies between this and its inverse is left as it is."""


@dataclass(frozen=True)
class Problem:
    """Approximate `weight` in the norm of `matrix` and `left`.

    Attributes:
        weight: (groups, out, n) float64; all three float32 in views of huge norms.
        matrix: C (groups, n, n) float64, positive definite; (groups, n) where it is diagonal; None for the identity.
        left: G (groups, out, out) float64, positive definite; None for the identity.
    """

    weight: Tensor
    matrix: Tensor | None
    left: Tensor | None = None

    @cached_property
    def energy(self) -> float:
        """tr(G W C W'), what relative errors are relative to."""
        return float(self.squared_norm(self.weight))

    @property
    def single(self) -> "Problem":
        """The same in float32, for descents: products take half the time.

        C is lifted by what rounding may take from its smallest eigenvalues, or weights would grow where they are
        negative.
        """
        return self if self.weight.dtype == torch.float32 else self._single

    @property
    def moderate(self) -> tuple["Problem", float]:
        """The same with weight and norm in a range whose products float32 can hold, and what its approximations have to
        be multiplied by: a power of two, which changes no digit. A norm that sees nothing of the weight tells nothing:
        the plain norm takes its place."""
        found, scale = self._moderate
        return found or self, scale

    # What is kept never holds the problem itself: a cycle would keep its views, which of a wide layer take gigabytes,
    # until Python looks for cycles.

    @cached_property
    def _single(self) -> "Problem":
        matrix, left = (
            None if norm is None else norm.to(torch.float32, copy=True) for norm in (self.matrix, self.left)
        )
        if matrix is not None and matrix.dim() == 3:
            rounding = torch.finfo(matrix.dtype).eps * torch.linalg.vector_norm(matrix, 1, -1).amax(-1, keepdim=True)
            matrix.diagonal(dim1=-2, dim2=-1).add_(rounding)
        return Problem(self.weight.float(), matrix, left)

    @cached_property
    def _moderate(self) -> tuple["Problem | None", float]:
        """As `moderate`, None for the problem as it is."""
        scale, matrix, left = _power_of_two(self.weight), _moderate(self.matrix), _moderate(self.left)
        same = scale == 1 and matrix is self.matrix and left is self.left
        found = self if same else Problem(self.weight / scale, matrix, left)
        if found.energy == 0 and found.weight.any():
            return Problem(found.weight, None), scale
        if matrix is not None and not SMALLEST < found.energy < 1 / SMALLEST:
            return Problem(found.weight, matrix / _power_of_two(torch.tensor(found.energy)), left), scale
        return None if same else found, scale

    @cached_property
    def digest(self) -> str:
        """Hash of all that makes it up."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return digest({name: tensor for name, tensor in parts.items() if tensor is not None})

    def squared_norm(self, difference: Tensor) -> Tensor:
        """tr(G D C D') of (groups, out, n), summed over groups."""
        return (self.weighted(difference) * difference).sum()

    def weighted(self, difference: Tensor) -> Tensor:
        """G D C (groups, out, n), half the gradient of the squared norm."""
        right = times(difference, self.matrix)
        return right if self.left is None else self.left @ right

    def part(self, groups: Tensor) -> "Problem":
        """Some of its groups."""
        matrix, left = (None if norm is None else norm[groups] for norm in (self.matrix, self.left))
        return Problem(self.weight[groups], matrix, left)

    def reordered(self, order: Tensor) -> "Problem":
        """The same with its outputs in another order (groups, out)."""
        weight = self.weight.gather(1, order.unsqueeze(-1).expand_as(self.weight))
        if self.left is None:
            return Problem(weight, self.matrix)
        rows = self.left.gather(1, order.unsqueeze(-1).expand_as(self.left))
        return Problem(weight, self.matrix, rows.gather(2, order.unsqueeze(1).expand_as(rows)))

    def relative(self, approximation: Tensor) -> float:
        """Relative error of an approximation (groups, out, n)."""
        error = float(self.squared_norm(self.weight - approximation))
        return error / self.energy if self.energy > 0 else error

    def nearly(self, approximation: Tensor) -> float:
        """`relative` in float32 where that is exact enough for a comparison."""
        quick = self.single.relative(approximation.float())
        return quick if quick > SINGLE else self.relative(approximation)

    @cached_property
    def _whitened(self) -> dict[tuple, "Whitened"]:
        return {}

    def whitened(self, form: Decomposition, layer: LayerSpec) -> "Whitened":
        """The problem in whitened coordinates of a form's view.

        A mode that several factors carry stays as it is; where groups share factors they share the whitening too.
        """
        sizes = form.sizes(layer)
        single = {letter for letter in sizes if sum(letter in letters for letters in form.letters) == 1}
        modes = tuple((letter, size) for letter, size in sizes.items() if letter not in form.outputs)
        outputs = tuple((letter, sizes[letter]) for letter in form.outputs)
        key = (modes, frozenset(single), outputs, any(form.shared))
        if key not in self._whitened:
            if self.matrix is not None and self.matrix.nbytes > WIDE:
                self._whitened.clear()
            own = form.outputs if len(outputs) == 1 and form.outputs in single else None
            problem, undo = self._without_left(own, together=any(form.shared))
            found = _whiten(problem, modes, single, tuple(size for _, size in outputs), any(form.shared))
            huge = self.matrix is not None and self.matrix.nbytes > HUGE
            view = found.problem.single if huge else found.problem
            vars(view)["energy"] = self.energy  # the same in all coordinates, and long to find of a wide norm
            self._whitened[key] = Whitened(view, found.shape, found.undo | undo)
        return self._whitened[key]

    def _without_left(self, letter: str | None, *, together: bool) -> tuple["Problem", dict[str, Tensor]]:
        """G taken into the weight: all of it, or its mean where groups share factors.

        Args:
            letter: of the outputs where a single factor carries them, else None.
        """
        if self.left is None or letter is None:
            return self, {}
        together = together and len(self.left) > 1
        left = self.left.mean(0, keepdim=True) if together else self.left
        root, inverse = matrix_powers(left, 0.5, -0.5)
        rest = symmetric(inverse @ self.left @ inverse) if together else None
        return Problem(root @ self.weight, self.matrix, rest), {letter: inverse}


def problems(
    site: Site, weight: Tensor, norm: Metric, statistics: Statistics | None, *, fair: bool = True
) -> tuple[Problem, Problem | None]:
    """The canonical weight (groups, out, in, *kernel) of a site in the norm of the fit, and in that of the held-out
    inputs; `fair`: every layer of a stack counts alike, whatever the energy of its outputs."""
    flat = weight.detach().to("cpu", torch.float64).flatten(2)
    if norm.matrix is None or statistics is None:
        return _fair(Problem(flat, None), site, fair), None
    left = None if norm.left is None else norm.left(site, statistics)
    unseen = held_out_norm(site, statistics)
    fitted = _fair(Problem(flat, norm.matrix(site, statistics), left), site, fair)
    return fitted, None if unseen is None else _fair(Problem(flat, unseen, left), site, fair)


def _fair(problem: Problem, site: Site, wanted: bool) -> Problem:
    """Every layer of a stack counts alike: the error is the mean of their relative errors.

    Otherwise a layer with large outputs would be fitted at the cost of those with small ones, which matter as much.
    """
    layers = len(site.modules)
    if layers == 1 or not wanted:
        return problem
    products = (problem.weighted(problem.weight) * problem.weight).sum((1, 2))
    energy = products.reshape(layers, -1).sum(1)
    alive = energy[energy > 0]
    typical = alive.mean() if len(alive) else torch.ones_like(energy[0])  # for layers of zeros, which are to stay zero
    share = (1 / torch.where(energy > 0, energy, typical)).repeat_interleave(len(products) // layers)
    if problem.matrix is None:
        return Problem(problem.weight, share.unsqueeze(1).expand(-1, problem.weight.shape[2]).contiguous())
    scaled = problem.matrix * share.reshape(-1, *(1,) * (problem.matrix.dim() - 1))
    return Problem(problem.weight, scaled, problem.left)


@dataclass(frozen=True)
class Whitened:
    """A problem in the coordinates of one view.

    Attributes:
        problem: weight and norm, transformed.
        shape: (out, ...) of the view: sizes of its output and input letters.
        undo: per whitened letter, of inputs or outputs, the inverse transformation (groups or 1, size, size).
    """

    problem: Problem
    shape: tuple[int, ...]
    undo: dict[str, Tensor]

    @property
    def target(self) -> Tensor:
        """The weight (groups, *view)."""
        return self.problem.weight.reshape(-1, *self.shape)

    @property
    def factors(self) -> dict[str, Tensor]:
        """Per whitened letter what takes factors into these coordinates: the inverse of `undo`."""
        return {letter: 1 / undo if undo.dim() == 2 else torch.linalg.inv(undo) for letter, undo in self.undo.items()}


def _whiten(
    problem: Problem, modes: tuple[tuple[str, int], ...], single: set[str], outputs: tuple[int, ...], together: bool
) -> Whitened:
    sizes = tuple(size for _, size in modes)
    shape = (*outputs, *sizes)
    if (matrix := problem.matrix) is None:
        return Whitened(Problem(problem.weight, None, problem.left), shape, {})
    diagonal = matrix.dim() == 2
    groups, out, n = problem.weight.shape
    weight = problem.weight.reshape(groups, out, *sizes)
    if not diagonal:  # rounding of the transformations is not to leave negative eigenvalues
        matrix = raised(matrix, LIFT * matrix.diagonal(dim1=-2, dim2=-1).mean(-1))
    matrix = matrix.reshape(groups, *sizes * (1 if diagonal else 2))
    undo = {}
    for axis, (letter, _) in enumerate(modes):
        if letter not in single:
            continue
        moment = (partial_sum if diagonal else partial_trace)(matrix, axis, len(modes))
        moment = moment.mean(0, keepdim=True) if together else moment
        root, inverse = root_and_inverse(moment)
        weight = along(weight, root, axis + 2)
        if diagonal:
            matrix = along(matrix, inverse.square(), axis + 1)
        else:
            transform(matrix, inverse, axis + 1, len(modes))
        undo[letter] = inverse
    flat = matrix.reshape(groups, n) if diagonal else symmetric(matrix.reshape(groups, n, n))
    return Whitened(Problem(weight.flatten(2), flat, problem.left), shape, undo)


def _moderate(norm: Tensor | None) -> Tensor | None:
    scale = 1.0 if norm is None else _power_of_two(norm)
    return norm if norm is None or scale == 1 else norm / scale


def _power_of_two(tensor: Tensor) -> float:
    """The power of two next to the largest entry; 1 where that is moderate, or zero."""
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    return 1.0 if largest == 0 or SMALLEST < largest < 1 / SMALLEST else 2.0 ** round(log2(largest))
