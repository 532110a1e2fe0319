"""Networks with data to calibrate on and the test data that final figures are taken on, once.

CIFAR: 1,000 images of the lossless (or the JPEG) training split; tests are the lossless and the JPEG test split. The
ImageNet sample: 256 images, tested on the other 744. VDSR: patches of images of the ImageNet sample, their luminance
reduced and enlarged as the test images were; tested on Set5, in dB without a border of `scale` pixels. stories260K:
calibrated on the first half of the stories of tinystories_valid_head.txt, tested on the others.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import JPEG, LOSSLESS, WEIGHTS
from common import data_folder
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Subset

import polyad
from polyad.batches import Batch, as_batches, run_on
from polyad.data import calibration_alone, loader
from polyad.evaluation import evaluate, outputs
from polyad.models import ModelSource
from polyad.outcome import Evaluation
from polyad.trace import trace

CALIBRATION = {"resnet20": 1000, "resnet56": 1000, "mobilenet_v2": 256, "vdsr": 96}
SCALES, PATCH = (2, 3, 4), 41
IMAGES = ("baby", "bird", "butterfly", "head", "woman")
SAMPLE = "imagenet1k_sample/imagenet1k_sample.npz"

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where tests run, and trainings of recovery.py; fits always run on the processor."""

Test = Callable[[nn.Module], dict[str, Any]]
"""A network -> what it loses against the original, and how sure that is."""


@dataclass(frozen=True)
class Tested:
    """One network: calibration batches, tests by name, and the parameters of its 3x3 convolutions."""

    name: str
    model: nn.Module
    calibration: Sequence[Batch]
    tests: Mapping[str, Test]

    @classmethod
    def open(cls, name: str, seed: int, data: str = "lossless", samples: int | None = None) -> "Tested":
        """A network, its calibration drawn with a seed: so many samples, of stories always half of them."""
        if name == "stories260k":
            return cls(name, *_stories())
        samples = samples or CALIBRATION[name]
        if name == "vdsr":
            return cls(name, *_vdsr(seed, samples))
        return cls(name, *(_mobilenet(seed, samples) if name == "mobilenet_v2" else _cifar(name, seed, data, samples)))

    def budget(self, unit: str, share: float) -> polyad.Budget:
        """MACs or parameters of the whole network; "kernels": parameters of its 3x3 convolutions."""
        if unit != "kernels":
            return polyad.Budget(**{unit: share})
        found = trace(self.model, self.calibration[0].take(1))
        inside = sum(site.params for site in found.sites if site.layer.kernel == (3, 3))
        return polyad.Budget(params=int(found.params - inside * (1 - share)))


def _classified(batches: Sequence[Batch], dense: Tensor, student: nn.Module) -> dict[str, Any]:
    return _lost(evaluate(student, batches, reference=dense))


def _lost(found: Evaluation) -> dict[str, Any]:
    """Points of accuracy, or per cent of perplexity."""
    difference, error = found.difference or 0.0, found.standard_error or 0.0
    scale = -1.0 if found.metric == "accuracy" else 100 / (found.value - difference)
    return {
        "lost": round(scale * difference, 3),
        "standard_error": round(abs(scale) * error, 3),
        "unit": "points" if found.metric == "accuracy" else "% of perplexity",
        "dense": round(found.value - difference, 3),
        "changed": found.changed,
        "divergence": round(found.divergence or 0.0, 5),
        "samples": found.samples,
    }


def test_on(model: nn.Module, batches: Sequence[Batch]) -> Test:
    return partial(_classified, batches, outputs(deepcopy(model).to(DEVICE), batches))


def tests_of(source: ModelSource, files: Mapping[str, str]) -> dict[str, Test]:
    """The test split of each file of CIFAR images, or its only one, by the name that it is given."""
    tests = {}
    for kind, file in files.items():
        splits = polyad.open_data(f"npz:{data_folder() / file}", source.preprocessing).splits
        judged = splits.get("test") or next(iter(splits.values()))
        tests[kind] = test_on(source.module, as_batches(loader(judged, 250)))
    return tests


def _cifar(name: str, seed: int, data: str, samples: int) -> tuple[nn.Module, list[Batch], dict[str, Test]]:
    source = polyad.open_model(f"zoo:{name}", data_folder() / WEIGHTS[name])
    files = {"lossless": LOSSLESS, "jpeg": JPEG}
    opened = polyad.open_data(f"npz:{data_folder() / files[data][0]}", source.preprocessing)
    drawn = calibration_alone(opened, samples, seed)
    tests = tests_of(source, {kind: test for kind, (_, test) in files.items()})
    return source.module, as_batches(loader(drawn, 100)), tests


def _mobilenet(seed: int, samples: int) -> tuple[nn.Module, list[Batch], dict[str, Test]]:
    folder = data_folder()
    source = polyad.open_model("zoo:mobilenet_v2_folded", folder / WEIGHTS["mobilenet_v2_folded"])
    (images,) = polyad.open_data(f"npz:{folder / SAMPLE}", source.preprocessing).splits.values()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()  # type: ignore[arg-type]
    drawn, rest = order[:samples], order[samples:]
    test = test_on(source.module, as_batches(loader(Subset(images, rest), 50)))
    return source.module, as_batches(loader(Subset(images, drawn), 32)), {"sample": test}


def _stories() -> tuple[nn.Module, list[Batch], dict[str, Test]]:
    folder = data_folder() / "tinystories260k"
    source = polyad.open_model("zoo:llama2c", folder / "stories260K.bin")
    (stories,) = polyad.open_data(f"text:{folder / 'tinystories_valid_head.txt'}", source.preprocessing).splits.values()
    batches = as_batches(stories)
    half = len(batches) // 2
    return source.module, batches[:half], {"stories": test_on(source.module, batches[half:])}


def _vdsr(seed: int, samples: int) -> tuple[nn.Module, list[Batch], dict[str, Test]]:
    folder = data_folder()
    source = polyad.open_model("zoo:vdsr", folder / "vdsr/vdsr.npz")
    images = polyad.open_data(f"npz:{folder / SAMPLE}").splits["all"]
    draw = np.random.default_rng(seed)
    patches = [
        _patch(images[int(at)][0], int(draw.choice(SCALES)), draw)  # type: ignore[index]
        for at in draw.choice(len(images), samples, replace=False)  # type: ignore[arg-type]
    ]
    dense = deepcopy(source.module).to(DEVICE)
    test = partial(_decibels, {scale: _psnr(dense, folder, scale) for scale in SCALES}, folder)
    batches = [
        Batch((torch.from_numpy(np.stack(patches[at : at + 24]))[:, None],)) for at in range(0, len(patches), 24)
    ]
    return source.module, batches, {"Set5": test}


def _patch(image: Tensor, scale: int, draw: np.random.Generator) -> np.ndarray:
    """Luminance (BT.601, video range) of a corner of an image, reduced by `scale` and enlarged again, in [0, 1]."""
    red, green, blue = image.numpy()
    luminance = (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255
    side = PATCH // 12 * 12  # which every scale divides
    y, x = (int(draw.integers(0, size - side + 1)) for size in luminance.shape)
    whole = Image.fromarray(luminance[y : y + side, x : x + side].astype(np.float32))
    small = whole.resize((side // scale, side // scale), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def _psnr(model: nn.Module, folder: Path, scale: int) -> float:
    """Mean over Set5, in dB."""
    arrays, found = np.load(folder / "vdsr/set5_y.npz"), []
    for name in IMAGES:
        low, high = (torch.from_numpy(arrays[f"{name}_x{scale}_{kind}"]).float() for kind in ("lr", "hr"))
        with torch.no_grad():
            output = run_on(model, Batch((low[None, None] / 255,)), name)
        error = (output[0, 0].cpu().clamp(0, 1) * 255 - high)[scale:-scale, scale:-scale]
        found.append(20 * log10(255) - 10 * log10(float(error.double().square().mean())))
    return sum(found) / len(found)


def _decibels(dense: Mapping[int, float], folder: Path, student: nn.Module) -> dict[str, Any]:
    lost = {f"x{scale}": round(dense[scale] - _psnr(student, folder, scale), 3) for scale in SCALES}
    mean = round(sum(lost.values()) / len(lost), 3)
    return {
        "lost": mean,
        "unit": "dB",
        "dense": {f"x{scale}": round(value, 2) for scale, value in dense.items()},
    } | lost
