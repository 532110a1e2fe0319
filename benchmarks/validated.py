"""Networks with data to calibrate on and other data to choose by: never the test split.

CIFAR: images of the training split that are not calibrated on. ImageNet sample: calibrated on its first half, judged on
its second. stories260K: calibrated on the first two thirds of the stories of tinystories_valid_head.txt, judged on the
last third; tinystories_sample.txt, the test text, is not opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from accuracy import LOSSLESS, SEED, WEIGHTS
from common import data_folder
from torch import Tensor, nn
from torch.utils.data import Subset

import polyad
from polyad.batches import Batch, as_batches
from polyad.data import calibration_and_evaluation, loader
from polyad.evaluation import evaluate, outputs
from polyad.looking import HELD_OUT
from polyad.outcome import Evaluation
from polyad.progress import silent
from polyad.records import Plan, Trace
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.splits import hold_out, merge

VALIDATION = 1000
"""Images of CIFAR that are judged on."""

CALIBRATION = {"resnet20": 1000, "resnet56": 300, "mobilenet_v2": 250}
FITTED_FEW, HELD_OUT_FEW = 300, 60
"""Samples that a recovery looks at, and those held out that decide; a sixth of them where images are large."""

STORIES = 2 / 3

NAMES = ("stories260k", "resnet20", "mobilenet_v2", "resnet56")


@dataclass(frozen=True)
class Validated:
    """One network: batches to fit on, held out of the fits, and to judge by (labelled)."""

    name: str
    model: nn.Module
    fitted: Sequence[Batch]
    held_out: Sequence[Batch]
    validation: Sequence[Batch]
    dense: Tensor

    @classmethod
    def open(cls, name: str, validation: int = VALIDATION) -> "Validated":
        model, calibration, judged = _stories() if name == "stories260k" else _images(name, validation)
        fitted, held_out = hold_out(calibration, HELD_OUT)
        return cls(name, model, fitted, held_out, judged, outputs(model, judged))

    def judge(self, student: nn.Module) -> Evaluation:
        """Divergence from the original, and accuracy or perplexity with its difference."""
        return evaluate(student, self.validation, reference=self.dense)

    def recover(self, student: nn.Module, plan: Plan, level: str = "statistics") -> tuple[str, ...]:
        """Change the student in place."""
        few = [count // (6 if self.name == "mobilenet_v2" else 1) for count in (FITTED_FEW, HELD_OUT_FEW)]
        fitted, held_out = [merge(self.fitted, few[0])], [merge(self.held_out, few[1])]
        return RECOVERIES[level].run(Lesson(student, self.model, plan, fitted, held_out, silent))

    def budget(self, unit: str, share: float, trace: Trace) -> polyad.Budget:
        """MACs or parameters of the whole network; "kernels": parameters of its 3x3 convolutions."""
        if unit == "kernels":
            inside = sum(site.params for site in trace.sites if site.layer.kernel == (3, 3))
            return polyad.Budget(params=int(trace.params - inside * (1 - share)))
        return polyad.Budget(**{unit: share})


def work_folder(name: str) -> Path:
    """Where finished statistics, menus and fits of a network lie between calls."""
    return Path(gettempdir()) / "polyad-benchmarks" / name


def row_of(found: Evaluation) -> dict[str, Any]:
    """What is written of an evaluation."""
    return {
        "divergence": round(found.divergence or 0.0, 5),
        found.metric: round(found.value, 3),
        "difference": round(found.difference or 0.0, 3),
        "standard_error": round(found.standard_error or 0.0, 3),
        "loss": round(found.loss or 0.0, 4),
        "changed": found.changed,
        "samples": found.samples,
    }


def _images(name: str, validation: int) -> tuple[nn.Module, list[Batch], list[Batch]]:
    folder, samples = data_folder(), CALIBRATION[name]
    if name == "mobilenet_v2":
        source = polyad.open_model("zoo:mobilenet_v2_folded", folder / WEIGHTS["mobilenet_v2_folded"])
        data = polyad.open_data(f"npz:{folder / 'imagenet1k_sample/imagenet1k_sample.npz'}", source.preprocessing)
        (images,) = data.splits.values()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED)).tolist()  # type: ignore[arg-type]
        half = len(order) // 2
        first, second = order[:half][:samples], order[half:][: max(validation // 4, 50)]
        calibration, judged = Subset(images, first), Subset(images, second)
        return source.module, as_batches(loader(calibration, 50)), as_batches(loader(judged, 50))
    source = polyad.open_model(f"zoo:{name}", folder / WEIGHTS[name])
    data = polyad.open_data(f"npz:{folder / LOSSLESS[0]}", source.preprocessing)
    chosen, _ = calibration_and_evaluation(data, samples + validation, SEED)
    calibration, judged = Subset(chosen, range(samples)), Subset(chosen, range(samples, samples + validation))
    return source.module, as_batches(loader(calibration, 100)), as_batches(loader(judged, 100))


def _stories() -> tuple[nn.Module, list[Batch], list[Batch]]:
    folder = data_folder() / "tinystories260k"
    source = polyad.open_model("zoo:llama2c", folder / "stories260K.bin")
    data = polyad.open_data(f"text:{folder / 'tinystories_valid_head.txt'}", source.preprocessing)
    (stories,) = data.splits.values()
    batches = as_batches(stories)
    cut = round(len(batches) * STORIES)
    return source.module, batches[:cut], batches[cut:]
