"""The reference networks: plain layers, the keys of the public checkpoints, the published figures."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.models import open_model
from polyad.records import Preprocessing
from polyad.trace import trace
from polyad.zoo.base import ZOO, SamePad

OUTPUTS = {"vdsr": (1, 41, 41), "mobilenet_v2": (1000,), "mobilenet_v2_folded": (1000,), "llama2c": (512, 512)}
"""Shape of one output; ten classes where nothing is said."""

TIED = {"llama2c": ["embedding", "head"]}
"""Layers that cannot be replaced, for their weight is also an embedding."""

COMPUTED = {"llama2c": {"cos", "sin"}}
"""Buffers that no file holds, because the network computes them when it is built."""

PARAMS = {
    "resnet20": 269_722,
    "resnet56": 853_018,
    "vgg16_bn": 14_728_266,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v2_folded": 3_487_816,
    "resnet8": 77_706,
    "resnet8_wide": 480_330,
    "vdsr": 664_704,
    "llama2c": 260_032,
}

WEIGHTS = {
    "resnet20": "weights/cifar10_resnet20-12fca82f.th",
    "resnet56": "weights/cifar10_resnet56-4bfd9763.th",
    "resnet8": "weights/cifar10_resnet8.npz",
    "resnet8_wide": "weights/cifar10_resnet8_wide.npz",
    "mobilenet_v2_folded": "weights/imagenet_mobilenet_v2.npz",
    "vdsr": "vdsr/vdsr.npz",
}


def sample(name: str) -> Tensor:
    size, generator = (2, *ZOO[name].input_size), torch.Generator().manual_seed(0)
    if (tokens := ZOO[name].preprocessing.tokens) is not None:
        return torch.randint(tokens, size, generator=generator)
    return torch.randn(size, generator=generator)


def inputs(images: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """uint8 (n, h, w, 3) -> (n, 3, h, w)."""
    x = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return (x - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


def correct(name: str, folder: Path, images: np.ndarray, labels: np.ndarray) -> int:
    source = open_model(f"zoo:{name}", folder / WEIGHTS[name])
    assert source.preprocessing is not None
    with torch.inference_mode():
        predictions = source.module(inputs(images, source.preprocessing)).argmax(1)
    return int((predictions.numpy() == labels).sum())


@pytest.mark.parametrize("name", ZOO)
def test_forward(name: str) -> None:
    """The outputs have the right shape, and no layer's output is overwritten in place (which would break hooks)."""
    model = ZOO[name].build().eval()
    outputs: list[tuple[Tensor, int]] = []

    def watch(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append((output, output._version))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(watch)
    with torch.no_grad():
        y = model(sample(name))
    assert y.shape == (2, *OUTPUTS.get(name, (10,)))
    assert torch.isfinite(y).all() and y.std() > 0
    assert all(output._version == version for output, version in outputs)


@pytest.mark.parametrize("name", ZOO)
def test_every_layer_can_be_replaced(name: str) -> None:
    model = ZOO[name].build().eval()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all(type(module) is nn.Conv2d for module in convolutions)
    found = trace(model, Batch((sample(name),)))
    assert [refusal.name for refusal in found.refused] == TIED.get(name, [])
    assert all("is tied" in refusal.reason for refusal in found.refused)
    layers = len(convolutions) + sum(isinstance(module, nn.Linear | nn.Embedding) for module in model.modules())
    assert len(found.sites) == layers - len(found.refused)


@pytest.mark.parametrize("name", ZOO)
def test_entry(name: str) -> None:
    """An entry describes itself, and its network can be built without memory."""
    entry = ZOO[name]
    assert entry.name == name and entry.summary and entry.source
    assert len(entry.preprocessing.mean) in (1, entry.input_size[0])
    assert entry.preprocessing.size in (None, entry.input_size[1:])
    with torch.device("meta"):
        model = entry.build()
    assert {key for key, _ in model.named_buffers()} - model.state_dict().keys() == COMPUTED.get(name, set())


@pytest.mark.parametrize("name", PARAMS)
def test_params(name: str) -> None:
    with torch.device("meta"):
        model = ZOO[name].build()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMS[name]


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_depth(depth: int) -> None:
    with torch.device("meta"):
        model = ZOO[f"resnet{depth}"].build()
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == depth


def test_keys() -> None:
    """A few keys of each family as the public checkpoints have them."""
    expected = {
        "resnet20": ["conv1.weight", "bn1.running_var", "layer3.2.conv2.weight", "layer2.0.bn1.bias", "linear.bias"],
        "vgg16_bn": ["features.0.bias", "features.1.running_mean", "features.41.weight", "classifier.weight"],
        "mobilenet_v2": [
            "features.0.0.weight",
            "features.0.1.running_mean",
            "features.1.conv.0.0.weight",
            "features.1.conv.1.weight",
            "features.1.conv.2.bias",
            "features.2.conv.1.1.weight",
            "features.17.conv.3.running_var",
            "features.18.1.weight",
            "classifier.1.weight",
        ],
        "mobilenet_v2_folded": ["features.0.0.bias", "features.2.conv.1.0.weight", "features.17.conv.2.bias"],
        "resnet8": ["conv1.bias", "s1.conv2.weight", "s2.short.bias", "s3.conv1.weight", "fc.weight"],
        "vdsr": ["input.weight", "residual_layer.17.conv.weight", "output.weight"],
        "llama2c": ["embedding.weight", "layers.0.attention.q.weight", "layers.4.mlp.down.weight", "head.weight"],
    }
    for name, keys in expected.items():
        with torch.device("meta"):
            assert set(keys) <= ZOO[name].build().state_dict().keys(), name


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 5), (6, 7), (9, 8), (1, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_same_padding(kernel: int, height: int, width: int) -> None:
    """Position i of the output looks at the input from i * stride - zeros / 2 on, zeros / 2 rounded down."""
    x, weight = torch.randn(1, 1, height, width), torch.randn(1, 1, kernel, kernel)
    y = F.conv2d(SamePad(kernel, 2)(x), weight, stride=2)
    assert y.shape[2:] == (math.ceil(height / 2), math.ceil(width / 2))
    zeros = [max((math.ceil(size / 2) - 1) * 2 + kernel - size, 0) for size in (height, width)]
    wide = F.pad(x, (kernel, kernel, kernel, kernel))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            top, left = kernel + 2 * i - zeros[0] // 2, kernel + 2 * j - zeros[1] // 2
            seen = wide[0, 0, top : top + kernel, left : left + kernel]
            torch.testing.assert_close(y[0, 0, i, j], (seen * weight[0, 0]).sum())


def test_replaced_convolution_is_still_padded() -> None:
    """What stands in for a strided convolution gets the same input."""
    model = ZOO["mobilenet_v2_folded"].build().eval()
    x = sample("mobilenet_v2_folded")
    with torch.no_grad():
        before = model(x)
        for name in ("features.0.0", "features.2.conv.1.0"):
            model.set_submodule(name, nn.Sequential(model.get_submodule(name)))
        torch.testing.assert_close(model(x), before)


# Counts of correct predictions, of other implementations of these networks (torch 2.13 on a CPU).
@pytest.mark.parametrize(
    ("name", "count"), [("resnet20", 182), ("resnet56", 188), ("resnet8", 178), ("resnet8_wide", 180)]
)
def test_cifar_figures(name: str, count: int, data_folder: Path) -> None:
    with np.load(data_folder / "cifar10" / "cifar10_lossless.npz") as file:
        images, labels = file["test_images"][:200], file["test_labels"][:200]
    assert abs(correct(name, data_folder, images, labels) - count) <= 1


def test_imagenet_figure(data_folder: Path) -> None:
    with np.load(data_folder / "imagenet1k_sample" / "imagenet1k_sample.npz") as file:
        packed, offsets, labels = file["jpeg"], file["offsets"], file["labels"][:20]
    jpegs = [packed[offsets[i] : offsets[i + 1]].tobytes() for i in range(20)]
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])
    assert abs(correct("mobilenet_v2_folded", data_folder, images, labels) - 17) <= 1


def test_super_resolution_figure(data_folder: Path) -> None:
    """The luminance of a small image, without a border of `scale` pixels."""
    scale = 2
    with np.load(data_folder / "vdsr" / "set5_y.npz") as file:
        low, high = file[f"butterfly_x{scale}_lr"], file[f"butterfly_x{scale}_hr"]
    model = open_model("zoo:vdsr", data_folder / WEIGHTS["vdsr"]).module
    with torch.inference_mode():
        y = model(torch.from_numpy(low / 255)[None, None])[0, 0].numpy() * 255
    error = (y.clip(0, 255) - high)[scale:-scale, scale:-scale].astype(np.float64)
    assert 10 * math.log10(255**2 / np.mean(error**2)) == pytest.approx(34.722, abs=0.005)
