"""The networks of torchvision, with its default pretrained weights."""

from inspect import signature
from typing import Any

from torch import nn

from polyad.hubs.base import HUBS, Hub, Inputs, fetching, image_inputs, library, refusing, unknown

AS_PRETRAINED: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}
"""Where torchvision builds another architecture without weights than with them: the options of the latter."""


def build(name: str) -> nn.Module:
    """The architecture that the pretrained weights belong to, with random weights."""
    models = _models(name)
    known = signature(models.get_model_builder(name)).parameters
    options = dict(AS_PRETRAINED.get(name, {}))
    if "aux_loss" in known:
        options["aux_loss"] = True
    if "weights_backbone" in known:
        options["weights_backbone"] = None  # by default torchvision downloads them
    with refusing(f"torchvision cannot build {name}"):
        return models.get_model(name, weights=None, **options)


def pretrained(name: str) -> tuple[nn.Module, str]:
    """The network with torchvision's default weights."""
    models = _models(name)
    with fetching(f"torchvision:{name}"):
        weights = models.get_model_weights(name).DEFAULT
        return models.get_model(name, weights=weights), str(weights)


def inputs(name: str, module: nn.Module) -> Inputs:
    """The transforms that belong to the default weights of an image classifier."""
    with refusing(f"torchvision does not know the inputs of {name}"):
        transforms = _models(name).get_model_weights(name).DEFAULT.transforms()
        if type(transforms).__name__ != "ImageClassification":
            return Inputs()
        side = transforms.crop_size[0]
        return image_inputs(3, (side, side), transforms.mean, transforms.std)


def _models(name: str) -> Any:
    models = library("torchvision.models", "vision")
    if name not in models.list_models():
        raise unknown("torchvision", name, models.list_models())
    return models


HUBS.register(
    "torchvision",
    Hub(name="torchvision", example="torchvision:resnet18", build=build, inputs=inputs, pretrained=pretrained),
)
