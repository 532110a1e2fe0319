"""What the letters of an equation mean, in a word."""

from collections.abc import Mapping

from polyad.decompositions.base import Decomposition
from polyad.describe.probes import PROBES
from polyad.execution.network import BATCH, KERNEL

WORDS: Mapping[str, str] = {
    "o": "out",
    "i": "in",
    "h": "height",
    "w": "width",
    "k": "kernel",
    "n": "in × kernel",
    BATCH: "weight",
}


def letter_words(equation: str) -> dict[str, str]:
    """Words of the open letters that an equation alone tells.

    A view such as `oihw` names channels and kernel; one without o, i and n, such as `abcuvw`, has letters of its own.
    """
    view = equation.split("->")[1]
    return {letter: WORDS[letter] for letter in view if letter in WORDS} if set(view) & set("oin") else {}


def form_words(form: Decomposition) -> dict[str, str]:
    """Words of all open letters of a form."""
    inputs = "".join(letter for letter in form.view if letter not in form.outputs + KERNEL)
    found = {BATCH: WORDS[BATCH]} if any(form.shared) else {}
    for letter in form.view:
        if letter in KERNEL or letter == "n":
            found[letter] = WORDS[letter]
        else:
            letters, word = (form.outputs, "out") if letter in form.outputs else (inputs, "in")
            found[letter] = word if len(letters) == 1 else f"part of {word}"
    return found


def own_words(form: Decomposition) -> dict[str, str]:
    """Words of the letters whose sizes belong to the form, with these sizes: `g` -> `2 terms`."""
    layer = next((layer for layer in PROBES.values() if not form.refuses(layer)), None)
    sizes = {} if layer is None else form.sizes(layer) | dict(form.structure(layer))
    return {letter: f"{sizes[letter]} {word}" if sizes else word for letter, word in form.own.items()}


def rank_letters(form: Decomposition) -> str:
    """Letters of the ranks, in the order of a rank tuple."""
    known = set(form.view) | set(form.own)
    return "".join(letter for letter in dict.fromkeys("".join(form.letters)) if letter not in known)
