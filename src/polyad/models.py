"""Open a network by its specification, as in "zoo:resnet20", "timm:resnet18" or "path/to/file.py:function"."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from polyad.errors import ModelError
from polyad.hubs.base import HUBS, Hub, Inputs
from polyad.python_file import call_function, is_python_file
from polyad.records import Preprocessing
from polyad.weights import load_weights
from polyad.zoo.base import ZOO


@dataclass(frozen=True)
class ModelSource:
    """A network and what is known about it.

    Attributes:
        module: the network, in evaluation mode.
        spec: what it was opened by.
        weights: the file, or what the library calls its pretrained weights; None where they came with the function of a
            Python file or are random.
        input_size: shape of one sample without the batch, (3, 224, 224), or (positions,) of tokens; None where it is
            not known.
        preprocessing: how pixels or text become its inputs; None where it is not known or they are something else.
        trained: False where the weights are random: a zoo network without a file. The function of a Python file is
            taken to return a trained network.
    """

    module: nn.Module
    spec: str
    weights: str | None
    input_size: tuple[int, ...] | None
    preprocessing: Preprocessing | None
    trained: bool


def build_model(spec: str) -> nn.Module:
    """The architecture alone, without trained weights: what a saved network is filled into.

    A specification "path/to/file.py:function" executes that file.

    Raises:
        ModelError: there is no such network, or it cannot be built.
        UnknownNameError: the zoo has no such network.
    """
    hub, name = _parsed(spec)
    if hub is not None:
        return hub.build(name)
    found = call_function(spec, ModelError)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{spec} gives a {type(found).__name__}, not a torch.nn.Module: return the network itself.")
    return found


def open_model(spec: str, weights: str | Path | None = None) -> ModelSource:
    """The network in evaluation mode, with the weights of a file, or else the pretrained ones of its library.

    Args:
        spec: "zoo:NAME", "torchvision:NAME", "timm:NAME", "hf:ID-or-folder" or "path/to/file.py:function".
        weights: a state dict (`.pth .pt .th .safetensors .npz`), or `.bin` of llama2.c; a zoo network without one has
            random weights.

    Raises:
        ModelError: there is no such network, it cannot be built, or the weights cannot be had or do not fit.
        NumericalError: the weights hold NaN or infinity.
        UnknownNameError: the zoo has no such network.
    """
    hub, name = _parsed(spec)
    if weights is None and hub is not None and hub.pretrained is not None:
        module, origin = hub.pretrained(name)
    else:
        module, origin = build_model(spec), None
    if weights is not None:
        load_weights(module, weights)
        origin = str(weights)
    inputs = inputs_of(spec, module)
    trained = origin is not None or hub is None
    return ModelSource(module.eval(), spec, origin, inputs.input_size, inputs.preprocessing, trained)


def inputs_of(spec: str, module: nn.Module) -> Inputs:
    """What is known about the inputs of a network opened by a specification."""
    hub, name = _parsed(spec)
    return hub.inputs(name, module) if hub is not None else Inputs()


def _parsed(spec: str) -> tuple[Hub | None, str]:
    """The hub and the name there; no hub for a Python file."""
    scheme, colon, name = spec.partition(":")
    if colon and scheme in HUBS:
        if not name:
            raise ModelError(f"{spec!r} names no network: write it as in {HUBS[scheme].example}.")
        return HUBS[scheme], name
    if is_python_file(spec):
        return None, spec
    hint = f" Did you mean zoo:{spec}?" if spec in ZOO else ""
    expected = ", ".join((*(HUBS[name].example for name in HUBS), "path/to/file.py:function"))
    raise ModelError(f"{spec!r} is no specification of a network; these are: {expected}.{hint}")
