"""The networks of timm, with their pretrained weights from the Hugging Face hub."""

from typing import Any

from torch import nn

from polyad.hubs.base import HUBS, Hub, Inputs, fetching, image_inputs, library, refusing, unknown


def build(name: str) -> nn.Module:
    """The architecture with random weights."""
    with refusing(f"timm cannot build {name}"):
        return _timm(name).create_model(name, pretrained=False)


def pretrained(name: str) -> tuple[nn.Module, str]:
    """The network with the weights of its tag ("resnet18.a1_in1k"), or timm's default ones."""
    timm = _timm(name)
    with fetching(f"timm:{name}"):
        module = timm.create_model(name, pretrained=True)
        return module, str(module.pretrained_cfg.get("tag") or "pretrained")


def inputs(name: str, module: nn.Module) -> Inputs:
    """As the network's own configuration says."""
    with refusing(f"timm does not know the inputs of {name}"):
        found = library("timm.data", "vision").resolve_model_data_config(module)
        channels, *size = found["input_size"]
        return image_inputs(channels, size, found["mean"], found["std"])


def _timm(name: str) -> Any:
    timm = library("timm", "vision")
    if ":" not in name and not timm.is_model(name.partition(".")[0]):  # "hf-hub:..." is looked up there
        raise unknown("timm", name, timm.list_models())
    return timm


HUBS.register("timm", Hub(name="timm", example="timm:resnet18", build=build, inputs=inputs, pretrained=pretrained))
