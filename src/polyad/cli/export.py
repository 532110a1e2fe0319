"""`polyad export`: a network as a file for other runtimes."""

from pathlib import Path

from polyad.cli.console import print_json, say
from polyad.cli.opening import example, open_network
from polyad.exporters.export import export

SAMPLES = 3
"""Of the random batch that is compared: more than one, for the file takes any number."""


def run(
    *,
    model: str,
    out: Path,
    format: str,
    weights: Path | None,
    original: str | None,
    input_size: str | None,
    as_json: bool,
) -> None:
    source = open_network(model, weights, original)
    found = export(source.module, example(source, input_size, SAMPLES), out, format=format)
    if as_json:
        print_json({"file": str(found.path), "format": format, "bytes": found.bytes, "difference": found.difference})
        return
    say(f"written to {out}: {format}, {found.bytes:,} bytes; outputs differ by {found.difference:.1g} of the largest")
