"""Multilinear least squares in a norm: `fit(form, layer, problem, rank)`."""

from polyad.solvers.bounded import term_norms
from polyad.solvers.fit import Fit, fit, fit_path
from polyad.solvers.problem import Problem, problems
from polyad.solvers.remembered import fit_once, identity
from polyad.solvers.screen import best_variant, ranks_within

__all__ = [
    "Fit",
    "Problem",
    "best_variant",
    "fit",
    "fit_once",
    "fit_path",
    "identity",
    "problems",
    "ranks_within",
    "term_norms",
]
