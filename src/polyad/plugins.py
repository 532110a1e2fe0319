"""Forms of a person's own: a Python file that registers them is run, and they are forms like any other."""

from pathlib import Path

from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import FormError
from polyad.python_file import run_file
from polyad.records import DENSE
from polyad.registry import ALL

TEXTS = ("name", "equation", "summary", "good_for", "source")

_loaded: dict[Path, list[str]] = {}


def load_forms(path: str | Path) -> list[str]:
    """Run a file and take the forms that it registers; loaded again, as after an edit, they take the place of the old.

    Args:
        path: a Python file that ends with `FORMS.register(MyForm.name, MyForm())`, as docs/own_form.py does.

    Returns:
        Names of its forms, as in `forms=("my_form",)` and `--forms my_form`.

    Raises:
        FormError: the file is not there, raises something, or registers no form or an incomplete one.
    """
    forget_forms(path)
    before = set(FORMS)
    try:
        run_file(str(path), FormError)
        new = [name for name in FORMS if name not in before]
        if not new:
            raise FormError(f"{path} registers no form: end it with FORMS.register(MyForm.name, MyForm()).")
        for name in new:
            _check_name(path, name)
            _check(path, name, FORMS[name])
    except FormError:
        for name in set(FORMS) - before:
            FORMS.remove(name)
        raise
    _loaded[Path(path).resolve()] = new
    return new


def forget_forms(path: str | Path) -> None:
    """Take the forms of a file out again."""
    for name in _loaded.pop(Path(path).resolve(), []):
        FORMS.remove(name)


def _check_name(path: str | Path, name: str) -> None:
    """Raise FormError for a name that the command line could not tell from other things."""
    if not name.isidentifier() or name in (ALL, DENSE):
        raise FormError(
            f"{path} registers the form {name!r}: take a name of letters, digits and underscores, other than {ALL!r}"
            f" and {DENSE!r}."
        )


def _check(path: str | Path, name: str, form: object) -> None:
    """Raise FormError for a form that could not be listed, named or executed."""
    if not isinstance(form, Decomposition):
        raise FormError(f"{path} registers {name!r}, which is a {type(form).__name__}, not an instance of a form.")
    missing = [text for text in TEXTS if not isinstance(getattr(form, text, None), str) or not getattr(form, text)]
    if missing:
        raise FormError(f"The form {name!r} of {path} says nothing about its {' and '.join(missing)}: add a text.")
    if form.name != name:
        raise FormError(f"{path} registers the form {form.name!r} as {name!r}: both names have to be the same.")
    left, arrow, view = form.equation.partition("->")
    if not arrow or not set(view) <= set(left) or not set(form.outputs) <= set(view):
        raise FormError(
            f"The equation {form.equation!r} of {path} is not understood: write factors -> weight, as in or,rn->on,"
            f" with the outputs ({form.outputs}) on the right."
        )
