"""Which arrangement of a form (order of the modes, number of groups ...) suits a layer best."""

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.solvers.fit import fit
from polyad.solvers.problem import Problem

SHARE = 0.25
"""Share of the dense parameters at which arrangements are compared."""


def best_variant(form: Decomposition, layer: LayerSpec, problem: Problem) -> Decomposition | None:
    """The arrangement whose plain start errs least at a quarter of the parameters, or None where all refuse the layer.

    The error is taken relative to what each one spends: a bad arrangement with few ranks must not win by a coarse step.
    """
    variants = form.variants(layer)
    if len(variants) < 2:
        return variants[0] if variants else None
    return min(variants, key=lambda variant: _error(variant, layer, problem))


def _error(form: Decomposition, layer: LayerSpec, problem: Problem) -> float:
    ranks = form.ranks(layer, problem.whitened(form, layer).target, [SHARE])
    if not ranks:
        return float("inf")
    return fit(form, layer, problem, ranks[-1], steps=0).error
