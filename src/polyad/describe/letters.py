"""What the letters of an equation mean, in a word."""

from collections.abc import Mapping
from itertools import combinations_with_replacement
from math import prod

from polyad.decompositions.base import Decomposition
from polyad.describe.probes import PROBES
from polyad.layers import LayerSpec

WORDS: Mapping[str, str] = {
    "o": "out",
    "i": "in",
    "h": "height",
    "w": "width",
    "k": "kernel",
    "n": "in × kernel",
    "G": "weight",
}

_GROWN = {("out",): "part of out", ("in",): "part of in", ("kernel",): "kernel", ("in", "kernel"): "in × kernel"}


def letter_words(equation: str) -> dict[str, str]:
    """Words of the open letters that an equation alone tells.

    A view such as `oihw` names channels and kernel; one without o, i and n, such as `abcuvw`, has letters of its own.
    """
    view = equation.split("->")[1]
    return {letter: WORDS[letter] for letter in view if letter in WORDS} if set(view) & set("oin") else {}


def form_words(form: Decomposition) -> dict[str, str]:
    """Words of all open letters of a form: what the equation does not tell, the sizes of layers do."""
    found = letter_words(form.equation)
    layers = next(filter(None, (_grown(form, kind) for kind in ("linear", "3x3 convolution"))), None)
    if layers is None or set(found) == set(form.view):
        return found
    return _by_size(form, layers) | _by_place(form, layers) | found


def _grown(form: Decomposition, kind: str) -> dict[str, LayerSpec] | None:
    """A layer and the same with more outputs, more inputs, a larger kernel; None where the form refuses one of them."""
    layer = PROBES[kind]
    changes: dict[str, dict[str, object]] = {
        "": {},
        "out": {"out_features": layer.out_features**2},
        "in": {"in_features": layer.in_features**2},
    }
    if layer.kernel:
        changes["kernel"] = {"kernel": tuple(length**2 for length in layer.kernel)}
    layers = {axis: layer.model_copy(update=change) for axis, change in changes.items()}
    return None if any(form.refuses(one) for one in layers.values()) else layers


def _by_size(form: Decomposition, layers: dict[str, LayerSpec]) -> dict[str, str]:
    """A letter that grows with the outputs, the inputs or the kernel is a part of them."""
    sizes = {axis: form.sizes(layer) for axis, layer in layers.items()}
    grows = {letter: tuple(axis for axis in sizes if sizes[axis][letter] != sizes[""][letter]) for letter in form.view}
    return {letter: _GROWN[axes] for letter, axes in grows.items() if axes in _GROWN}


def _by_place(form: Decomposition, layers: dict[str, LayerSpec]) -> dict[str, str]:
    """Where the view lists the parts of the outputs, then those of the inputs, then the kernel: by their products."""
    for end, start in combinations_with_replacement(range(1, len(form.view) + 1), 2):
        parts = (form.view[:end], form.view[end:start], form.view[start:])
        if all(_products(form, layer, parts) == _axes(layer) for layer in layers.values()):
            words = ("part of out", "part of in", "kernel")
            return {letter: word for letters, word in zip(parts, words, strict=True) for letter in letters}
    return {}


def _products(form: Decomposition, layer: LayerSpec, parts: tuple[str, ...]) -> list[int]:
    size = form.sizes(layer)
    return [prod(size[letter] for letter in letters) for letters in parts]


def _axes(layer: LayerSpec) -> list[int]:
    _, out, inp, *kernel = layer.weight_shape
    return [out, inp, prod(kernel)]
