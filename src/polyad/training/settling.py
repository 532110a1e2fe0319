"""Terms of factors made small before a training: the error-preserving correction of Phan et al. (ECCV 2020).

A thorough fit may end in terms dozens of times as large as the weight that they add up to (ResNet-20 at 15 % of its
parameters: ten to forty times). They cancel each other only as long as nothing moves them; at rates that other networks
learn with a training destroys what the fit has found, and at lower ones it hardly moves. A fit of nearly the same
outputs with small terms is a far better place to start from (docs/recovery.md has the figures).
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from polyad.batches import as_batches
from polyad.decompositions.base import FORMS
from polyad.metrics.moments import input_norm
from polyad.observe import observe
from polyad.place import State, place_of
from polyad.records import Choice, Statistics
from polyad.solvers import Problem, has_large_terms, settled

PRICE = 0.01
"""Of the squared norms of the terms, relative to the error that the layer has already."""

STEPS = 100
"""L-BFGS iterations for each layer."""


def settle(student: nn.Module, teacher: nn.Module, choices: Sequence[Choice], data: Any) -> None:
    """Every sum of rank-one terms fitted to the weight that it is, on what it sees, with smaller terms.

    Args:
        student: changed in place; what it gives changes a little too.
        teacher: the original, which says how large the error of a layer is.
        choices: what was replaced, as a plan has it.
        data: what `as_batches` takes; what each layer sees of it counts.

    Raises:
        DataError: no samples, or some that the network refuses.
    """
    able = [choice for choice in choices if _able(choice)]
    if not able:
        return
    seen = observe(student, [choice.site for choice in able], as_batches(data))
    for choice in able:
        _settle(choice, student, teacher, seen[choice.site.name])


def _able(choice: Choice) -> bool:
    if choice.dense or choice.site.members or choice.site.layer.kind == "embedding":
        return False
    return has_large_terms(FORMS[choice.form])


def _settle(choice: Choice, student: nn.Module, teacher: nn.Module, seen: Statistics) -> None:
    place = place_of(choice, teacher, student)
    state = place.read()
    weight = place.weight(state)
    problem = Problem(weight, input_norm(choice.site, seen))
    price = PRICE * problem.relative(place.dense[0])
    found = settled(place.form, choice.site.layer, problem, state.factors, price, STEPS)
    shift = state.shift
    if choice.site.bias_may_move:
        moved = place.weight(State(found, shift)) - weight
        shift = shift - (moved @ seen.mean.unsqueeze(-1)).squeeze(-1)
    place.put(State(found, shift))
