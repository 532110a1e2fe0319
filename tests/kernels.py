"""Kernels on which fits are compared: 27 made up from seeds, 20 of real networks."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyad.layers import LayerSpec

SHAPES = [
    (8, 8, 3),
    (12, 16, 3),
    (16, 8, 3),
    (16, 24, 3),
    (32, 16, 3),
    (24, 24, 3),
    (8, 12, 5),
    (16, 16, 5),
    (10, 20, 5),
]
"""Outputs, inputs, length of both kernel axes."""

KINDS = ("gaussian", "low_rank", "decaying")

RANDOM = [f"{KINDS[seed % 3]}-{'x'.join(map(str, SHAPES[seed % len(SHAPES)]))}-{seed}" for seed in range(27)]
"""Every shape with its kind three times over."""

RESNET20, RESNET56, VDSR = "cifar10_resnet20-12fca82f.th", "cifar10_resnet56-4bfd9763.th", "vdsr.npz"
_RESNET20 = ("layer1.0.conv1", "layer1.1.conv2", "layer1.2.conv1", "layer2.0.conv1", "layer2.1.conv1", "layer2.2.conv2",
             "layer3.0.conv1", "layer3.2.conv2")  # fmt: skip
_RESNET56 = ("layer1.0.conv2", "layer1.4.conv1", "layer1.8.conv2", "layer2.0.conv1", "layer2.4.conv1", "layer2.8.conv2",
             "layer3.0.conv1", "layer3.4.conv1", "layer3.8.conv2")  # fmt: skip
_VDSR = ("residual_layer.0.conv", "residual_layer.8.conv", "residual_layer.17.conv")
REAL = [
    *(f"resnet20 {name}" for name in _RESNET20),
    *(f"resnet56 {name}" for name in _RESNET56),
    *(f"vdsr {name}" for name in _VDSR),
]


def random_kernel(name: str) -> Tensor:
    """(out, in, h, w) float64 of one of `RANDOM`: noise; a CP of few terms and noise; noise with decaying spectra."""
    kind, shape, seed = name.split("-")
    out, inp, length = map(int, shape.split("x"))
    sizes = (out, inp, length, length)
    generator = torch.Generator().manual_seed(int(seed))

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    kernel = normal(*sizes)
    if kind == "low_rank":
        terms = torch.einsum("or,ir,hr,wr->oihw", *(normal(size, 1 + min(sizes[:2]) // 2) for size in sizes))
        kernel = terms / terms.norm() + 0.2 * kernel / kernel.norm()
    if kind == "decaying":
        for axis, size in enumerate(sizes):
            mixing = normal(size, size) * 0.7 ** torch.arange(size, dtype=torch.float64)
            kernel = (kernel.movedim(axis, -1) @ mixing.mT).movedim(-1, axis)
    return kernel / kernel.norm()


def real_kernel(name: str, folder: Path) -> Tensor:
    """(out, in, h, w) float64 of one of `REAL`."""
    network, layer = name.split()
    return _weights(network, folder)[f"{layer}.weight"].double()


@cache
def _weights(network: str, folder: Path) -> dict[str, Tensor]:
    if network == "vdsr":
        with np.load(folder / "vdsr" / VDSR) as file:
            return {key: torch.from_numpy(file[key]) for key in file.files}
    name = {"resnet20": RESNET20, "resnet56": RESNET56}[network]
    state = torch.load(folder / "weights" / name, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("module."): value for key, value in state.items()}


def layer_of(kernel: Tensor) -> LayerSpec:
    """The convolution whose weight this is."""
    out, inp, *length = kernel.shape
    return LayerSpec(
        kind="conv", in_features=inp, out_features=out, kernel=tuple(length), stride=(1, 1),
        padding=tuple(size // 2 for size in length), dilation=(1, 1),
    )  # fmt: skip
