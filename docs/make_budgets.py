"""Writes docs/budgets.md from the registries of allocators and presets and from the benchmark: `make docs`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyad.allocators.base import ALLOCATORS
from polyad.presets import PRESETS

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "allocators.json"
LATENCY = HERE.parent / "benchmarks" / "results" / "latency.json"
NETWORKS = {"resnet56": "ResNet-56, 32x32", "mobilenet_v2": "MobileNetV2, 224x224"}

PAGE = """\
# Budgets

A budget says what is kept, of the whole network: `--budget params=50%`, `--budget macs=60%,bytes=500kB`,
`polyad.Budget(params=0.5)`. Limits may be combined; all of them hold. One that cannot be reached is refused with the
range that can.

| unit | what is counted |
|---|---|
| `params` | parameters, tied ones once |
| `macs` | multiply-accumulates of linear and convolution layers, one sample |
| `bytes` | what `polyad.save` writes into `model.safetensors` behind its header: all tensors in their types |
| `memory` | peak of the activations of one sample, in bytes |
| `latency` | measured time of one pass on this machine: `latency=60%`, `latency=3ms` |
| `drop` | points of accuracy, or per cent of perplexity, that may be lost |

*Memory* is counted operation by operation. A tensor lives from the operation that makes it to the last one that reads
it, the input and the outputs of the network to the end; views and results in place take nothing of their own. Weights
do not count, nor what a kernel takes for itself while it runs. That is what a runtime needs that frees every tensor
behind its last use (the graph of `torch.export`, run that way, takes the same to the byte); eager PyTorch may hold
some longer, because Python functions hold their arguments. While a replaced layer runs, its input, its output and
what its factors pass to each other live beside whatever else waits. The peak of the network is the largest of these,
so a limit of memory is a limit on every candidate alone: those above it are not offered. A form that hands its output
over in another layout (`tt_matrix`, for one) can make the next layer copy it, which the count does not foresee; so
the finished network is counted again, and the report says where it takes more than was asked for. Your own loop is
counted as it runs, not for one sample.

*Latency* is measured, in the runtime that `--runtime` names (`polyad runtimes`), on `--threads` threads, for
`--latency-batch` samples at once (1). Single layers are timed, dense and in a few ranks of every form, each in turn
with the dense layer; times of other ranks are interpolated over the MACs, apart for ranks that are multiples of
eight, which kernels compute faster (`--round-to 8` makes all ranks such). A candidate that is not faster than the
dense layer is not offered. The network is taken to need what the original needs, less what each layer alone saves.
What the allocator chooses is timed itself, where it was interpolated, and chosen again. Then a network of that shape
is timed in turn with the original; where it misses the budget, the limit that the allocator is given (and with it the
multiplier) is corrected and solved again, up to five times. Plan and report have every round, the last measurement,
and how far the prediction from single layers was off. The table lies in `~/.cache/polyad/latency`
(`$XDG_CACHE_HOME`), a file for each machine, runtime, version, number of threads and batch, and can be removed at any
time. The fastest of many runs count, so a machine that does other work too disturbs little on one thread; on as many
threads as there are cores it has to do nothing else. Together with a drop the table is used without the correction.

A budget of `latency=60%` in ONNX Runtime on two cores (AMD EPYC), by `benchmarks/latency.py`, which ran before the
other programs of a busy machine (real-time priority): the median ratio to the original over runs in turn at the end,
beside a network of the same menu at the same MACs by a budget of MACs. ResNet-56 with cp, spatial_svd and svd,
MobileNetV2 with svd alone; loss on images that nothing saw, those of ResNet-56 from its training split, which it
knows, so on others it loses more. MobileNetV2 keeps the budget and is destroyed by it. On two threads the table was
far off for ResNet-56, and the correction overcame that.

{latency}

*Drop* is measured. The least share of the parameters (or of the unit named beside it, as in `drop=0.5,macs=80%`,
which also stays a limit) is sought by narrowing a bracket to 2 %: each step allocates, rebuilds, recovers statistics
and evaluates on validation data, at most twelve times. On the command line those are the `validation` split where
train and test are there too, else up to 2,000 samples that the draw for calibration leaves over; in Python
`validation=`. The test split serves only for the figures before and after.

A drop is judged by its estimate; with few samples look at the standard error, which the curve in the report and in
its JSON has for every network that was measured. What was chosen as the smallest within a drop looks a little better
on the validation data than it is. Samples of the training split, on the other hand, are known to the original, which
does better on them than on others, so what is lost there tends to be more: ResNet-20 with `drop=1` and the forms
tucker2 and svd kept 78.1 % of its parameters after five networks, at a loss of 0.85 ± 0.22 points on 2,000 training
images and 0.20 ± 0.54 on 1,017 test images. On ResNet-56 with the default forms it kept 30.0 % after six networks (1.00
points on 2,000 training images); of a sweep in steps of 2 % (`benchmarks/drop.py`) none of the six smaller networks,
down to 26.6 %, kept within the point: they lost 1.05 to 1.9.

`--floor 5%` keeps at least that share of each layer's parameters.

`--finalists 8` compares whole networks: the menu is priced in up to eight ways, which weigh the damages and large
errors more or less; each gives a plan within the budget, and the one is kept whose network, fitted briefly, comes
closest to the original's outputs on the calibration inputs, those that the fits have seen and those that they have not
counting alike. In that network each replacement is then taken back alone; damages that what this shows does not bear
out are corrected, and where the plan that follows comes closer still it is taken. What was compared stands in the
plan's `rule`.

`--narrow` lets the knapsack leave out channels between layers as well
([how it works](how-it-works.md#channels-between-layers)).

## Allocators

They spend the budget on a menu that has every form at up to 33 sizes for each layer.

{allocators}

`knapsack` is exact for any limits up to the tolerance of the solver; `energy` and `minmax` are exact for one limit.
With several limits `energy`, `minmax`, `evbmf`, `uniform`, `greedy` and `product` go along one path of selections and
may miss a budget that `knapsack` reaches; the message says so. `lagrange` takes one limit. What an allocator's own
rule came to (multiplier, ceiling, level) stands in the plan and in the report.

One menu of ResNet-20 (tucker2 and svd, 256 images; lossless CIFAR-10, 1,017 test images, dense 91.64 %), no recovery,
one seed, so two points apart is little; `benchmarks/allocators.py`:

{results}

## Presets

`polyad compress --preset alds2021` runs a method of the literature; options on the command line and in a recipe go
before it. In Python: `polyad.compress(model, data, budget=budget, **polyad.preset("alds2021"))`. `polyad presets
NAME` lists what is not as in the paper; none of them trains.

{presets}
"""


def table(kind: str, entries: Mapping[str, Any]) -> str:
    """One row for each entry of a registry."""
    rows = [f"| `{name}` | {one.summary} | {one.source} |" for name, one in entries.items()]
    return "\n".join((f"| {kind} | what it does | source |", "|---|---|---|", *rows))


def results() -> str:
    """The rows of the benchmark, one for each allocator."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    shares = list(dict.fromkeys(row["budget"] for row in rows))
    found = {(row["allocator"], row["budget"]): f"{row['damage']:.2f}, {row['accuracy']:.1f}" for row in rows}
    head = "| allocator | " + " | ".join(f"damage, accuracy at {share:.0%}" for share in shares) + " |"
    lines = [
        f"| `{name}` | " + " | ".join(found[name, share] for share in shares) + " |"
        for name in dict.fromkeys(row["allocator"] for row in rows)
    ]
    return "\n".join((head, "|---|" + "---|" * len(shares), *lines))


def latency() -> str:
    """The rows of the benchmark of latencies."""
    found = json.loads(LATENCY.read_text(encoding="utf-8"))
    lines = [
        f"| {NETWORKS[row['network']]} | {row['threads']} | {row['dense_ms']:.2f} | {row['rounds'][0][1]:.1%} |"
        f" {row['measured']['median']:.1%} | {len(row['rounds'])} | {row['macs_kept']:.1%} |"
        f" {row['same_macs_by_a_budget_of_macs']['median']:.1%} |"
        f" {0 - row['difference']:.1f} ± {row['standard_error']:.1f} |"
        for row in found["rows"]
    ]
    head = (
        "| network | threads | dense, ms | first round | in the end | rounds | MACs kept | same MACs by `macs=` |"
        " points lost |"
    )
    return "\n".join((head, "|---|" + "---|" * 8, *lines))


def page() -> str:
    """The whole page."""
    return PAGE.format(
        allocators=table("allocator", {name: ALLOCATORS[name] for name in ALLOCATORS}),
        presets=table("preset", {name: PRESETS[name] for name in PRESETS}),
        results=results(),
        latency=latency(),
    )


def main() -> None:
    (HERE / "budgets.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
