"""`polyad benchmark`: latency, of a folder against the dense network in the same run."""

from pathlib import Path

from polyad.benchmark import benchmark
from polyad.cli.console import print_json, say
from polyad.cli.opening import example, is_folder, open_network, parameters
from polyad.models import build_model


def run(
    *,
    model: str,
    weights: Path | None,
    original: str | None,
    batch_size: int,
    runs: int,
    runtime: str,
    threads: int | None,
    input_size: str | None,
    as_json: bool,
) -> None:
    source = open_network(model, weights, original)
    networks = {"network": source.module}
    if is_folder(model):
        networks["dense"] = build_model(source.spec).eval()  # its weights do not matter for the time
    timings = benchmark(networks, example(source, input_size, batch_size), runs=runs, runtime=runtime, threads=threads)
    found = {
        name: timing.model_dump() | {"params": parameters(networks[name]), "batch": batch_size}
        for name, timing in timings.items()
    }
    if as_json:
        print_json(found)
        return
    for name, row in found.items():
        say(
            f"{name}: {row['p50']:.2f} ms median, {row['p95']:.2f} ms p95,"
            f" {row['params']:,} parameters, batch {batch_size}"
        )
    if "dense" in timings:
        say(f"the network takes {timings['network'].p50 / timings['dense'].p50:.0%} of the dense network's time")
