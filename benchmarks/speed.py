"""Time to TensorLy's error in the plain norm: CP, partial Tucker and tensor train at a quarter of the parameters.

    python benchmarks/speed.py [64] [256] [512]

TensorLy (PyTorch backend, float32, its defaults: 100 iterations, tolerance 1e-8, SVD start) runs first and says what
error is to be reached; Polyad's fit is the one of a menu (`brief`) where that is enough, else with more and more steps.
Median of five, processor seconds on one thread; kernels of random numbers whose spectra decay like those of trained
layers.
"""

import sys
from collections.abc import Callable
from math import inf
from statistics import median
from time import process_time
from typing import Any

import tensorly
import torch
from common import HERE, rows_at, write
from tensorly.decomposition import parafac, partial_tucker, tensor_train
from torch import Tensor

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.solvers import Problem, fit, ranks_within

SIZES, SHARE, REPEATS, SEED = (64, 256, 512), 0.25, 5, 0
TRIES: tuple[dict[str, Any], ...] = (
    *({"steps": steps, "brief": True} for steps in (0, 5, 7, 10, 14, 20)),
    *({"steps": steps} for steps in (20, 50, 99, 300)),
)


def kernel(channels: int) -> Tensor:
    """(out, in, h, w) float32, spectra of every mode falling like 1 / sqrt."""
    generator = torch.Generator().manual_seed(SEED)
    found = torch.randn(channels, channels, 3, 3, generator=generator)
    for axis, size in enumerate(found.shape):
        mixing = torch.randn(size, size, generator=generator) * torch.arange(1, size + 1) ** -0.5
        found = (found.movedim(axis, -1) @ mixing.mT).movedim(-1, axis)
    return found / found.norm()


def peer(form: str, weight: Tensor, rank: tuple[int, ...]) -> Callable[[], Tensor]:
    """TensorLy's answer, as a weight (out, in, h, w)."""
    joined = weight.flatten(2)
    if form == "cp":
        return lambda: tensorly.cp_to_tensor(parafac(joined, rank[0], n_iter_max=100, init="svd", tol=1e-8)).reshape(
            weight.shape
        )
    if form == "tucker2":

        def tucker() -> Tensor:
            (core, factors), _ = partial_tucker(joined, rank=list(rank), modes=[0, 1])
            return tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1]).reshape(weight.shape)

        return tucker
    return lambda: tensor_train(weight.permute(1, 2, 3, 0), [1, *rank, 1]).to_tensor().permute(3, 0, 1, 2)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Median seconds of the processor, which other work on the machine disturbs less, and the last answer."""
    seconds, found = [], None
    for _ in range(REPEATS):
        start = process_time()
        found = call()
        seconds.append(process_time() - start)
        if sum(seconds) > 120:  # what takes minutes is not repeated
            break
    return median(seconds), found


def row(form: str, channels: int) -> dict[str, Any]:
    weight = kernel(channels)
    layer = LayerSpec(
        kind="conv", in_features=channels, out_features=channels, kernel=(3, 3), stride=(1, 1), padding=(1, 1),
        dilation=(1, 1),
    )  # fmt: skip
    flat = weight.double().flatten(1).unsqueeze(0)
    rank = ranks_within(FORMS[form], layer, Problem(flat, None), [SHARE])[-1]
    theirs, answer = timed(peer(form, weight, rank))
    wanted = float((answer.double() - weight.double()).square().sum() / weight.double().square().sum())
    ours, error, how = inf, inf, {}
    for how in TRIES:
        ours, found = timed(lambda how=how: fit(FORMS[form], layer, Problem(flat, None), rank, **how))
        error = found.error
        if error <= wanted * 1.0005:  # TensorLy's own rounding in float32
            break
    return {
        "form": form,
        "kernel": f"{channels}x{channels}x3x3",
        "rank": rank,
        "tensorly_s": round(theirs, 3),
        "tensorly_error": round(wanted, 5),
        "polyad_s": round(ours, 3),
        "polyad_error": round(error, 5),
        "polyad": how,
        "times_faster": round(theirs / ours, 2),
    }


def main() -> None:
    torch.set_num_threads(1)
    tensorly.set_backend("pytorch")
    asked = [int(size) for size in sys.argv[1:]] or list(SIZES)
    earlier = rows_at(HERE / "results" / "speed.json")
    rows = [row for row in earlier if row["kernel"] not in {f"{size}x{size}x3x3" for size in asked}]
    for channels in asked:
        for form in ("cp", "tucker2", "tt"):
            rows.append(row(form, channels))
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
            write("speed", rows, SEED)


if __name__ == "__main__":
    main()
