"""`polyad evaluate`: accuracy or loss, and divergence from the original."""

from pathlib import Path

from polyad.batches import as_batches
from polyad.cli.console import print_json, say
from polyad.cli.opening import evaluation_split, open_network, preprocessing_of
from polyad.data import loader, open_data
from polyad.evaluation import evaluate
from polyad.records import Evaluation


def run(
    *,
    model: str,
    data: str,
    weights: Path | None,
    original: str | None,
    reference: str | None,
    reference_weights: Path | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    batch_size: int,
    as_json: bool,
) -> None:
    source = open_network(model, weights, original)
    dense = open_network(reference, reference_weights).module if reference else None
    split = evaluation_split(open_data(data, preprocessing_of(source, mean, std, size)))
    found = evaluate(source.module, as_batches(loader(split, batch_size)), reference=dense)
    if as_json:
        print_json(found.model_dump())
    else:
        say(sentence(found))


def sentence(found: Evaluation) -> str:
    """The figures in one line."""
    unit = " %" if found.metric == "accuracy" else ""
    text = f"{found.metric} {found.value:.4g}{unit} on {found.samples:,} samples"
    if found.loss is not None:
        text += f", cross-entropy {found.loss:.4g}"
    if found.difference is not None and found.standard_error is not None:
        text += f"; {found.difference:+.3g} ± {found.standard_error:.2g} against the reference"
    if found.changed is not None:
        text += f", {found.changed:,} predictions changed"
    if found.divergence is not None and found.metric != "divergence":
        text += f", divergence {found.divergence:.3g}"
    return text
