"""Seconds and memory of observing 1,000 CIFAR images through ResNet-56.

    POLYAD_DATA=... python benchmarks/observe.py

The peak is that of the whole process, with Python, PyTorch and the images in it. The ratio is to one plain forward pass
over the same images in the same process.
"""

import resource
import sys
from statistics import median
from time import perf_counter

import torch
from accuracy import LOSSLESS, SEED, WEIGHTS
from common import data_folder, write

import polyad
from polyad.batches import as_batches
from polyad.data import calibration_and_evaluation, loader
from polyad.observe import observe
from polyad.trace import trace

RUNS = 3


def main() -> None:
    folder = data_folder()
    source = polyad.open_model("zoo:resnet56", folder / WEIGHTS["resnet56"])
    images, _ = calibration_and_evaluation(
        polyad.open_data(f"npz:{folder / LOSSLESS[0]}", source.preprocessing), 1000, SEED
    )
    batches = as_batches(loader(images, 100))
    sites = trace(source.module, batches[0].take(2)).sites
    observed, plain = [], []
    for _ in range(RUNS):
        start = perf_counter()
        with torch.no_grad():
            for batch in batches:
                batch.run(source.module)
        middle = perf_counter()
        observe(source.module, sites, batches)
        plain.append(middle - start)
        observed.append(perf_counter() - middle)
    row = {
        "network": "resnet56",
        "images": 1000,
        "seconds": round(median(observed), 1),
        "forward_seconds": round(median(plain), 1),
        "ratio_to_forward": round(median(o / p for o, p in zip(observed, plain, strict=True)), 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "runs": RUNS,
    }
    sys.stdout.write(f"{row}\nwritten to {write('observe', [row], SEED)}\n")


if __name__ == "__main__":
    main()
