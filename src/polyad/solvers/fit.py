"""Fit the factors of a form to a weight in a norm: `fit` at one rank, `fit_path` along rising ranks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import inf, isfinite, nan

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.plain.alternating import affordable, alternating
from polyad.records import Rank
from polyad.solvers.bounded import most, norm_bounded
from polyad.solvers.closed import is_matrix_product, output_components
from polyad.solvers.continuation import compared, error_of, in_plain_norm, refined
from polyad.solvers.descent import BRIEF, Descent
from polyad.solvers.elimination import Elimination
from polyad.solvers.growth import grow, padded
from polyad.solvers.problem import Problem, Whitened
from polyad.solvers.search import LEAST_STEPS, PLAIN, best_start
from polyad.solvers.transform import along
from polyad.threads import on_threads

INIT = "init"
"""Name of a start that was given."""

EXACT = 1e-12
"""Relative error below which there is nothing to refine."""

elimination_of = cache(Elimination.of)
Begin = Callable[[Rank], list[Tensor]]


@dataclass(frozen=True)
class Fit:
    """Factors (groups, ...) float64, balanced, and their relative error in the norm of the problem.

    For a form that sorts the outputs the last factor is their order (groups, out). `start` says which of several starts
    they come from.
    """

    rank: Rank
    factors: tuple[Tensor, ...]
    error: float
    start: str = PLAIN


@on_threads(1)
def fit(
    form: Decomposition,
    layer: LayerSpec,
    problem: Problem,
    rank: Rank,
    *,
    steps: int = 100,
    brief: bool = False,
    init: Sequence[Tensor] | None = None,
) -> Fit:
    """The best factors of one rank that the solver finds; the same input gives the same factors.

    Args:
        layer: the layer whose weight it is.
        problem: weight (groups, out, n) and norm.
        rank: the rank.
        steps: at most so many L-BFGS iterations. From 100 on, forms with many optima are tried from several starts,
            which makes a fit take two to three times as long.
        brief: whether factors are wanted for comparison only: descents end where little is gained.
        init: factors to go on from, as a `Fit` has them, and from nowhere else; the error is at most theirs.

    Raises:
        FormError: the form refuses the layer or has no such rank.
    """
    if init is not None:
        return _continued(form, layer, problem, rank, init, steps)
    return fit_path(form, layer, problem, [rank], steps=steps, brief=brief)[0]


@on_threads(1)
def fit_path(
    form: Decomposition,
    layer: LayerSpec,
    problem: Problem,
    ranks: Sequence[Rank],
    *,
    steps: int = 100,
    brief: bool = False,
) -> list[Fit]:
    """Fits at several ranks, each warm-started from the one before; the error never rises with the rank.

    A plain algorithm starts in mode-wise whitened coordinates; L-BFGS over all factors but the output factor, which is
    eliminated in closed form where there is one, refines in the full norm. A matrix factorisation needs neither.
    """
    for rank in ranks:
        form.check(layer, rank)
    if not ranks:
        return []
    order = None
    problem, scale = problem.moderate
    if form.reorders:
        order = form.sorted_outputs(problem.weight, layer)
        problem = problem.reordered(order)
    elif problem.left is None and is_matrix_product(form, elimination_of(form)):
        return _closed(form, layer, problem, ranks, scale)
    view = problem.whitened(form, layer)
    fit_one = partial(_compared_one, begin=_beginning(form, layer, view, ranks)) if brief else _fit_one
    fits, previous = [], None
    for rank in ranks:
        previous = fit_one(form, layer, view, rank, previous, steps)
        factors = form.balanced(layer, _scaled(_applied(form, view.undo, previous.factors), scale))
        fits.append(
            Fit(rank, (*factors, order) if order is not None else tuple(factors), previous.error, previous.start)
        )
    return fits


def _continued(
    form: Decomposition, layer: LayerSpec, problem: Problem, rank: Rank, init: Sequence[Tensor], steps: int
) -> Fit:
    """Refined from given factors; for a form that reorders in their order of the outputs."""
    form.check(layer, rank)
    problem, scale = problem.moderate
    factors, order = list(init), None
    if form.reorders:
        *factors, order = init
        problem = problem.reordered(order)
    elif problem.left is None and is_matrix_product(form, elimination_of(form)):
        return _closed(form, layer, problem, [rank], scale)[0]
    view = problem.whitened(form, layer)
    here = _measured(form, view, rank, _scaled(_applied(form, view.factors, factors), 1 / scale), INIT)
    better = _measured(form, view, rank, _refined(form, layer, view.problem, here.factors, steps), INIT)
    best = _bounded(form, layer, view, min(here, better, key=_error), 1.0, steps)
    best = min(here, best, key=_error)
    found = form.balanced(layer, _scaled(_applied(form, view.undo, best.factors), scale))
    return Fit(rank, (*found, order) if order is not None else tuple(found), best.error, INIT)


def _closed(form: Decomposition, layer: LayerSpec, problem: Problem, ranks: Sequence[Rank], scale: float) -> list[Fit]:
    """All ranks of a matrix factorisation at once."""
    found = output_components(form, problem, [form.factor_shapes(layer, rank) for rank in ranks])
    return [
        Fit(rank, tuple(form.balanced(layer, _scaled(factors, scale))), error)
        for rank, (factors, error) in zip(ranks, found, strict=True)
    ]


def _fit_one(
    form: Decomposition, layer: LayerSpec, view: Whitened, rank: Rank, previous: Fit | None, steps: int
) -> Fit:
    """The best of the plain start and its refinement; grown from the smaller rank where that is better."""
    start = _no_worse_than_zero(form, view, _measured(form, view, rank, form.start(view.target, rank)))
    plain = view.problem.matrix is None and view.problem.left is None
    if start.error < EXACT or (plain and form.start_is_optimal):
        return start
    found = [start]
    if previous is not None and form.additive:
        found.append(_measured(form, view, rank, grow(form, layer, view, previous.factors, rank)))
    elif previous is not None and (larger := padded(previous.factors, form.factor_shapes(layer, rank))) is not None:
        found.append(_measured(form, view, rank, larger))
    origin = found[-1] if form.additive else start
    if previous is None and steps >= LEAST_STEPS and _searchable(form, view, start):
        origin = _searched(form, layer, view, rank, start)
        found.append(origin)
    better = _refined(form, layer, view.problem, origin.factors, steps)
    found.append(_measured(form, view, rank, better, origin.start))
    best = min(found, key=_error)
    return _bounded(form, layer, view, best, previous.error if previous else 1.0, steps)


def _bounded(form: Decomposition, layer: LayerSpec, view: Whitened, best: Fit, ceiling: float, steps: int) -> Fit:
    """For a form whose terms are kept small a fit with smaller terms, its error not beyond the ceiling."""
    split = elimination_of(form)
    if not form.norm_bounded or view.problem.left is not None or split is None:
        return best
    limit = min(most(best.error), max(best.error, ceiling))
    bounded = norm_bounded(form, split, view.problem, form.sizes(layer), best.factors, limit, steps)
    return _measured(form, view, best.rank, bounded, best.start)


def _beginning(form: Decomposition, layer: LayerSpec, view: Whitened, ranks: Sequence[Rank]) -> Begin:
    """Rank -> the plain start; where starts are parts of each other all of them come from one decomposition."""
    target, letters = view.target.float(), form.rank_letters(layer)
    if not form.start_is_optimal or len(letters) != 1:
        return lambda rank: [factor.double() for factor in form.start(target, rank)]
    widest = form.start(target, max(ranks))

    def part(factor: Tensor, names: str, size: int) -> Tensor:
        return (factor.narrow(names.index(letters) + 1, 0, size) if letters in names else factor).double()

    return lambda rank: [part(f, names, *rank) for f, names in zip(widest, form.letters, strict=True)]


def _compared_one(
    form: Decomposition, layer: LayerSpec, view: Whitened, rank: Rank, previous: Fit | None, steps: int, *, begin: Begin
) -> Fit:
    """One descent, from the plain start or grown from the smaller rank, that ends where little is gained."""
    if previous is not None and form.additive:
        factors = grow(form, layer, view, previous.factors, rank, single=True)
    else:
        factors = begin(rank)
    start = _no_worse_than_zero(form, view, Fit(rank, tuple(factors), error_of(form, view.problem, factors)))
    found = start
    plain = view.problem.matrix is None and view.problem.left is None
    if start.error >= EXACT and (not plain or (steps and not form.start_is_optimal)):
        factors, error = _briefly(form, layer, view, start, steps)
        found = min(start, Fit(rank, tuple(factors), error), key=_error)
    if previous is None or found.error <= previous.error:
        return found
    larger = padded(previous.factors, form.factor_shapes(layer, rank))
    return found if larger is None else Fit(rank, tuple(larger), previous.error)


def _briefly(
    form: Decomposition, layer: LayerSpec, view: Whitened, start: Fit, steps: int
) -> tuple[list[Tensor], float]:
    split = elimination_of(form)
    if split is None or view.problem.left is not None:
        factors = Descent(form, view.problem).refine(start.factors, steps, BRIEF)
        return factors, error_of(form, view.problem, factors)
    return compared(form, split, view.problem, form.sizes(layer), start.factors, error=start.error, steps=steps)


def _searchable(form: Decomposition, view: Whitened, start: Fit) -> bool:
    """Trains and rings are searched where the plain norm is the one that counts: their optima in another norm lie
    elsewhere (on ResNet-20 a searched ring ends 7 % higher in the norm of the inputs)."""
    if not form.many_optima or form.term_letter:
        return form.many_optima
    return view.problem.matrix is None and affordable(form.letters, form.view, start.factors)


def _searched(form: Decomposition, layer: LayerSpec, view: Whitened, rank: Rank, start: Fit) -> Fit:
    """A start chosen among several in the plain norm: by variable projection for sums of rank-one terms; elsewhere by
    alternating least squares, which is blind to how the factors of a train or ring are scaled and rotated."""
    plain = Problem(view.problem.weight, None)

    def refine(factors: Sequence[Tensor], steps: int) -> list[Tensor]:
        if form.canonical:
            return in_plain_norm(form, form.sizes(layer), plain, factors, steps)
        if form.term_letter:
            return _refined(form, layer, plain, factors, steps)
        return alternating(form.letters, form.view, view.target, factors, steps)

    name, factors = best_start(form, layer, view, rank, start.factors, refine)
    return _measured(form, view, rank, factors, name)


def _refined(
    form: Decomposition, layer: LayerSpec, problem: Problem, factors: Sequence[Tensor], steps: int
) -> list[Tensor]:
    split = elimination_of(form)
    if split is None or problem.left is not None:
        return Descent(form, problem).refine(factors, steps)
    return refined(form, split, problem, form.sizes(layer), factors, steps)


def _measured(form: Decomposition, view: Whitened, rank: Rank, factors: Sequence[Tensor], start: str = PLAIN) -> Fit:
    error = view.problem.relative(form.contracted(factors).reshape(view.problem.weight.shape))
    return Fit(rank, tuple(factors), error, start)


def _error(found: Fit) -> float:
    """The error as a key: one that is no number is the worst."""
    return found.error if isfinite(found.error) else inf


def _no_worse_than_zero(form: Decomposition, view: Whitened, found: Fit) -> Fit:
    """A start that errs more than zeros would, as one from the plain norm may, at the multiple of it that errs least.

    For W^ that is <W, W^> / <W^, W^> in the norm, which leaves 1 - <W, W^>^2 / (<W, W> <W^, W^>) of the error.
    """
    if found.error <= 1:
        return found
    approximation = form.contracted(found.factors).reshape(view.problem.weight.shape)
    weighted = view.problem.weighted(approximation)
    along, length = float((weighted * view.problem.weight).sum()), float((weighted * approximation).sum())
    share = along / length if isfinite(along) and isfinite(length) and length > 0 else nan
    if isfinite(share):
        scaled = _measured(form, view, found.rank, _scaled(found.factors, share), found.start)
        if scaled.error <= 1:
            return scaled
    zeros = tuple(torch.zeros_like(factor) for factor in found.factors)
    return Fit(found.rank, zeros, 1.0 if view.problem.energy > 0 else 0.0, found.start)


def _scaled(factors: Sequence[Tensor], scale: float) -> tuple[Tensor, ...]:
    """A multiple of the weight that factors stand for."""
    return tuple(factors) if scale == 1 else (factors[0] * scale, *factors[1:])


def _applied(form: Decomposition, changes: Mapping[str, Tensor], factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Whitening of each mode, or what undoes it, in the factor that carries the mode."""
    result = list(factors)
    for letter, undo in changes.items():
        at = next(at for at, letters in enumerate(form.letters) if letter in letters)
        result[at] = along(result[at], undo, form.letters[at].index(letter) + 1)
    return tuple(result)
