"""Multilinear least squares in a norm: `fit(form, layer, problem, rank)`."""

from polyad.solvers.bounded import has_large_terms, settled, term_norms
from polyad.solvers.comparison import compare, goes_abreast
from polyad.solvers.fit import fit, fit_path
from polyad.solvers.found import Fit
from polyad.solvers.problem import Problem, problems
from polyad.solvers.remembered import fit_once, identity
from polyad.solvers.screen import best_variant, ranks_within

__all__ = [
    "Fit",
    "Problem",
    "goes_abreast",
    "has_large_terms",
    "best_variant",
    "compare",
    "fit",
    "fit_once",
    "fit_path",
    "identity",
    "problems",
    "ranks_within",
    "settled",
    "term_norms",
]
