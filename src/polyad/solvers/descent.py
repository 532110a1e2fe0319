"""L-BFGS over a list of factors, and the plain descent over all factors for forms with no factor to eliminate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.solvers.problem import Problem

MEMORY, ROOM = 20, 1 << 28
"""Pairs that L-BFGS keeps at most, and their bytes; of a wide layer they take more memory than all else, so there is
room for no more of them than iterations can use."""


@dataclass(frozen=True)
class Patience:
    """A descent ends when it has not gained the share `gain` of its value over `window` iterations: a single short step
    in a swamp is no sign of the end."""

    window: int
    gain: float


THOROUGH, BRIEF = Patience(10, 1e-4), Patience(3, 0.03)
"""For factors that are kept, and for those that are only compared."""

Objective = Callable[[Sequence[Tensor]], tuple[float, list[Tensor]]]


def minimise(
    objective: Objective, factors: Sequence[Tensor], steps: int, patience: Patience = THOROUGH
) -> list[Tensor]:
    """Factors after at most `steps` iterations from these.

    Args:
        objective: factors -> value and gradients.
        factors: float64.
        steps: L-BFGS iterations (Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 1995).
        patience: with little progress.
    """
    shapes = [factor.shape for factor in factors]
    counts = [factor.numel() for factor in factors]

    def unpack(flat: np.ndarray) -> list[Tensor]:
        parts = torch.from_numpy(flat).split(counts)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradients = objective(unpack(flat))
        return value, torch.cat([gradient.flatten() for gradient in gradients]).numpy()

    values: list[float] = []

    def stalled(intermediate_result: OptimizeResult) -> None:
        values.append(float(intermediate_result.fun))
        before = values[-1 - patience.window] if len(values) > patience.window else np.inf
        if before - values[-1] < patience.gain * abs(values[-1]):
            raise StopIteration

    # SciPy takes the tolerances relative to 1 where the value is smaller: errors of 1e-5 would end far from the optimum
    start = torch.cat([factor.flatten() for factor in factors]).numpy()
    pairs = max(1, min(steps - 1, pairs_kept(start.nbytes)))  # that of the last iteration serves none
    options = {"maxiter": steps, "maxfun": 2 * steps + 20, "maxcor": pairs, "ftol": 0.0, "gtol": 0.0}
    found = minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options, callback=stalled)
    return unpack(found.x if np.isfinite(found.x).all() else start)


def pairs_kept(size: int) -> int:
    """How many pairs to keep where one vector takes so many bytes."""
    return max(1, min(MEMORY, ROOM // (2 * size)))


class Descent:
    """The relative error as a function of all factors: for forms whose outputs stand in several of them, and for groups
    that share the output factor while each has a norm of its own over the outputs.

    Args:
        problem: weight (groups, out, n) and norm, in whitened coordinates.
    """

    def __init__(self, form: Decomposition, problem: Problem) -> None:
        self.form, self.problem = form, problem
        self.scale = max(problem.energy, torch.finfo(torch.float64).tiny)

    def refine(self, factors: Sequence[Tensor], steps: int, patience: Patience = THOROUGH) -> list[Tensor]:
        """All factors, after at most `steps` iterations of L-BFGS from these."""
        return minimise(self.value_and_gradients, factors, steps, patience)

    def value_and_gradients(self, factors: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        leaves = [factor.detach().requires_grad_() for factor in factors]
        found = self.form.contracted(leaves)
        with torch.no_grad():
            difference = found.reshape(self.problem.weight.shape) - self.problem.weight
            weighted = self.problem.weighted(difference)
            value = float((weighted * difference).sum()) / self.scale
        found.backward((2 / self.scale * weighted).reshape(found.shape))
        return value, [leaf.grad for leaf in leaves]  # type: ignore[misc]
