"""Multilinear least squares in a norm: `fit(form, problem, rank)`."""

from polyad.solvers.fit import Fit, fit, fit_path
from polyad.solvers.problem import Problem, problems

__all__ = ["Fit", "Problem", "fit", "fit_path", "problems"]
