"""All that is said about one form, read from the form itself."""

from dataclasses import dataclass

from polyad.decompositions.base import Decomposition
from polyad.describe.formula import macs_formulas, params_formula
from polyad.describe.letters import form_words, own_words, rank_letters
from polyad.describe.probes import PROBES
from polyad.execution.network import BATCH


@dataclass(frozen=True)
class FormPage:
    """One form for people.

    Attributes:
        default: whether the menu offers it where no forms are named.
        factors: letters of each factor and its shape in words.
        letters: the open letters with their words.
        ranks: letters of the ranks, in the order of a rank tuple.
        own: letters whose sizes belong to the form, as in `{"g": "2 terms"}`.
        shared: whether it has factors that all weights of a stack, or all groups of a layer, share.
        variants: names of its arrangements that the menu compares, the plain one left out.
        on_request: examples of variants that only their names bring onto a menu, and what they are.
        params: number of parameters without the bias, in the letters.
        macs: multiply-accumulates for one output position at stride 1, where formulas hold; the smallest counts.
        carries: kinds of layers that the form carries.
        refuses: reasons of refusal, with the kinds of layers that each is given for.
    """

    name: str
    summary: str
    default: bool
    equation: str
    factors: dict[str, str]
    letters: dict[str, str]
    ranks: str
    own: dict[str, str]
    shared: bool
    variants: list[str]
    on_request: dict[str, str]
    params: str
    macs: list[str]
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
        variants = dict.fromkeys(one.name for layer in PROBES.values() for one in form.variants(layer))
        return cls(
            name=form.name,
            summary=form.summary,
            default=form.default,
            equation=form.equation,
            factors={factor: shape_text(factor, words) for factor in form.equation.split("->")[0].split(",")},
            letters=words,
            ranks=rank_letters(form),
            own=own_words(form),
            shared=any(form.shared),
            variants=[name for name in variants if name != form.name],
            on_request={} if "/" in form.name else dict(form.on_request),
            params=params_formula(form.equation),
            macs=macs_formulas(form),
            carries=[kind for kind, layer in PROBES.items() if not form.refuses(layer)],
            refuses=refuses,
            good_for=form.good_for,
            source=form.source,
        )

    @property
    def menu_text(self) -> str:
        """Whether a menu has it without being asked."""
        if "/" in self.name:
            return f"alone where it is asked for (--forms {self.name})"
        return "by default" if self.default else f"where it is asked for (--forms {self.name}, or --forms all)"

    @property
    def letters_text(self) -> str:
        """`p, q: ranks; g: 2 terms (a size of the form, no rank)`."""
        found = [f"{', '.join(self.ranks)}: rank{'s' if len(self.ranks) > 1 else ''}"]
        for part in ("part of out", "part of in"):
            letters = [letter for letter, word in self.letters.items() if word == part]
            found += [f"{', '.join(letters)}: parts of {part.removeprefix('part of ')}"] if letters else []
        found += [f"{letter}: {word} (a size of the form, no rank)" for letter, word in self.own.items()]
        if self.shared:
            found.append(f"{BATCH}: which weight of the stack, or group of the layer; factors without it are shared")
        return "; ".join(found)

    @property
    def variants_text(self) -> str:
        """What else its name can be followed by."""
        found = []
        if self.variants:
            found.append(f"{', '.join(self.variants)} (the menu compares them and takes the best for each layer)")
        found += [f"{name} ({what}; only where it is asked for)" for name, what in self.on_request.items()]
        return "; ".join(found) or "none"

    @property
    def macs_text(self) -> str:
        """The formula, or what to ask instead."""
        if not self.carries:
            return "`polyad plan` counts them for the layers that it is made for"
        if not self.macs:
            return "the cheapest order of the factors depends on their sizes; `polyad plan` counts them for each layer"
        if self.macs == [self.params]:
            return "as many as parameters"
        return " or ".join(self.macs) + (", whichever is fewer" if len(self.macs) > 1 else "")

    @property
    def carries_text(self) -> str:
        return ", ".join(self.carries) or "none of the kinds of layers below; it is made for layers of certain sizes"

    @property
    def refuses_text(self) -> str:
        """`linear (its weight is a matrix); depthwise (...)`."""
        if not self.refuses:
            return "none of the kinds of layers above"
        return "; ".join(f"{', '.join(kinds)} ({reason})" for reason, kinds in self.refuses.items())


def shape_text(factor: str, words: dict[str, str]) -> str:
    """`op` -> `out × p`; a part of the channels keeps its letter."""
    named = {letter: word for letter, word in words.items() if not word.startswith("part of")}
    return " × ".join(named.get(letter, letter) for letter in factor)
