"""Costs as polynomials in the letters of an equation: `or,rn->on` has `o r + r n` parameters."""

from collections.abc import Iterator, Mapping
from itertools import islice, permutations
from math import prod

from polyad.decompositions.base import Decomposition
from polyad.describe.letters import form_words
from polyad.describe.probes import PROBES
from polyad.layers import LayerSpec
from polyad.records import Rank

ORDERS = 720
"""Orders of the factors that are tried at most."""


def params_formula(equation: str) -> str:
    """Number of parameters of one group without the bias: one product for each factor."""
    return _text(equation.split("->")[0].split(","))


def value(formula: str, sizes: Mapping[str, int]) -> int:
    """A formula at given sizes of its letters."""
    return sum(prod(sizes[letter] for letter in term.split()) for term in formula.split(" + "))


def macs_formula(form: Decomposition) -> str | None:
    """Multiply-accumulates for one position of the output at stride 1, or None where no such formula is known.

    The equation gives one formula for each order in which the factors may meet the input; the first that agrees with
    what the layers of the form count is the one that runs.
    """
    measured = [(_sizes(form, layer, rank), _per_position(form, layer, rank)) for layer, rank in _samples(form)]
    for formula in _macs_formulas(form):
        if measured and all(value(formula, sizes) == macs for sizes, macs in measured):
            return formula
    return None


def _text(terms: list[str]) -> str:
    return " + ".join(" ".join(term) for term in terms)


def _sizes(form: Decomposition, layer: LayerSpec, rank: Rank) -> dict[str, int]:
    return form.sizes(layer) | dict(zip(form.rank_letters, rank, strict=True))


def _samples(form: Decomposition) -> list[tuple[LayerSpec, Rank]]:
    """Layers that the form carries, at ranks that differ from each other."""
    found = []
    for kind in ("3x3 convolution", "linear"):
        if form.refuses(PROBES[kind]) is None:
            largest = form.max_rank(PROBES[kind])
            found += [
                (PROBES[kind], tuple(min(top, 2 + shift + at) for at, top in enumerate(largest))) for shift in (0, 3)
            ]
    return found


def _per_position(form: Decomposition, layer: LayerSpec, rank: Rank) -> float:
    size = (8,) * layer.dims
    return form.macs(layer, rank, size) / prod(size)


def _macs_formulas(form: Decomposition) -> Iterator[str]:
    yield params_formula(form.equation)
    words = form_words(form)
    inputs = "".join(letter for letter in form.view if words.get(letter) in ("in", "part of in"))
    for order in islice(permutations(form.inputs), ORDERS):
        yield _text(met_in_turn(inputs, order, form.view))


def met_in_turn(inputs: str, order: tuple[str, ...], view: str) -> list[str]:
    """Letters of every step when the input meets the factors one after the other.

    A letter of the output stays, any other is summed when the last factor that has it has been met.
    """
    held, terms = inputs, []
    outputs = [letter for letter in view if letter not in inputs]
    for at, factor in enumerate(order):
        held = "".join(dict.fromkeys(held + factor))
        terms.append(held)
        later = "".join(order[at + 1 :])
        held = "".join(letter for letter in held if letter in later or (letter in outputs and letter not in "hwk"))
    return terms
