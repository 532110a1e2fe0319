"""Fit the factors of a form to a weight in a norm: `fit` at one rank, `fit_path` along rising ranks."""

from collections.abc import Sequence

from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.plain.alternating import affordable, alternating
from polyad.records import Rank
from polyad.solvers.bounded import most, norm_bounded
from polyad.solvers.comparison import as_it_is, compare
from polyad.solvers.continuation import in_plain_norm, refined
from polyad.solvers.descent import Descent
from polyad.solvers.found import (
    EXACT,
    Fit,
    Frame,
    closed,
    components,
    elimination_of,
    error_key,
    measured,
    no_worse_than_zero,
)
from polyad.solvers.growth import grow, padded
from polyad.solvers.problem import Problem, Whitened
from polyad.solvers.search import LEAST_STEPS, best_start
from polyad.threads import on_threads

INIT = "init"
"""Name of a start that was given."""


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
    if brief:
        return compare(form, layer, [problem], ranks, as_it_is, steps=steps)[0]
    for rank in ranks:
        form.check(layer, rank)
    if closed(form, problem):
        return components(form, layer, problem, ranks)
    frame, fits, previous = Frame.of(form, layer, problem), [], None
    for rank in ranks:
        previous = _fit_one(form, layer, frame.view, rank, previous, steps)
        fits.append(frame.left(form, layer, previous))
    return fits


def _continued(
    form: Decomposition, layer: LayerSpec, problem: Problem, rank: Rank, init: Sequence[Tensor], steps: int
) -> Fit:
    """Refined from given factors; for a form that reorders in their order of the outputs."""
    form.check(layer, rank)
    if closed(form, problem):
        return components(form, layer, problem, [rank])[0]
    *factors, order = init if form.reorders else (*init, None)
    frame = Frame.of(form, layer, problem, order)
    view = frame.view
    here = measured(form, view, rank, frame.entered(form, factors), INIT)
    better = measured(form, view, rank, _refined(form, layer, view.problem, here.factors, steps), INIT)
    best = _bounded(form, layer, view, min(here, better, key=error_key), 1.0, steps)
    return frame.left(form, layer, min(here, best, key=error_key))


def _fit_one(
    form: Decomposition, layer: LayerSpec, view: Whitened, rank: Rank, previous: Fit | None, steps: int
) -> Fit:
    """The best of the plain start and its refinement; grown from the smaller rank where that is better."""
    start = no_worse_than_zero(form, view, measured(form, view, rank, form.start(view.target, rank)))
    plain = view.problem.matrix is None and view.problem.left is None
    if start.error < EXACT or (plain and form.start_is_optimal):
        return start
    found = [start]
    if previous is not None and form.additive:
        found.append(measured(form, view, rank, grow(form, layer, view, previous.factors, rank)))
    elif previous is not None and (larger := padded(previous.factors, form.factor_shapes(layer, rank))) is not None:
        found.append(measured(form, view, rank, larger))
    origin = found[-1] if form.additive else start
    if previous is None and steps >= LEAST_STEPS and _searchable(form, view, start):
        origin = _searched(form, layer, view, rank, start)
        found.append(origin)
    better = _refined(form, layer, view.problem, origin.factors, steps)
    found.append(measured(form, view, rank, better, origin.start))
    best = min(found, key=error_key)
    return _bounded(form, layer, view, best, previous.error if previous else 1.0, steps)


def _bounded(form: Decomposition, layer: LayerSpec, view: Whitened, best: Fit, ceiling: float, steps: int) -> Fit:
    """For a form whose terms are kept small a fit with smaller terms, its error not beyond the ceiling."""
    split = elimination_of(form)
    if not form.norm_bounded or view.problem.left is not None or split is None:
        return best
    limit = min(most(best.error), max(best.error, ceiling))
    bounded = norm_bounded(form, split, view.problem, form.sizes(layer), best.factors, limit, steps)
    return measured(form, view, best.rank, bounded, best.start)


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
    return measured(form, view, rank, factors, name)


def _refined(
    form: Decomposition, layer: LayerSpec, problem: Problem, factors: Sequence[Tensor], steps: int
) -> list[Tensor]:
    split = elimination_of(form)
    if split is None or problem.left is not None:
        return Descent(form, problem).refine(factors, steps)
    return refined(form, split, problem, form.sizes(layer), factors, steps)
