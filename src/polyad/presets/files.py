"""A preset is a file of a few lines: what a paper does, as settings of Polyad, and what is different here."""

from importlib.resources import files
from typing import Any

import yaml

from polyad.records import Record
from polyad.registry import Registry
from polyad.settings import Options


class Preset(Record):
    """One method.

    Attributes:
        name: as on the command line.
        title, summary: what it is, in a few words and in one line.
        source: the paper.
        settings: fields of `Settings`, as in a recipe.
        differs: what is not as in the paper.
    """

    name: str
    title: str
    summary: str
    source: str
    settings: dict[str, Any]
    differs: tuple[str, ...]


PRESETS: Registry[Preset] = Registry("preset", "polyad.presets")

for _file in sorted(files("polyad.presets").iterdir(), key=lambda file: file.name):
    if _file.name.endswith(".yaml"):
        _name = _file.name.removesuffix(".yaml")
        PRESETS.register(_name, Preset(name=_name, **yaml.safe_load(_file.read_text(encoding="utf-8"))))


def preset(name: str) -> Options:
    """The settings of a preset, for `plan` and `compress`: `compress(model, data, budget=..., **preset("alds2021"))`.

    Raises:
        UnknownNameError: no such preset.
    """
    return Options(**PRESETS[name].settings)  # type: ignore[typeddict-item]
