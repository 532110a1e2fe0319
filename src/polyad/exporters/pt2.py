"""The program of `torch.export`, for PyTorch's own compilers and runtimes (AOTInductor, ExecuTorch)."""

import io

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from polyad.batches import Batch
from polyad.errors import ExportError
from polyad.exporters.base import EXPORTERS, Exporter, Run
from polyad.modes import evaluating, layer_by_layer
from polyad.outputs import outputs_tensor


def to_pt2(module: nn.Module, batch: Batch) -> bytes:
    """A network as an exported program.

    Raises:
        ExportError: `torch.export` cannot follow it.
    """
    shapes = tree_map(
        lambda leaf: {0: torch.export.Dim.AUTO} if torch.is_tensor(leaf) and leaf.dim() else None,
        (batch.args, batch.kwargs),
    )
    with evaluating(module), layer_by_layer(), torch.no_grad():
        try:
            program = torch.export.export(
                module, batch.args, batch.kwargs, dynamic_shapes=(*shapes[0], *shapes[1].values())
            )
        except Exception as error:  # whatever the tracing of a foreign network raises
            cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(f"torch.export cannot follow the network: {cause}") from error
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def load(data: bytes) -> Run:
    """Run it by PyTorch."""
    module = torch.export.load(io.BytesIO(data)).module()

    def run(batch: Batch) -> np.ndarray:
        with torch.no_grad():
            return outputs_tensor(batch.run(module)).numpy()

    return run


EXPORTERS.register("pt2", Exporter("pt2", "the program of torch.export", ".pt2", (), to_pt2, load))
