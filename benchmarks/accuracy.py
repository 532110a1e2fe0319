"""A ResNet with calibration and test images of CIFAR-10, for benchmarks that compress it in one way or another."""

from time import perf_counter
from typing import Any

from common import data_folder
from torch.utils.data import DataLoader

import polyad
from polyad.batches import Batch, as_batches
from polyad.data import calibration_and_evaluation, loader
from polyad.evaluation import outputs
from polyad.models import ModelSource
from polyad.trace import trace

WEIGHTS = {
    "resnet20": "weights/cifar10_resnet20-12fca82f.th",
    "resnet56": "weights/cifar10_resnet56-4bfd9763.th",
    "mobilenet_v2_folded": "weights/imagenet_mobilenet_v2.npz",
}
LOSSLESS = ("cifar10/cifar10_lossless.npz", "cifar10/cifar10_lossless.npz")
JPEG = ("cifar10/cifar10_jpeg_train20k.npz", "cifar10/cifar10_jpeg_test.npz")
SEED = 0


class Bench:
    """One network with its calibration and test data."""

    def __init__(self, network: str, files: tuple[str, str], samples: int) -> None:
        folder = data_folder()
        self.network, self.samples = network, samples
        self.source: ModelSource = polyad.open_model(f"zoo:{network}", folder / WEIGHTS[network])
        fitted, judged = (polyad.open_data(f"npz:{folder / file}", self.source.preprocessing) for file in files)
        calibration, test = calibration_and_evaluation(fitted, samples, SEED)
        if files[0] != files[1]:
            test = next(iter(judged.splits.values()))
        self.calibration: DataLoader = loader(calibration, 100)
        self.test = as_batches(loader(test, 100))
        self.dense = outputs(self.source.module, self.test)
        self.trace = trace(self.source.module, Batch((self.test[0].args[0][:1],)))

    def budget(self, unit: str, share: float) -> polyad.Budget:
        """MACs of the whole network, or parameters of its 3x3 convolutions."""
        if unit == "macs":
            return polyad.Budget(macs=share)
        inside = sum(site.params for site in self.trace.sites if site.layer.kernel == (3, 3))
        return polyad.Budget(params=int(self.trace.params - inside * (1 - share)))

    def run(self, unit: str, share: float, **options: Any) -> dict[str, Any]:
        """Compress and measure once."""
        start = perf_counter()
        result = polyad.compress(
            self.source.module,
            self.calibration,
            budget=self.budget(unit, share),
            samples=self.samples,
            seed=SEED,
            **options,
        )
        seconds = perf_counter() - start
        after = polyad.evaluate(result.model, self.test, reference=self.dense)
        assert after.difference is not None
        return {
            "network": self.network,
            "budget": f"{unit} {share:.0%}",
            "options": options,
            "dense": round(after.value - after.difference, 2),
            "accuracy": round(after.value, 2),
            "lost": round(-after.difference, 2),
            "standard_error": round(after.standard_error or 0.0, 2),
            "changed": after.changed,
            "samples": after.samples,
            "params_kept": round(result.report.params.kept, 4),
            "macs_kept": round(result.report.macs.kept, 4),
            "forms": {
                form: sum(c.form == form for c in result.plan.choices) for form in {c.form for c in result.plan.choices}
            },
            "recovered": result.report.recovered,
            "seconds": round(seconds, 1),
        }
