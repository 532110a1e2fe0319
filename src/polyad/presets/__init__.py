"""Methods of the literature as settings: one YAML file each."""

from polyad.presets.files import PRESETS, Preset, preset

__all__ = ["PRESETS", "Preset", "preset"]
