"""How good a network is: accuracy or perplexity, loss, and divergence from the original on the same samples."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from math import inf, sqrt
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from polyad.batches import each_batch, is_integer, run_on
from polyad.errors import DataError, NumericalError
from polyad.modes import evaluating
from polyad.outcome import Evaluation
from polyad.outputs import outputs_tensor
from polyad.perplexity import TokenFigures, kl, predicts_tokens
from polyad.progress import Progress, silent


def outputs(model: nn.Module, batches: Iterable[Any], progress: Progress | None = None) -> Tensor:
    """The outputs for all batches, one after another; every module is in evaluation mode and then again in its own.

    Args:
        model: a network, of whose outputs the logits or the first tensor are taken.
        batches: of `as_batches`, or anything with `run(model)`.
        progress: shown while it runs.

    Returns:
        (samples, ...) on the CPU; (tokens, vocabulary) where labels name a token for each position; (elements,) where
        batches differ in more than their number of samples.

    Raises:
        DataError: the network refuses a batch.
    """
    with _running([model]):
        return _together(_results([model], batches, progress)).outputs[0]


def divergence(teacher_outputs: Tensor, student_outputs: Tensor) -> float:
    """How far the student's outputs are from the teacher's: the mean of `divergences`, not below 0.

    Raises:
        DataError: the shapes differ.
    """
    return max(0.0, float(divergences(teacher_outputs, student_outputs).mean()))  # rounding may leave -1e-17


def divergences(teacher_outputs: Tensor, student_outputs: Tensor) -> Tensor:
    """The same sample by sample, (samples,) float64.

    KL(teacher || student) in nats for (samples, classes >= 2) floats, which are taken as logits; else the squared error
    of each sample relative to the mean energy of the teacher's, so that the mean is sum((a - b)^2) / sum(a^2). Infinity
    where outputs are not finite.

    Raises:
        DataError: the shapes differ.
    """
    _check_shapes(teacher_outputs, student_outputs)
    teacher, student = teacher_outputs.double(), student_outputs.double()
    if not (teacher.isfinite().all() and student.isfinite().all()):
        return torch.full((len(teacher),), inf, dtype=torch.float64)
    if _are_classes(teacher_outputs):
        return kl(teacher, student)
    samples = len(teacher) if teacher.dim() else 1
    error = (teacher - student).square().reshape(samples, -1).sum(1)
    energy = teacher.square().sum() / samples
    return error / energy if energy else torch.where(error > 0, inf, 0.0)


def evaluate(
    model: nn.Module,
    data: Any,
    *,
    reference: nn.Module | Tensor | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a network: accuracy and cross-entropy where labels are classes, perplexity where they are the tokens that
    each position stands for, else divergence from the original.

    Args:
        model: a network; it is not changed.
        data: what `as_batches` reads; it is read once, batch by batch.
        reference: the original network, or its outputs for the same samples.
        progress: shown while it runs.

    Raises:
        DataError: the network refuses the data, labels are not classes of its outputs, or there are neither labels of
            classes nor a reference.
        NumericalError: inputs or outputs are not finite.
    """
    networks = [model, reference] if isinstance(reference, nn.Module) and reference is not model else [model]
    with _running(networks):
        results = _results(networks, each_batch(data), progress)
        first = next(results)
        if first.tokens:
            return _of_tokens(chain([first], results), reference)
        run = _together(chain([first], results))
    return _of_samples(run, run.outputs[-1] if isinstance(reference, nn.Module) else reference)


def _of_samples(run: "_Run", original: Tensor | None) -> Evaluation:
    found = run.outputs[0]
    _check_finite(found, "network")
    against = {} if original is None else _against(original, found)
    labels = _labels(run, found)
    if labels is not None:
        return Evaluation(samples=run.samples, **_accuracy(found, original, labels), **against)
    if not against:
        raise DataError(
            "There is nothing to measure against: expected labels of classes (one integer per sample, beside outputs "
            f"of shape (samples, classes); these are {tuple(found.shape)}) or a reference. Give the original network."
        )
    return Evaluation(metric="divergence", value=against["divergence"], loss=None, samples=run.samples, **against)


def _of_tokens(results: Iterable["_Result"], reference: nn.Module | Tensor | None) -> Evaluation:
    """Figures of each token, batch by batch."""
    figures, at = TokenFigures(), 0
    for result in results:
        found, original = result.outputs[0], result.outputs[-1]
        if not isinstance(reference, nn.Module):
            original = None if reference is None else reference[at : at + len(found)].detach().cpu()
        at += len(found)
        _check_finite(found, "network", "token")
        if original is not None:
            _check_shapes(original, found)
            _check_finite(original, "reference", "token")
        figures.add(found, _in_range(result.labels, found), original)
    if isinstance(reference, Tensor) and len(reference) != at:
        raise DataError(f"The reference has the outputs for {len(reference)} tokens; expected {at}, as in the data.")
    return figures.evaluation()


@dataclass(frozen=True)
class _Result:
    """One batch: outputs of each network, (sequences * positions, vocabulary) where tokens are predicted; labels."""

    outputs: list[Tensor]
    labels: Any
    samples: int
    tokens: bool


@dataclass(frozen=True)
class _Run:
    """What is kept of networks that ran over some data: the outputs of each, the labels of each batch."""

    outputs: list[Tensor]
    labels: list[Any]
    samples: int


@contextmanager
def _running(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode without gradients.

    Not inference mode: what a network caches in inference mode (rotary tables, masks) could not be trained with
    afterwards.
    """
    with ExitStack() as stack, torch.no_grad():
        for network in networks:
            stack.enter_context(evaluating(network))
        yield


def _results(networks: Sequence[nn.Module], batches: Iterable[Any], progress: Progress | None) -> Iterator[_Result]:
    """All networks batch by batch, so that data which can be read only once, or is large, serves them all."""
    first: bool | None = None
    for number, batch in enumerate((progress or silent)(batches, "evaluate"), 1):
        found = [_output(network, batch, number) for network in networks]
        labels, tokens = getattr(batch, "labels", None), all(predicts_tokens(output, batch) for output in found)
        first = tokens if first is None else first
        if tokens != first:
            raise DataError(
                f"Batch {number} of the data and the first are not labelled alike; expected one token for each"
                " position in all batches, or in none."
            )
        if tokens:
            found = [output.flatten(0, 1) for output in found]
        yield _Result(found, labels, len(found[0]) if tokens else batch.size, tokens)


def _together(results: Iterable[_Result]) -> _Run:
    found = list(results)
    if not found:
        raise DataError("There are no batches to run the network on; expected at least one.")
    outputs = [_join(of_one) for of_one in zip(*(result.outputs for result in found))]
    return _Run(outputs, [result.labels for result in found], sum(result.samples for result in found))


def _output(network: nn.Module, batch: Any, number: int) -> Tensor:
    return outputs_tensor(run_on(network, batch, f"batch {number} of the data")).detach().cpu()


def _join(found: Sequence[Tensor]) -> Tensor:
    alike = found[0].dim() > 0 and all(output.shape[1:] == found[0].shape[1:] for output in found)
    return torch.cat(list(found) if alike else [output.flatten() for output in found])


def _are_classes(found: Tensor) -> bool:
    return found.dim() == 2 and found.shape[1] >= 2 and found.is_floating_point()


def _check_shapes(teacher: Tensor, student: Tensor) -> None:
    if teacher.shape != student.shape:
        raise DataError(
            f"The outputs to compare have the shapes {tuple(teacher.shape)} and {tuple(student.shape)}; expected one "
            "shape. Give the same inputs to two networks for the same task."
        )


def _check_finite(found: Tensor, whose: str, what: str = "sample") -> None:
    bad = ~found.isfinite().flatten(1).all(1) if found.dim() > 1 else ~found.isfinite()
    if bad.any():
        raise NumericalError(
            f"The outputs of the {whose} hold NaN or infinity for {int(bad.sum())} of {len(bad)} {what}s, first for "
            f"{what} {int(bad.nonzero()[0])}; expected finite numbers. Look at its weights, or run it in float32."
        )


def _labels(run: _Run, found: Tensor) -> Tensor | None:
    """(samples,) int64 where the outputs are scores of classes and there is one class label per sample."""
    given = [labels for labels in run.labels if labels is not None]
    if not given or not _are_classes(found) or len(found) != run.samples:
        return None
    if not all(is_integer(labels) and labels.dim() == 1 for labels in given):
        return None
    if len(given) < len(run.labels):
        raise DataError(f"{len(given)} of {len(run.labels)} batches have labels; expected all of them, or none.")
    return _in_range(torch.cat(given), found)


def _in_range(labels: Tensor, found: Tensor) -> Tensor:
    """Labels as int64 on the CPU, each a class (or token) of the outputs (samples, classes)."""
    labels, classes = labels.cpu().long(), found.shape[1]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"The labels go from {low} to {high}, but the network has {classes} classes, 0 to {classes - 1}; give the "
            "data that it was trained for."
        )
    return labels


def _against(original: Tensor, found: Tensor) -> dict[str, Any]:
    """Divergence from the original and the number of predictions that differ."""
    original = original.detach().cpu()
    _check_finite(original, "reference")
    distance = divergence(original, found)
    changed = int((original.argmax(1) != found.argmax(1)).sum()) if _are_classes(found) else None
    return {"divergence": distance, "changed": changed}


def _accuracy(found: Tensor, original: Tensor | None, labels: Tensor) -> dict[str, Any]:
    """Accuracy in per cent, cross-entropy, and the difference from the original's accuracy on the same samples.

    The standard error is that of the mean of the differences sample by sample (100, 0 or -100 points): far below that
    of either accuracy where the two networks agree on most samples.
    """
    hits = (found.argmax(1) == labels).double()
    loss = F.cross_entropy(found.double(), labels)
    figures = {"metric": "accuracy", "value": 100 * float(hits.mean()), "loss": float(loss)}
    if original is not None:
        points = 100 * (hits - (original.cpu().argmax(1) == labels).double())
        figures["difference"] = float(points.mean())
        figures["standard_error"] = float(points.std() / sqrt(len(points))) if len(points) > 1 else None
    return figures
