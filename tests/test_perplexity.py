"""Perplexity and its paired standard error against their formulas; which labels are tokens, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polyad.batches import Batch, as_batches
from polyad.budget import Budget
from polyad.errors import DataError, NumericalError
from polyad.evaluation import divergence, evaluate, outputs
from polyad.pipeline import compress
from polyad.splits import hold_out

VOCABULARY, LENGTHS = 7, (5, 1, 12, 3, 8, 8)


class Bigram(nn.Module):
    """The scores of the next token depend on this one alone: (batch, positions) -> (batch, positions, 7)."""

    def __init__(self, seed: int, spread: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        table = spread * torch.randn(VOCABULARY, VOCABULARY, generator=generator)
        self.table = nn.Embedding.from_pretrained(table)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


def text(lengths: tuple[int, ...] = LENGTHS) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    found = [torch.randint(VOCABULARY, (1, length + 1), generator=generator) for length in lengths]
    return [Batch((tokens[:, :-1],), labels=tokens[:, 1:]) for tokens in found]


def losses(model: Bigram, batch: Batch) -> np.ndarray:
    scores = model.table.weight.double().numpy()[batch.args[0].numpy()[0]]
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return -log_p[np.arange(len(scores)), batch.labels.numpy()[0]]  # type: ignore[union-attr]


def test_perplexity_without_a_reference() -> None:
    model = Bigram(1)
    found = evaluate(model, text())
    each = np.concatenate([losses(model, batch) for batch in text()])
    assert (found.metric, found.samples) == ("perplexity", sum(LENGTHS))
    assert found.loss == pytest.approx(each.mean(), rel=1e-12)
    assert found.value == pytest.approx(np.exp(each.mean()), rel=1e-12)
    assert found.divergence is found.changed is found.difference is found.standard_error is None


def test_uniform_scores_have_the_vocabulary_as_perplexity() -> None:
    assert evaluate(Bigram(0, spread=0.0), text()).value == pytest.approx(VOCABULARY)


def test_against_a_reference() -> None:
    student, teacher = Bigram(1), Bigram(2)
    found = evaluate(student, text(), reference=teacher)
    p, p0 = (np.exp(np.concatenate([losses(one, batch) for batch in text()]).mean()) for one in (student, teacher))
    tokens = np.concatenate([batch.args[0].numpy()[0] for batch in text()])
    a, b = (one.table.weight.double().numpy()[tokens] for one in (teacher, student))
    a, b = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (a, b))
    assert found.difference == pytest.approx(p - p0, rel=1e-12)
    assert found.divergence == pytest.approx((a * np.log(a / b)).sum(1).mean(), rel=1e-9)
    assert found.changed == (a.argmax(1) != b.argmax(1)).sum() > 0
    rows = [p * losses(student, batch) - p0 * losses(teacher, batch) for batch in text()]
    mean, n, groups = np.concatenate(rows).mean(), sum(LENGTHS), len(LENGTHS)
    apart = np.array([(row - mean).sum() for row in rows])
    assert found.standard_error == pytest.approx(np.sqrt(groups / (groups - 1) * (apart**2).sum()) / n, rel=1e-9)


def test_the_standard_error_is_that_of_texts_drawn_again() -> None:
    """The delta method against the spread of the difference over 400 other texts of the same length."""
    student, teacher = Bigram(1), Bigram(2)
    generator = torch.Generator().manual_seed(5)

    def another() -> list[Batch]:
        tokens = torch.randint(VOCABULARY, (60, 21), generator=generator)
        return [Batch((tokens[:, :-1],), labels=tokens[:, 1:])]

    found = [evaluate(student, another(), reference=teacher) for _ in range(400)]
    spread = np.std([one.difference for one in found], ddof=1)
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.15)


def test_single_tokens_give_the_usual_standard_error() -> None:
    student, teacher, data = Bigram(1), Bigram(2), text((1,) * 40)
    found = evaluate(student, data, reference=teacher)
    pairs = np.array([[losses(one, batch)[0] for one in (student, teacher)] for batch in data])
    p, p0 = np.exp(pairs.mean(0))
    moves = p * pairs[:, 0] - p0 * pairs[:, 1]
    assert found.standard_error == pytest.approx(moves.std(ddof=1) / np.sqrt(40), rel=1e-9)
    assert evaluate(student, data[:1], reference=teacher).standard_error is None


def test_the_network_itself_differs_by_nothing() -> None:
    model = Bigram(1)
    found = evaluate(model, text(), reference=model)
    assert (found.divergence, found.changed, found.difference, found.standard_error) == (0, 0, 0, 0)


def test_reference_as_outputs() -> None:
    student, teacher = Bigram(1), Bigram(2)
    scores = outputs(teacher, text())
    assert scores.shape == (sum(LENGTHS), VOCABULARY)
    assert evaluate(student, text(), reference=scores) == evaluate(student, text(), reference=teacher)
    assert divergence(scores, outputs(student, text())) == pytest.approx(
        evaluate(student, text(), reference=teacher).divergence
    )
    for wrong in (scores[:-1], torch.cat([scores, scores]), scores[:, :-1]):
        with pytest.raises(DataError, match="expected"):
            evaluate(student, text(), reference=wrong)


def test_several_sequences_in_a_batch_are_the_same_sequences() -> None:
    student, teacher, data = Bigram(1), Bigram(2), text((6,) * 10)
    joined = [Batch((torch.cat([b.args[0] for b in data]),), labels=torch.cat([b.labels for b in data]))]  # type: ignore[misc]
    one, other = (evaluate(student, some, reference=teacher).model_dump() for some in (data, joined))
    assert one == {name: pytest.approx(value) for name, value in other.items()}


def test_a_broken_network_has_a_number_that_json_can_hold() -> None:
    broken = Bigram(1, spread=1e6)
    found = evaluate(broken, text(), reference=Bigram(2))
    assert found.value == np.finfo(float).max and np.isfinite(found.difference or 0)
    with torch.no_grad():
        broken.table.weight[3, 3] = float("nan")
    with pytest.raises(
        NumericalError, match=r"of the network hold NaN or infinity for \d+ of \d+ tokens, first for tok"
    ):
        evaluate(broken, text())
    with pytest.raises(NumericalError, match="of the reference"):
        evaluate(Bigram(1), text(), reference=broken)


def test_labels_beyond_the_vocabulary_are_refused() -> None:
    (batch,) = text((4,))
    with pytest.raises(DataError, match="go from 7 to 7, but the network has 7 classes"):
        evaluate(Bigram(1), [Batch(batch.args, labels=torch.full((1, 4), VOCABULARY))])


def named(batch: Batch, labels: Tensor) -> dict[str, Any]:
    return {"tokens": batch.args[0], "labels": labels}


def test_labels_that_repeat_the_inputs_are_no_next_tokens() -> None:
    """Networks of transformers get the inputs as labels and shift them: a loss without that shift would be wrong."""
    student, teacher = Bigram(1), Bigram(2)
    shifted = evaluate(student, [named(batch, batch.labels) for batch in text()])  # type: ignore[arg-type]
    assert shifted == evaluate(student, text())
    for masked in (False, True):
        data = [named(batch, batch.args[0].clone()) for batch in text((6, 6))]
        for item in data if masked else ():
            item["labels"][:, -1] = -100
        assert evaluate(student, data, reference=teacher).metric == "divergence"
        with pytest.raises(DataError, match="nothing to measure against"):
            evaluate(student, data)


def test_a_text_may_repeat_a_token() -> None:
    """Labels equal to the inputs of one sequence are what a run of one token gives."""
    run = torch.full((1, 5), 3)
    found = evaluate(Bigram(1), [*text(), Batch((run,), labels=run)])
    assert found.metric == "perplexity" and found.samples == sum(LENGTHS) + 5


def test_batches_are_labelled_alike() -> None:
    tokens = text()[0].args[0]
    for data in ([*text(), tokens], [tokens, *text()]):
        with pytest.raises(DataError, match=r"Batch \d of the data and the first are not labelled alike"):
            evaluate(Bigram(1), data, reference=Bigram(2))


class Biased(nn.Module):
    """A language model whose layers have biases, which recovery corrects."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.hidden, self.head = (
            nn.Embedding(VOCABULARY, 24),
            nn.Linear(24, 32),
            nn.Linear(32, VOCABULARY),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.embedding(tokens))))


def test_compression_with_recovery_over_sequences_of_different_lengths() -> None:
    """Held-out divergence, which decides over corrections, is that of tokens: rows, not a flat run of numbers."""
    model, data = Biased().eval(), text(LENGTHS * 4)
    budget = Budget(params=0.5)
    result = compress(model, data, budget=budget, evaluation=data, forms=("svd",), recover="statistics")
    after = result.report.after
    assert after is not None and after.metric == "perplexity" and after.samples == 4 * sum(LENGTHS)
    (note,) = result.report.recovered
    before, recovered = (float(part) for part in note.split("divergence ")[1].split(" -> "))
    held_out = hold_out(data, 0.2)[1]
    expected = evaluate(result.model, held_out, reference=model).divergence
    assert recovered == pytest.approx(expected, rel=1e-3) and recovered <= before


def test_maps_of_classes_are_no_tokens() -> None:
    """Labels for each position of float inputs, the classes on the second axis: (2, classes 6, 6), labels (2, 6)."""
    model = nn.Conv1d(3, 6, 1)
    data = [(torch.randn(2, 3, 6), torch.zeros(2, 6, dtype=torch.long))]
    assert as_batches(data)[0].labels is not None
    assert evaluate(model, data, reference=model).metric == "divergence"
