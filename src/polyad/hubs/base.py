"""What a hub is, and how its errors are told."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from polyad.errors import ModelError, PolyadError
from polyad.records import Preprocessing
from polyad.registry import Registry


@dataclass(frozen=True)
class Inputs:
    """What a hub says about the inputs of a network; None where it does not know."""

    input_size: tuple[int, ...] | None = None
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Hub:
    """A library of networks.

    Attributes:
        name: the scheme of its specifications, "timm" in "timm:NAME".
        example: a specification, for messages.
        build: name -> the architecture alone.
        inputs: name, network -> what is known about its inputs.
        pretrained: name -> the trained network and what its weights are called; None where there are none.
    """

    name: str
    example: str
    build: Callable[[str], nn.Module]
    inputs: Callable[[str, nn.Module], Inputs]
    pretrained: Callable[[str], tuple[nn.Module, str]] | None = None


HUBS: Registry[Hub] = Registry("source of networks", "polyad.hubs")


def library(module: str, extra: str) -> Any:
    """Import an optional library, or say how to install it."""
    name = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise ModelError(
                f"{name} is needed for this network and not installed: pip install polyad[{extra}]"
            ) from None
        raise ModelError(f"{name} cannot be imported ({brief(error)}): pip install polyad[{extra}]") from error
    except Exception as error:  # torchvision with a build of another torch raises RuntimeError
        raise ModelError(
            f"{name} is installed but cannot be imported ({brief(error)}): install the build of {name} that belongs to"
            f" torch {torch.__version__}."
        ) from error


def image_inputs(channels: int, size: Sequence[int], mean: Iterable[float], std: Iterable[float]) -> Inputs:
    """The inputs of a network for images of `size` (height, width)."""
    height, width = size
    preprocessing = Preprocessing(mean=tuple(mean), std=tuple(std), size=(height, width))
    return Inputs((channels, height, width), preprocessing)


def unknown(hub: str, name: str, known: Sequence[str]) -> ModelError:
    """The error for a name that the library does not have."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {hub}:{close[0]}?" if close else ""
    return ModelError(f"{hub} has no network {name!r}.{hint}")


@contextmanager
def refusing(what: str, remedy: str = "") -> Iterator[None]:
    """Tell whatever the library raises as a ModelError: what failed, why, what to do."""
    try:
        yield
    except PolyadError:
        raise
    except Exception as error:
        raise ModelError(f"{what} ({brief(error)}).{remedy}") from error


@contextmanager
def fetching(spec: str) -> Iterator[None]:
    """The same for what needs a download."""
    remedy = " Check the connection, or give a file of weights with --weights."
    with refusing(f"The pretrained weights of {spec} could not be had", remedy):
        yield


def brief(error: BaseException) -> str:
    """The kind and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')[:200]}" if lines else type(error).__name__
