"""Write a network for another runtime, and keep the file only if what it holds computes the same."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from polyad.batches import Batch, as_batch
from polyad.errors import ExportError
from polyad.exporters.base import EXPORTERS, check_installed
from polyad.modes import evaluating
from polyad.outputs import outputs_tensor

TOLERANCE = 1e-4
"""Largest difference of the outputs, relative to the largest output."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path, format, bytes: of the file.
        difference: the largest difference from PyTorch's outputs, relative to the largest output.
    """

    path: Path
    format: str
    bytes: int
    difference: float


def export(model: nn.Module, example: Any, path: str | Path, *, format: str = "onnx") -> Exported:
    """Write a network as a file that takes any number of samples.

    Args:
        model: on the CPU, in float32.
        example: inputs as one item of the data, two samples or more; the outputs for all of them and for the first one
            alone are compared with PyTorch's.
        path: a new file.
        format: a registered exporter.

    Raises:
        ExportError: the network cannot be written, computes something else in the file, or the file is there or cannot
            be written.
        UnknownNameError: no such format.
    """
    exporter, path, batch = EXPORTERS[format], Path(path), as_batch(example)
    check_installed(f"The format {format}", exporter.packages)
    if path.exists():
        raise ExportError(f"{path} is there already: name a new file, or remove this one first.")
    data = exporter.write(model, batch)
    run, difference = exporter.load(data), 0.0
    for one in (batch, batch.take(1)):
        difference = max(difference, _difference(model, one, run(one)))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"The {format} file would not compute what the network does: outputs differ by {difference:.2g} of the"
            f" largest one, {TOLERANCE:g} at most is expected; it was not kept."
        )
    _write(path, data)
    return Exported(path, format, len(data), difference)


def _difference(model: nn.Module, batch: Batch, found: np.ndarray) -> float:
    with torch.no_grad(), evaluating(model):
        wanted = outputs_tensor(batch.run(model)).numpy()
    if wanted.shape != found.shape:
        raise ExportError(f"The file gives outputs of shape {found.shape} where the network gives {wanted.shape}.")
    return float(np.abs(wanted - found).max(initial=0) / max(np.abs(wanted).max(initial=0), 1e-30))


def _write(path: Path, data: bytes) -> None:
    """As a whole or not at all."""
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(draft, 0o644)
            os.replace(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror}); name a file that can.") from None
