"""Fits for comparison, which say what form and rank are worth: one descent each that ends where little is gained.

Several problems of one layer shape are fitted abreast where their forms allow it: small layers are small calls, and a
call for twenty of them takes little longer than for one. What comes out differs from each fitted alone by rounding; a
descent that ends where little is gained carries that on, so that single errors are some per cent apart, either way.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.records import Rank
from polyad.solvers.closed import is_matrix_product
from polyad.solvers.continuation import CHEAPEST, PRICES, in_plain_norm, scaled_alike
from polyad.solvers.descent import BRIEF, Descent
from polyad.solvers.elimination import Elimination
from polyad.solvers.found import EXACT, Fit, Frame, closed, components, elimination_of
from polyad.solvers.growth import grow, padded
from polyad.solvers.problem import SINGLE, Problem, Whitened
from polyad.solvers.projection import Projection
from polyad.solvers.stack import Found, Stack
from polyad.threads import on_threads

ROUNDING = 3e-6
"""Smallest price in float32."""

AFFORDABLE, LEAST = 25e9, 4
"""Multiply-accumulates with C (about a second) that one descent for comparison may take, and the L-BFGS iterations that
it has however long they take: layers of 512 channels, whose patches have thousands of entries, have these alone. After
sweeps it has one: on 64 channels of ResNet-20 one, two or four of them end within 3 % of each other."""

SWEEPS, LEAST_SWEEPS, GAIN = 3, 20, 0.02
"""Of accelerated alternating least squares before such a descent, so many for each of its steps. If a descent follows,
the limit of work holds for them too, but they are never fewer than the second, whose fits err 8 % more there than those
of 60. They end where ten of them gain less than this share of the error."""

CANCELLED = 0.03
"""An error that is a difference of two energies in float32 is exact to about 1e-4 of itself from here on."""

A = TypeVar("A")
Begin = Callable[[Rank], list[Tensor]]


def as_it_is(at: int, fit: Fit) -> Fit:
    """All of a fit is kept."""
    return fit


@on_threads(1)
def compare(
    form: Decomposition,
    layer: LayerSpec,
    problems: Sequence[Problem],
    ranks: Sequence[Rank],
    keep: Callable[[int, Fit], A],
    *,
    steps: int,
) -> list[list[A]]:
    """For every problem what is kept of fits at all ranks, each warm-started from the one before; the error never rises
    with the rank.

    Args:
        layer: the layer whose weights they are.
        problems: weights (groups, out, n) and norms.
        ranks: rising.
        keep: position of a problem, its fit at the next rank -> what is wanted of it: the factors of all ranks together
            take several times the memory of the weight.
        steps: at most so many L-BFGS iterations.

    Raises:
        FormError: the form refuses the layer or has no such rank.
    """
    for rank in ranks:
        form.check(layer, rank)
    if not ranks:
        return [[] for _ in problems]
    if all(closed(form, problem) for problem in problems):
        paths = (components(form, layer, problem, ranks) for problem in problems)
        return [[keep(at, fit) for fit in path] for at, path in enumerate(paths)]
    frames = [Frame.of(form, layer, problem) for problem in problems]
    found: list[list[A]] = [[] for _ in problems]
    for places in _alike(form, [frame.view for frame in frames]):
        path = _Path(form, layer, Stack(form, tuple(frames[at].view for at in places)), steps)
        for fits in path.along(ranks):
            for at, fit in zip(places, fits, strict=True):
                found[at].append(keep(at, frames[at].left(form, layer, fit)))
    return found


def goes_abreast(form: Decomposition, layer: LayerSpec) -> bool:
    """Whether layers of one shape gain by being fitted together: descents with an output factor to eliminate, in one
    arrangement, whose single rank no spectrum decides."""
    split = elimination_of(form)
    if split is None or any(form.shared) or form.reorders or is_matrix_product(form, split):
        return False
    return len(form.variants(layer)) == 1 and len(form.rank_letters(layer)) == 1


def _alike(form: Decomposition, views: Sequence[Whitened]) -> list[list[int]]:
    """Which problems go abreast: those whose output factor can be eliminated, each on its own, in norms of one kind."""
    alone = elimination_of(form) is None or any(form.shared)
    kinds: dict[tuple, list[int]] = {}
    for at, view in enumerate(views):
        norm, left = view.problem.matrix, view.problem.left
        kind = () if norm is None else (norm.shape, norm.dtype)
        kinds.setdefault((at,) if alone or left is not None else kind, []).append(at)
    return list(kinds.values())


@dataclass(frozen=True)
class _Path:
    """Fits of a stack of problems, in the coordinates of their views."""

    form: Decomposition
    layer: LayerSpec
    stack: Stack
    steps: int

    def along(self, ranks: Sequence[Rank]) -> Iterator[list[Fit]]:
        """At every rank one for each problem."""
        begin, previous = _beginning(self.form, self.layer, self.stack.view, ranks), None
        for rank in ranks:
            previous = self._next(rank, previous, begin)
            yield previous.fits(rank)

    def _next(self, rank: Rank, previous: Found | None, begin: Begin) -> Found:
        """One descent, from the plain start or grown from the smaller rank; never worse than that."""
        if previous is not None and self.form.additive:
            start = grow(self.form, self.layer, self.stack.view, previous.factors, rank, single=True)
        else:
            start = begin(rank)
        found = Found.of(self.stack, start).no_worse_than_zero(self.stack)
        if not self.stack.plain or (self.steps and not self.form.start_is_optimal):
            (inexact,) = (found.errors >= EXACT).nonzero(as_tuple=True)
            if len(inexact):
                found = found.better(inexact, self._descended(self.stack.take(inexact), found.part(inexact)))
        shapes = [(len(factor), *factor.shape[1:]) for factor in found.factors]
        larger = None if previous is None else padded(previous.factors, shapes)
        if previous is None or larger is None:
            return found
        (worse,) = (~(found.errors <= previous.errors)).nonzero(as_tuple=True)
        return found.put(worse, Found(larger, previous.errors).part(worse)) if len(worse) else found

    def _descended(self, stack: Stack, start: Found) -> Found:
        """Factors of the problems of a stack, each after its descent.

        A sum of rank-one terms, whose plain start is far from the best fit in the plain norm of the whitened
        coordinates, is brought nearer to that first: a sweep there takes a sixth of an evaluation with C.
        """
        split, found = elimination_of(self.form), start
        if split is None or stack.views[0].problem.left is not None:
            descent = Descent(self.form, stack.views[0].problem)
            return Found.of(stack, descent.refine(start.factors, self.steps, BRIEF))
        rough = start.errors > SINGLE if self.form.canonical else torch.zeros_like(start.errors, dtype=torch.bool)
        if rough.any():
            (places,) = rough.nonzero(as_tuple=True)
            found = found.put(places, self._swept(stack.take(places), start.part(places)))
        left = ~rough if stack.plain else torch.ones_like(rough)
        least = 1 if rough.all() else LEAST
        for single in (True, False):
            (places,) = (left & ((found.errors > SINGLE) == single)).nonzero(as_tuple=True)
            if len(places):
                part = stack.take(places)
                reduced = self._reduced(split, part.single if single else part, found.part(places), least)
                found = found.put(places, reduced)
        return found

    def _swept(self, stack: Stack, start: Found) -> Found:
        """After sweeps in the plain norm of the whitened coordinates, and the errors there: near those with C, and
        cheaper to find."""
        sweeps = SWEEPS * self.steps
        if not stack.plain:
            work = 2 * stack.views[0].problem.weight.numel() * start.factors[0].shape[-1]
            sweeps = min(sweeps, max(LEAST_SWEEPS, int(AFFORDABLE / work)))
        plain, sizes = stack.in_plain_norm, self.form.sizes(self.layer)
        found = in_plain_norm(self.form, sizes, plain.whole, start.factors, sweeps, GAIN, len(stack.views))
        return Found.of(plain, found)

    def _reduced(self, split: Elimination, stack: Stack, start: Found, least: int) -> Found:
        """After a descent over all factors but the output factor, in the precision of the stack."""
        problem, single = stack.whole, stack.whole.weight.dtype == torch.float32
        prices = PRICES[-1] * start.errors
        prices = (prices.clamp_min(ROUNDING) if single else prices).clamp_min(CHEAPEST)
        one = len(prices) == 1
        ridge = float(prices) if one else prices.repeat_interleave(len(problem.weight) // len(prices))
        shapes, sizes = [tuple(factor.shape) for factor in start.factors], self.form.sizes(self.layer)
        projection = Projection(self.form, split, problem, sizes, shapes, ridge, stack.energies)
        steps = min(self.steps, max(least, int(AFFORDABLE / projection.work)))
        refined = projection.refined if one else projection.refined_each  # for a single one SciPy is faster
        found = Found(*refined(scaled_alike(self.form, start.factors), steps, BRIEF))
        (small,) = (found.errors < CANCELLED).nonzero(as_tuple=True)
        if not single or not len(small):
            return found
        return found.put(small, Found.of(stack.take(small), found.part(small).factors))


def _beginning(form: Decomposition, layer: LayerSpec, view: Whitened, ranks: Sequence[Rank]) -> Begin:
    """Rank -> the plain start; where starts are parts of each other all of them come from one decomposition."""
    target, letters = view.target.float(), form.rank_letters(layer)
    if not form.start_is_optimal or len(letters) != 1:
        return lambda rank: [factor.double() for factor in form.start(target, rank)]
    widest = form.start(target, max(ranks))

    def part(factor: Tensor, names: str, size: int) -> Tensor:
        return (factor.narrow(names.index(letters) + 1, 0, size) if letters in names else factor).double()

    return lambda rank: [part(f, names, *rank) for f, names in zip(widest, form.letters, strict=True)]
