"""Images a second of a compressed network's training step, relative to the dense one's, in one run.

    POLYAD_DATA=... python benchmarks/recovery_throughput.py resnet20 resnet56

A step is forwards, backwards and SOAP on 128 random images, as the training core runs it: channels last, frozen batch
norms folded into their layers, layers factored or contracted by its count. Dense and compressed steps take turns, so
that what else the machine does meets both; medians of processor seconds. MACs are those of the whole network, spent on
CP alone.
"""

import argparse
import sys
from collections.abc import Iterator
from statistics import median
from time import process_time
from typing import Any

import torch
from accuracy import SEED, WEIGHTS
from common import data_folder, write
from torch import nn

import polyad
from polyad.batches import Batch
from polyad.memory_format import channels_last
from polyad.records import Choice
from polyad.settings import Training
from polyad.training.loop import OPTIMIZERS
from polyad.training.prepared import prepared

SHARE = 0.25
SIZE = 128
TURNS = 7


def rows(network: str) -> Iterator[dict[str, Any]]:
    dense = polyad.open_model(f"zoo:{network}", data_folder() / WEIGHTS[network]).module
    images = torch.randn(SIZE, 3, 32, 32, generator=torch.Generator().manual_seed(SEED))
    options: dict[str, Any] = {"metric": "weights", "damage": "relative", "recover": "none", "forms": ("cp",)}
    found = polyad.compress(dense, images[:8], budget=polyad.Budget(macs=SHARE), **options)
    for precision in ("float32", "bfloat16"):
        for execution in ("factored", "contracted", "auto"):
            training = Training(precision=precision, execution=execution)
            seconds = in_turns(dense, found.model, found.plan.choices, training, images)
            yield {
                "network": network,
                "macs_kept": round(found.report.macs.kept, 4),
                "params_kept": round(found.report.params.kept, 4),
                "precision": precision,
                "execution": execution,
                "dense_images_a_second": round(SIZE / seconds[0]),
                "images_a_second": round(SIZE / seconds[1]),
                "relative": round(seconds[0] / seconds[1], 3),
            }


def in_turns(
    dense: nn.Module, small: nn.Module, choices: tuple[Choice, ...], training: Training, images: torch.Tensor
) -> tuple[float, float]:
    """Median processor seconds of a step of each."""
    taken: tuple[list[float], list[float]] = ([], [])
    sides = [(model, own, list(model.parameters())) for model, own in ((dense, ()), (small, choices))]
    optimizers = [OPTIMIZERS[training.optimizer](trained, 1e-12) for _, _, trained in sides]
    for turn in range(TURNS):
        for at, (model, own, trained) in enumerate(sides):
            with prepared(model, trained, own, training):
                start = process_time()
                batch = channels_last(Batch((images,)))
                with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bfloat16"):
                    loss = batch.run(model).float().square().mean()
                loss.backward()
                optimizers[at].step()
                if turn:  # the first one warms up
                    taken[at].append(process_time() - start)
    return median(taken[0]), median(taken[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=["resnet20", "resnet56", []], default=["resnet20", "resnet56"])
    found = []
    for network in parser.parse_args().networks:
        for row in rows(network):
            found.append(row)
            sys.stdout.write(
                f"{network}, MACs {row['macs_kept']:.1%}, {row['precision']}, {row['execution']}: {row['relative']:.2f}"
                f" times the dense ({row['images_a_second']} and {row['dense_images_a_second']} images/s)\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"written to {write('recovery_throughput', found, SEED)}\n")


if __name__ == "__main__":
    main()
