"""Polyad: compress trained PyTorch networks with tensor decompositions, under a budget, with the evidence.

The public names, in pipeline order. They are loaded when first used, so that `polyad --help` need not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyad.batches import Batch as Batch
    from polyad.budget import Budget as Budget
    from polyad.checkpoint import load_network as load
    from polyad.checkpoint import read_plan as read_plan
    from polyad.checkpoint import write_plan as write_plan
    from polyad.data import open_data as open_data
    from polyad.errors import PolyadError as PolyadError
    from polyad.evaluation import evaluate as evaluate
    from polyad.exporters.export import export as export
    from polyad.models import open_model as open_model
    from polyad.pipeline import Result as Result
    from polyad.pipeline import compress as compress
    from polyad.pipeline import plan as plan
    from polyad.plugins import load_forms as load_forms
    from polyad.presets import preset as preset
    from polyad.records import Plan as Plan
    from polyad.recovering import open_result as open_result
    from polyad.recovering import recover as recover
    from polyad.saving import save as save
    from polyad.settings import Settings as Settings
    from polyad.settings import Training as Training
    from polyad.training.settling import settle as settle
    from polyad.training.soap import Soap as Soap

_HOME = {
    "open_model": "models:open_model",
    "open_data": "data:open_data",
    "Batch": "batches:Batch",
    "Budget": "budget:Budget",
    "Settings": "settings:Settings",
    "Training": "settings:Training",
    "load_forms": "plugins:load_forms",
    "preset": "presets:preset",
    "plan": "pipeline:plan",
    "Plan": "records:Plan",
    "read_plan": "checkpoint:read_plan",
    "write_plan": "checkpoint:write_plan",
    "compress": "pipeline:compress",
    "Result": "pipeline:Result",
    "recover": "recovering:recover",
    "open_result": "recovering:open_result",
    "settle": "training.settling:settle",
    "Soap": "training.soap:Soap",
    "evaluate": "evaluation:evaluate",
    "save": "saving:save",
    "load": "checkpoint:load_network",
    "export": "exporters.export:export",
    "PolyadError": "errors:PolyadError",
}

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyad' has no attribute {name!r}")
    module, attribute = _HOME[name].split(":")
    return getattr(import_module(f"polyad.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
