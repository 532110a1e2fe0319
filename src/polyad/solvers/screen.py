"""Which ranks of a form to try, and which of its arrangements (orders of modes, numbers of groups) suits a layer."""

from collections.abc import Sequence

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.records import Rank
from polyad.solvers.fit import fit
from polyad.solvers.problem import Problem

SHARE = 0.25
"""Share of the dense parameters at which arrangements are compared."""

FEW_STEPS = 15
"""L-BFGS iterations before forms with many optima are compared, whose plain starts say little about their fits."""


def best_variant(form: Decomposition, layer: LayerSpec, problem: Problem) -> Decomposition | None:
    """The arrangement whose start errs least at a quarter of the parameters, or None where all refuse the layer."""
    variants = form.variants(layer)
    if len(variants) < 2:
        return variants[0] if variants else None
    return min(variants, key=lambda variant: _error(variant, layer, problem))


def ranks_within(form: Decomposition, layer: LayerSpec, problem: Problem, shares: Sequence[float]) -> list[Rank]:
    """`form.ranks`; a form with a single rank has nothing to weigh, so nothing is whitened for it."""
    if len(form.rank_letters(layer)) == 1:
        return form.ranks(layer, problem.weight.reshape(-1, *form.sizes(layer).values()), shares)
    return form.ranks(layer, problem.moderate[0].whitened(form, layer).target, shares)


def _error(form: Decomposition, layer: LayerSpec, problem: Problem) -> float:
    ranks = ranks_within(form, layer, problem, [SHARE])
    if not ranks:
        return float("inf")
    return fit(form, layer, problem, ranks[-1], steps=FEW_STEPS if form.many_optima else 0, brief=True).error
