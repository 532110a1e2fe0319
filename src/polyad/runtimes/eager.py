"""PyTorch as it is, operation by operation, images with their channels last."""

from time import perf_counter

import torch
from torch import nn

from polyad.batches import Batch
from polyad.runtimes.base import RUNTIMES, Pass, Runtime, laid_out, processor


def prepare(module: nn.Module, batch: Batch, threads: int) -> Pass:
    """A pass without gradients; `threads` is set by whoever calls it, for all passes."""
    here, inputs = laid_out(module, batch, "cpu")

    def once() -> float:
        with torch.inference_mode():
            start = perf_counter()
            here(*inputs.args, **inputs.kwargs)
            return perf_counter() - start

    return once


RUNTIMES.register(
    "eager",
    Runtime(
        name="eager",
        summary="PyTorch on the processor, operation by operation, channels last",
        version=lambda: f"torch {torch.__version__}",
        lacks=lambda: "",
        prepare=prepare,
        place=processor,
    ),
)
