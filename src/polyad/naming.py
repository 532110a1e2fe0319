"""Dotted names: put a module or parameter under one, match one with a pattern, see whether one lies inside another."""

import re
from fnmatch import fnmatchcase

from torch import nn

from polyad.errors import PlanError


def put(model: nn.Module, name: str, value: nn.Module | nn.Parameter) -> None:
    """`model.<name> = value`; the order of the sub-modules stays."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, value)


def with_module(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """The model with the module under a name, changed in place; under the empty name the module itself."""
    if not name:
        return module
    put(model, name, module)
    return model


def inside(name: str, scope: str) -> bool:
    """Whether a name is `scope` or lies below it; the empty scope is the whole network."""
    return not scope or name == scope or name.startswith(f"{scope}.")


def matches(pattern: str, name: str, option: str) -> bool:
    """Whether a name is what a pattern says: a name, a wildcard such as `layer1.*`, or `re:` and a regular expression.

    Raises:
        PlanError: what follows `re:` is no regular expression; the option is named.
    """
    if not pattern.startswith("re:"):
        return fnmatchcase(name, pattern)
    try:
        return re.fullmatch(pattern[3:], name) is not None
    except re.error as error:
        raise PlanError(f"{option} {pattern!r} is no regular expression: {error}.") from None
