"""A form as people read it: its page, its costs as formulas, its tensor network as a picture."""

from polyad.describe.formula import macs_formulas, params_formula
from polyad.describe.letters import form_words
from polyad.describe.page import FormPage
from polyad.describe.picture import picture

__all__ = ["FormPage", "form_words", "macs_formulas", "params_formula", "picture"]
