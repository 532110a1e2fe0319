"""Points lost at a budget, without labels and without training beyond `statistics`.

    POLYAD_DATA=... python benchmarks/accuracy.py resnet20 resnet56 mobilenet_v2 side_by_side

Calibration: 1,000 images of the training split (MobileNetV2: 256 of the sample). Every figure is against the dense
network on the same test images; budgets on parameters are shares of those of the 3x3 convolutions. The test images are
looked at once.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from common import data_folder, write
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


def resnet20() -> Iterator[dict[str, Any]]:
    for name, files in (("lossless", LOSSLESS), ("jpeg", JPEG)):
        bench = Bench("resnet20", files, 1000)
        for share in (0.5, 0.35, 0.25, 0.15):
            yield {"data": name} | bench.run("params", share)


def resnet56() -> Iterator[dict[str, Any]]:
    for name, files in (("lossless", LOSSLESS), ("jpeg", JPEG)):
        bench = Bench("resnet56", files, 1000)
        for unit, share in (("macs", 0.5), ("macs", 0.35), ("params", 0.35)):
            yield {"data": name} | bench.run(unit, share)


def mobilenet_v2() -> Iterator[dict[str, Any]]:
    """Calibrated on 256 images of the sample, tested on the other 744."""
    files = ("imagenet1k_sample/imagenet1k_sample.npz",) * 2
    bench = Bench("mobilenet_v2_folded", files, 256)
    for unit, share in (("all params", 0.75), ("macs", 0.75)):
        budget = {"all params": polyad.Budget(params=share), "macs": polyad.Budget(macs=share)}[unit]
        bench.budget = lambda *_, budget=budget: budget  # type: ignore[method-assign]
        yield {"data": "imagenet sample"} | bench.run(unit, share)


def side_by_side() -> Iterator[dict[str, Any]]:
    """One factor at a time on ResNet-20: norm, allocator, forms."""
    bench = Bench("resnet20", LOSSLESS, 1000)
    variants: list[dict[str, Any]] = [
        {"metric": metric, "allocator": allocator}
        for metric in ("weights", "inputs")
        for allocator in ("uniform", "knapsack")
    ]
    variants += [{"forms": (form,)} for form in ("svd", "spatial_svd", "tucker2", "cp")]
    variants += [{"forms": ("svd",), "metric": "weights", "allocator": "uniform"}, {"recover": "none"}]
    for share in (0.5, 0.25):
        for options in variants:
            yield {"data": "lossless"} | bench.run("params", share, **options)


SUITES = {"resnet20": resnet20, "resnet56": resnet56, "mobilenet_v2": mobilenet_v2, "side_by_side": side_by_side}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], default=list(SUITES))
    parser.add_argument("--out", type=Path, help="folder of the JSON files (benchmarks/results)")
    arguments = parser.parse_args()
    for name in arguments.suites:
        rows = []
        for row in SUITES[name]():
            rows.append(row)
            options = ", ".join(f"{key}={value}" for key, value in row["options"].items())
            sys.stdout.write(
                f"{row['network']} {row['data']} {row['budget']} {options}: {row['dense']} -> {row['accuracy']} "
                f"({-row['lost']:+.2f} ± {row['standard_error']}), {row['seconds']} s\n"
            )
            sys.stdout.flush()
        sys.stdout.write(f"written to {write(name, rows, SEED, arguments.out and arguments.out / f'{name}.json')}\n")


if __name__ == "__main__":
    main()
