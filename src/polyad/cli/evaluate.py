"""`polyad evaluate`: accuracy or perplexity, loss, and divergence from the original."""

from pathlib import Path

from polyad.batches import as_batches
from polyad.cli.console import note, print_json, say
from polyad.cli.opening import evaluation_split, open_network, preprocessing_of
from polyad.data import loader, open_data
from polyad.evaluation import evaluate
from polyad.outcome import Evaluation
from polyad.report.wording import unit_of, value_text


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
    tokenizer: Path | None,
    batch_size: int,
    as_json: bool,
) -> None:
    source = open_network(model, weights, original)
    dense = open_network(reference, reference_weights).module if reference else None
    opened = open_data(data, preprocessing_of(source, mean, std, size, tokenizer))
    for text in opened.notes:
        note(text)
    batches = as_batches(loader(evaluation_split(opened), batch_size))
    found = evaluate(source.module, batches, reference=dense)
    if as_json:
        print_json(found.model_dump())
    else:
        say(sentence(found))


def sentence(found: Evaluation) -> str:
    """The figures in one line."""
    value = f"{found.value:.4g} %" if found.metric == "accuracy" else value_text(found)
    text = f"{found.metric} {value} on {found.samples:,} {unit_of(found)}"
    if found.loss is not None:
        per_token = " nats per token" if found.metric == "perplexity" else ""
        text += f", cross-entropy {found.loss:.4g}{per_token}"
    if found.difference is not None and found.standard_error is not None:
        text += f"; {found.difference:+.3g} ± {found.standard_error:.2g} against the reference"
    if found.changed is not None:
        text += f", {found.changed:,} predictions changed"
    if found.divergence is not None and found.metric != "divergence":
        text += f", divergence {found.divergence:.3g}"
    return text
