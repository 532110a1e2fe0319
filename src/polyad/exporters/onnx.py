"""ONNX, read by ONNX Runtime and by the compilers of most devices."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from polyad.batches import Batch
from polyad.errors import ExportError
from polyad.exporters.base import EXPORTERS, Exporter, Run, check_installed, inputs_of
from polyad.modes import evaluating, layer_by_layer
from polyad.native import no_stdout

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(module: nn.Module, batch: Batch, *, any_batch: bool = True) -> bytes:
    """A network as an ONNX file.

    PyTorch's older exporter goes first: it takes milliseconds where the newer one takes half a second, and the timings
    of candidates need hundreds. The newer one takes what the older one cannot, and stands alone once that is gone.

    Args:
        module: the network or layer.
        batch: inputs that it runs on.
        any_batch: whether the file takes any number of samples, or just this one.

    Raises:
        ExportError: neither can write it, or the packages are missing.
    """
    check_installed("ONNX", PACKAGES[:2])
    with evaluating(module), layer_by_layer(), torch.no_grad(), _quiet():
        try:
            return _traced(module, batch, any_batch)
        except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError) as older:
            try:
                return _exported(module, batch, any_batch)
            except Exception as newer:  # whatever the tracing of a foreign network raises
                raise ExportError(f"PyTorch cannot write it as ONNX: {_brief(newer)}; {_brief(older)}.") from newer


def _traced(module: nn.Module, batch: Batch, any_batch: bool) -> bytes:
    file, names = io.BytesIO(), list(inputs_of(batch))
    axes = {name: {0: "batch"} for name in (*names, "output")} if any_batch else None
    torch.onnx.export(
        module,
        batch.args,
        file,  # type: ignore[arg-type]
        kwargs=batch.kwargs or None,
        input_names=names,
        output_names=["output"],
        dynamic_axes=axes,
        dynamo=False,
    )
    return file.getvalue()


def _exported(module: nn.Module, batch: Batch, any_batch: bool) -> bytes:
    shapes = tree_map(
        lambda leaf: {0: torch.export.Dim.AUTO} if torch.is_tensor(leaf) and leaf.dim() else None,
        (batch.args, batch.kwargs),
    )
    program = torch.onnx.export(
        module,
        batch.args,
        kwargs=batch.kwargs or None,
        input_names=list(inputs_of(batch)),
        dynamic_shapes=(*shapes[0], *shapes[1].values()) if any_batch else None,
        dynamo=True,
    )
    return program.model_proto.SerializeToString()  # type: ignore[union-attr]


def load(data: bytes) -> Run:
    """Run it by ONNX Runtime on the CPU."""
    check_installed("Running ONNX", PACKAGES[2:])
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}

    def run(batch: Batch) -> np.ndarray:
        feed = {name: tensor.cpu().numpy() for name, tensor in inputs_of(batch).items() if name in wanted}
        return np.asarray(session.run(None, feed)[0])

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters tell of their own progress and plans, on standard output too."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), no_stdout():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


EXPORTERS.register(
    "onnx",
    Exporter("onnx", "ONNX, for ONNX Runtime and the compilers of most devices", ".onnx", PACKAGES, to_onnx, load),
)
