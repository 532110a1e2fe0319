"""Dotted names: put a module or parameter under one, match one with a pattern."""

import re
from fnmatch import fnmatchcase

from torch import nn

from polyad.errors import PlanError


def put(model: nn.Module, name: str, value: nn.Module | nn.Parameter) -> None:
    """`model.<name> = value`; the order of the sub-modules stays."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, value)


def matches(pattern: str, name: str, option: str) -> bool:
    """Whether a name, a wildcard such as `layer1.*` or a regular expression behind `re:` means this name.

    Raises:
        PlanError: no regular expression; the option is named.
    """
    if not pattern.startswith("re:"):
        return fnmatchcase(name, pattern)
    try:
        return re.fullmatch(pattern[3:], name) is not None
    except re.error as error:
        raise PlanError(f"{option} {pattern!r} is no regular expression: {error}.") from None
