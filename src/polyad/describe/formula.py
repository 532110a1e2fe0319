"""Costs as polynomials in the letters of an equation: `or,rn->on` has `o r + r n` parameters."""

from collections.abc import Mapping
from math import prod

from polyad.decompositions.base import Decomposition
from polyad.describe.probes import PROBES
from polyad.execution.build import in_a_row
from polyad.execution.contraction import ROWS, products
from polyad.execution.network import Network
from polyad.execution.order import steps
from polyad.layers import LayerSpec
from polyad.records import Rank

KINDS = ("3x3 convolution", "linear", "stack of 3x3 convolutions", "stack of linear")
"""The first of these that a form carries is what its MACs are counted on."""

CHANNELS = ((36, 64), (144, 100), (100, 144), (64, 16), (16, 64))
"""Inputs and outputs of it: the order in which factors are met may depend on the sizes."""

SHIFTS = (0, 3, 9)
"""Ranks grow by so much."""

MOST = 3
"""So many orders, and formulas, are shown at most."""


def params_formula(equation: str) -> str:
    """Number of parameters without the bias: one product for each factor."""
    return _text(equation.split("->")[0].split(","))


def value(formula: str, sizes: Mapping[str, int]) -> int:
    """A formula at given sizes of its letters."""
    return sum(prod(sizes[letter] for letter in term.split()) for term in formula.split(" + "))


def macs_formulas(form: Decomposition) -> list[str]:
    """Multiply-accumulates of one layer for one position of the output at stride 1, or nothing where no formula holds.

    The order in which the layer is executed gives the formula; where that depends on sizes and ranks there are several,
    and the smallest counts. They are shown only where they count what the form counts, at all sizes and ranks tried.
    """
    samples = _samples(form)
    found = [_formula(form, layer, rank) for layer, rank in samples]
    formulas = list(dict.fromkeys(formula for formula in found if formula is not None))
    if not 1 <= len(formulas) <= MOST:
        return []
    for layer, rank in samples:
        sizes = _sizes(form, layer, rank)
        if min(value(formula, sizes) for formula in formulas) != _per_position(form, layer, rank):
            return []
    return formulas


def _text(terms: list[str]) -> str:
    return " + ".join(" ".join(term) for term in terms)


def _sizes(form: Decomposition, layer: LayerSpec, rank: Rank) -> dict[str, int]:
    return form.letter_sizes(layer, rank) | form.network(layer, rank).size


def _samples(form: Decomposition) -> list[tuple[LayerSpec, Rank]]:
    """Layers that the form carries, at ranks that differ from each other."""
    kind = next((kind for kind in KINDS if not form.refuses(PROBES[kind])), None)
    if kind is None:
        return []
    sizes = [{"in_features": inputs, "out_features": outputs} for inputs, outputs in CHANNELS]
    layers = [PROBES[kind].model_copy(update=size) for size in sizes]
    return [
        (layer, tuple(min(top, 2 + shift + at) for at, top in enumerate(form.max_rank(layer))))
        for layer in layers
        if not form.refuses(layer)
        for shift in SHIFTS
    ]


def _per_position(form: Decomposition, layer: LayerSpec, rank: Rank) -> float:
    size = (8,) * layer.dims
    return form.macs(layer, rank, size) / prod(size)


def _formula(form: Decomposition, layer: LayerSpec, rank: Rank) -> str | None:
    """What one layer counts at one rank, as a formula."""
    network = form.network(layer, rank)
    if in_a_row(network, layer.member):
        found = steps(network, layer.member)
        terms = [step.spectators + form.letters[step.factor] for step in found]
    else:
        terms = _products(network)
        if any(ROWS not in term for term in terms):
            return None  # some factors meet before any row does
        terms = [term.replace(ROWS, "") for term in terms]
        terms = [term.replace("i", "n") for term in terms] if "n" in form.view else terms
    as_params = sorted(map(sorted, terms)) == sorted(map(sorted, form.letters))
    return _text(form.letters if as_params else terms)


def _products(network: Network) -> list[str]:
    return products((ROWS + network.inputs, *network.factors), ROWS + network.outputs, ((ROWS, 1), *network.sizes))
