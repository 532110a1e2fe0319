"""Several starts for forms whose descents end in optima of different worth: the plain one and seeded random ones.

All are refined a little, the better half goes on, and so on, until one is left (successive halving: Jamieson and
Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016). This happens in the
plain norm of the whitened coordinates, where an evaluation is cheap also for a layer with many inputs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.layers import LayerSpec
from polyad.linalg import matrix_power
from polyad.records import Rank
from polyad.solvers.problem import Whitened

LEAST_STEPS = 100
"""A fit with fewer steps, as for the entries of a menu, has no search."""

ROUNDS = ((8, 40), (3, 80))
"""How many starts of a sum of rank-one terms take part in each round, and for how many L-BFGS iterations."""

NETWORK_ROUNDS = ((6, 40), (2, 80), (1, 150))
"""The same for trains and rings, in sweeps; the last alone goes on, since L-BFGS behind them is slower."""

PLAIN = "plain"
"""Name of the start of the plain algorithm; the others are "random 1", ..."""

Refine = Callable[[Sequence[Tensor], int], list[Tensor]]


def best_start(
    form: Decomposition, layer: LayerSpec, view: Whitened, rank: Rank, start: Sequence[Tensor], refine: Refine
) -> tuple[str, list[Tensor]]:
    """Name and factors of the start that promises most, a little refined.

    Args:
        start: of the plain algorithm.
        refine: factors and steps -> factors, in the plain norm of the whitened coordinates.
    """
    roots = {letter: _root(view.target, axis) for axis, letter in enumerate(form.view, 1)} if form.term_letter else {}
    rounds = ROUNDS if form.term_letter else NETWORK_ROUNDS
    tries = {PLAIN: list(start)}
    for seed in range(1, rounds[0][0]):
        tries[f"random {seed}"] = random_start(form, form.factor_shapes(layer, rank), roots, seed)

    def error(name: str) -> float:
        return float((form.contracted(tries[name]) - view.target).square().sum())

    for count, steps in rounds:
        kept = sorted(tries, key=error)[:count]
        tries = {name: refine(tries[name], steps) for name in kept}
    best = min(tries, key=error)
    return best, tries[best]


def random_start(
    form: Decomposition, shapes: Sequence[tuple[int, ...]], roots: dict[str, Tensor], seed: int
) -> list[Tensor]:
    """Factors whose slices are random mixtures of the weight's own slices: nothing where the weight has nothing.

    Args:
        shapes: (groups, ...) of the factors.
        roots: per letter of the view the square root (groups, size, size) of the second moment of the weight's slices;
            none where the refinement takes factors into the range of the weight anyway.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for letters, shape in zip(form.letters, shapes, strict=True):
        factor = torch.randn(shape, generator=generator, dtype=torch.float64)
        for axis, letter in enumerate(letters, 1):
            if letter in roots:
                root = roots[letter] if shape[0] > 1 else roots[letter].mean(0, keepdim=True)
                factor = torch.einsum("G...x,Gxy->G...y", factor.movedim(axis, -1), root).movedim(-1, axis)
        found.append(factor)
    return found


def _root(target: Tensor, axis: int) -> Tensor:
    unfolded = target.movedim(axis, 1).flatten(2)
    return matrix_power(unfolded @ unfolded.mT, 0.5)
