"""Run a network in evaluation mode, or layer by layer, and leave everything as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Every module in evaluation mode inside, each one's own mode restored behind."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """Transformer layers run as their sub-modules do inside, not as one fused kernel on nested tensors, which hooks on
    those sub-modules cannot read."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
