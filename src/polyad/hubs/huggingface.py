"""The networks of transformers, from the Hugging Face hub or a local folder; never with remote code."""

from pathlib import Path
from typing import Any

from torch import nn

from polyad.errors import ModelError
from polyad.hubs.base import HUBS, Hub, Inputs, fetching, image_inputs, library, refusing


def build(name: str) -> nn.Module:
    """The architecture that the configuration describes, with random weights."""
    with refusing(f"transformers cannot build hf:{name}", " Check the connection or the path of the folder."):
        kind, config = _kind(name)
        return kind(config)


def pretrained(name: str) -> tuple[nn.Module, str]:
    """The network as it was saved."""
    with fetching(f"hf:{name}"):
        kind, config = _kind(name)
        return kind.from_pretrained(name, config=config), name


def inputs(name: str, module: nn.Module) -> Inputs:
    """What the image processor of the repository does; nothing for networks of other inputs."""
    if getattr(module, "main_input_name", None) != "pixel_values":
        return Inputs()
    try:
        found, _ = library("transformers", "text").ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError):
        return Inputs()  # a repository without an image processor
    size = _size(found.get("crop_size")) or _size(found.get("size"))
    if size is None:
        return Inputs()
    mean, std = found.get("image_mean") or [0.0], found.get("image_std") or [1.0]
    if not found.get("do_normalize", True):
        mean, std = [0.0], [1.0]
    # Ours scales pixels to [0, 1] first; a processor may use another factor, or none.
    scale = 255 * (found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1)
    channels = getattr(getattr(module, "config", None), "num_channels", 3)
    return image_inputs(channels, size, [value / scale for value in mean], [value / scale for value in std])


def _kind(name: str) -> tuple[Any, Any]:
    """The class that the network was saved from, and its configuration."""
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ModelError(f"There is no folder {name}; name one that transformers wrote, or a repository of the hub.")
    transformers = library("transformers", "text")
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except ValueError as error:
        if "custom code" not in str(error):
            raise
        raise ModelError(
            f"hf:{name} is made of code in its repository, which Polyad never executes: build the network in a Python"
            " file of your own (file.py:function)."
        ) from None
    saved = (getattr(config, "architectures", None) or ["none"])[0]
    kind = getattr(transformers, saved, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ModelError(
            f"hf:{name} was saved from the class {saved}, which this transformers does not have: upgrade it, or"
            " build the network in a Python file (file.py:function)."
        )
    return kind, config


def _size(found: Any) -> tuple[int, int] | None:
    """224, {"height": 224, "width": 224} or {"shortest_edge": 224} -> (height, width)."""
    if isinstance(found, int):
        return found, found
    if not isinstance(found, dict):
        return None
    side = found.get("shortest_edge")
    height, width = found.get("height", side), found.get("width", side)
    return None if height is None or width is None else (height, width)


HUBS.register(
    "hf", Hub(name="hf", example="hf:openai-community/gpt2", build=build, inputs=inputs, pretrained=pretrained)
)
