"""PyTorch on a graphics card, operation by operation, images with their channels last, timed by the card's events."""

import torch
from torch import nn

from polyad.batches import Batch
from polyad.runtimes.base import RUNTIMES, Pass, Runtime, laid_out


def prepare(module: nn.Module, batch: Batch, threads: int) -> Pass:
    """A pass without gradients on the current card; threads of the processor play no part."""
    here, inputs = laid_out(module, batch, "cuda")

    def once() -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.inference_mode():
            begin.record()
            here(*inputs.args, **inputs.kwargs)
            end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    return once


RUNTIMES.register(
    "cuda",
    Runtime(
        name="cuda",
        summary="PyTorch on a graphics card, operation by operation, channels last",
        version=lambda: f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        lacks=lambda: "" if torch.cuda.is_available() else "there is no graphics card that PyTorch can use",
        prepare=prepare,
        place=lambda: torch.cuda.get_device_name(),
    ),
)
