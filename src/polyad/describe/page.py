"""All that is said about one form, read from the form itself."""

from dataclasses import dataclass

from polyad.decompositions.base import Decomposition
from polyad.describe.formula import macs_formula, params_formula
from polyad.describe.letters import form_words
from polyad.describe.probes import PROBES


@dataclass(frozen=True)
class FormPage:
    """One form for people.

    Attributes:
        factors: letters of each factor and its shape in words.
        letters: the open letters with their words, where they have one.
        params: number of parameters without the bias, in the letters.
        macs: multiply-accumulates for one output position at stride 1, where a formula is known.
        carries: kinds of layers that the form carries.
        refuses: reasons of refusal, with the kinds of layers that each is given for.
    """

    name: str
    summary: str
    equation: str
    factors: dict[str, str]
    letters: dict[str, str]
    params: str
    macs: str | None
    carries: list[str]
    refuses: dict[str, list[str]]
    good_for: str
    source: str

    @classmethod
    def of(cls, form: Decomposition) -> "FormPage":
        words = form_words(form)
        refuses: dict[str, list[str]] = {}
        for kind, layer in PROBES.items():
            if reason := form.refuses(layer):
                refuses.setdefault(reason, []).append(kind)
        return cls(
            name=form.name,
            summary=form.summary,
            equation=form.equation,
            factors={factor: shape_text(factor, words) for factor in form.inputs},
            letters=words,
            params=params_formula(form.equation),
            macs=macs_formula(form),
            carries=[kind for kind, layer in PROBES.items() if not form.refuses(layer)],
            refuses=refuses,
            good_for=form.good_for,
            source=form.source,
        )

    @property
    def macs_text(self) -> str:
        """The formula, or what to ask instead."""
        if self.macs is None:
            return "no formula in these letters; `polyad plan` counts them for each layer"
        return "as many as parameters" if self.macs == self.params else self.macs

    @property
    def refuses_text(self) -> str:
        """`linear: its weight is a matrix; depthwise: ...`."""
        if not self.refuses:
            return "none of the kinds of layers above"
        return "; ".join(f"{', '.join(kinds)} ({reason})" for reason, kinds in self.refuses.items())


def shape_text(factor: str, words: dict[str, str]) -> str:
    """`op` -> `out x p`; a part of the channels keeps its letter."""
    named = {letter: word for letter, word in words.items() if not word.startswith("part of")}
    return " x ".join(named.get(letter, letter).replace("×", "x") for letter in factor)
