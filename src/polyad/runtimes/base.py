"""What a runtime is."""

import os
import platform
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from polyad.batches import Batch
from polyad.memory_format import channels_last, stored_last
from polyad.registry import Registry

Pass = Callable[[], float]
"""Runs once and gives the seconds that it took."""


@dataclass(frozen=True)
class Runtime:
    """One way to run networks.

    Attributes:
        name: as on the command line.
        summary: one line.
        version: of what runs them, as far as times depend on it.
        lacks: what is missing here, with what to do, or nothing.
        prepare: network or layer (it is not changed), its inputs, number of threads -> a pass.
        place: the device that it runs on, told apart from others of its kind.
    """

    name: str
    summary: str
    version: Callable[[], str]
    lacks: Callable[[], str]
    prepare: Callable[[nn.Module, Batch, int], Pass]
    place: Callable[[], str]


RUNTIMES: Registry[Runtime] = Registry("runtime", "polyad.runtimes")


def processor() -> str:
    """Model and number of cores of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def laid_out(module: nn.Module, batch: Batch, device: str) -> tuple[nn.Module, Batch]:
    """Copies on a device, in evaluation mode, in the layout in which PyTorch's convolutions of images are fast."""
    here = deepcopy(module).eval().to(device)
    with torch.no_grad():
        for parameter in here.parameters():
            parameter.data = stored_last(parameter.data)
    return here, channels_last(batch.to(device))
