"""Writes docs/forms.md and the pictures in docs/forms/ from the registry of forms: `make docs`."""

from pathlib import Path

from polyad.decompositions.base import FORMS
from polyad.describe import FormPage, picture

HERE = Path(__file__).parent

INTRODUCTION = """\
# Forms

Written by `docs/make_forms.py` from the forms themselves (`make docs`); `polyad forms NAME` prints one in the terminal.

{table}

● on the menu where `--forms` is not given; `--forms all` takes every form, `--forms cp,block_term/4` names some.

## How to read this page

The equation is the definition of a form: an einsum of small factors whose result is the weight. `o` are output
channels, `i` input channels, `h` and `w` the kernel axes, `k` all kernel axes as one, `n` input channels and kernel as
one; other letters of the weight are parts into which a form splits the channels. A letter that only the factors have is
a rank, or has a size that belongs to the form. `G` is written by forms of stacks: which weight of the stack it is, or
which group of the layer; factors without it are shared by all.

In a picture each circle is a factor, named by its letters. A line between two circles is a letter that is summed over:
a rank, or one of the form's own. An open line is an axis of the weight. A dot is a letter that three or more factors
share, or that two share and the weight keeps: the factors are multiplied entry by entry along it.

A *variant* is written behind the name and a slash, as in `--forms tt/hiwo` or `--set conv1=block_term/4:8x8`.

Costs are for one group; forms of stacks count the parameters of all weights together, and the MACs of one. Parameters
leave the bias out; a dense layer has `o i k` of them, and as many MACs for each position of its output. MACs are for
one position of the output at stride 1, with the factors in the order in which they are executed. What a form *carries*
and *refuses* is its answer for one layer of each kind. A stack is carried by every form that carries one of its layers;
only the forms of stacks let them share factors.
"""

SECTION = """\
## {page.name}

{page.summary}.

![{page.equation}](forms/{page.name}.svg)

- **equation** `{page.equation}`
- **letters** {page.letters_text}
- **factors** {factors}
- **on the menu** {page.menu_text}
- **variants** {page.variants_text}
- **parameters** `{page.params}`
- **MACs** {macs}
- **carries** {page.carries_text}
- **refuses** {page.refuses_text}
- **good for** {page.good_for}
- **source** {page.source}
"""


def written() -> dict[str, str]:
    """Every file of the pages, by its path in docs/, and its text."""
    pages = [FormPage.of(FORMS[name]) for name in FORMS]
    files = {f"forms/{page.name}.svg": _picture(page) for page in pages}
    sections = [_section(page) for page in pages]
    return files | {"forms.md": "\n".join([INTRODUCTION.format(table=_table(pages)), *sections])}


def stale(folder: Path = HERE) -> list[Path]:
    """Pictures of forms that are no more."""
    known = {f"{name}.svg" for name in FORMS}
    return sorted(path for path in folder.glob("forms/*") if path.name not in known)


def main() -> None:
    for path in stale():
        path.unlink()
    (HERE / "forms").mkdir(exist_ok=True)
    for name, text in written().items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")


def _picture(page: FormPage) -> str:
    """Parts of the channels are called as the whole there: several lines with the word `in` are the input channels."""
    return picture(page.equation, {letter: word.removeprefix("part of ") for letter, word in page.letters.items()})


def _table(pages: list[FormPage]) -> str:
    rows = ["| form | menu | equation | parameters | in short |", "|---|---|---|---|---|"]
    rows += [
        f"| [{page.name}](#{page.name}) | {'●' if page.default else ''} | `{page.equation}` | `{page.params}` |"
        f" {page.summary} |"
        for page in pages
    ]
    return "\n".join(rows)


def _section(page: FormPage) -> str:
    return SECTION.format(
        page=page,
        factors=", ".join(f"`{letters}` ({shape})" for letters, shape in page.factors.items()),
        macs=_as_code(page.macs_text, page.macs),
    )


def _as_code(text: str, formulas: list[str]) -> str:
    for formula in formulas:
        text = text.replace(formula, f"`{formula}`")
    return text


if __name__ == "__main__":
    main()
