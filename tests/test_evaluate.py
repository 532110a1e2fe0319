"""Figures against their formulas, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polyad.batches import Batch, as_batches
from polyad.errors import DataError, ModelError, NumericalError
from polyad.evaluation import divergence, evaluate, outputs

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(203, 5, generator=GENERATOR)
Y = torch.randint(0, 4, (203,), generator=GENERATOR)
DATA = list(zip(X.split(50), Y.split(50)))


def linear(seed: int, classes: int = 4) -> nn.Linear:
    layer = nn.Linear(5, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, 5, generator=torch.Generator().manual_seed(seed)))
    return layer


class Noted(nn.Module):
    """Dropout tells training from evaluation mode; the norm is in evaluation mode all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop, self.norm = linear(0), nn.Dropout(0.9), nn.BatchNorm1d(4)
        self.train()
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.drop(self.layer(x)))


def test_outputs_are_joined_and_modes_restored() -> None:
    model = Noted()
    found = outputs(model, as_batches(X.split(50)))
    assert model.training and model.drop.training and not model.norm.training
    assert torch.allclose(found, model.eval()(X), atol=1e-6) and not found.requires_grad


def test_modes_are_restored_after_a_failure() -> None:
    model = Noted()
    with pytest.raises(DataError):
        outputs(model, as_batches(torch.zeros(3, 9)))
    assert model.training and not model.norm.training


def test_what_a_network_caches_can_be_trained_with() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.table = linear(0), None

        def forward(self, x: Tensor) -> Tensor:
            self.table = x.new_ones(4) if self.table is None else self.table
            return self.layer(x) * self.table

    model = Caching()
    outputs(model, as_batches(X))
    model(X).sum().backward()
    assert model.layer.weight.grad is not None


def test_outputs_of_different_shapes_are_joined_flat() -> None:
    images = [torch.ones(1, 1, 4, 4), torch.ones(1, 1, 6, 5)]
    found = outputs(nn.Identity(), as_batches(images))
    assert found.shape == (16 + 30,)
    assert divergence(found, found * 1.1) == pytest.approx(0.01, rel=1e-4)


def test_divergence_is_kl_of_classes() -> None:
    a, b = (torch.randn(7, 4, generator=GENERATOR).numpy().astype(np.float64) for _ in range(2))
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (a, b))
    expected = float((p * np.log(p / q)).sum(1).mean())
    assert divergence(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-12)
    assert divergence(torch.tensor(a), torch.tensor(a) + 3) == pytest.approx(0, abs=1e-12)  # a shift of logits is none
    assert divergence(torch.tensor(a), torch.tensor(a)) == 0


@pytest.mark.parametrize("shape", [(6, 1), (6,), (6, 3, 4, 4)])
def test_divergence_is_a_relative_error_elsewhere(shape: tuple[int, ...]) -> None:
    a, b = torch.randn(shape, generator=GENERATOR), torch.randn(shape, generator=GENERATOR)
    expected = float(((a - b) ** 2).sum() / (a**2).sum())
    assert divergence(a, b) == pytest.approx(expected, rel=1e-5)
    assert divergence(torch.zeros(shape), b) == float("inf") and divergence(torch.zeros(shape), torch.zeros(shape)) == 0


def test_divergence_of_broken_outputs() -> None:
    bad = torch.full((3, 4), float("nan"))
    assert divergence(torch.zeros(3, 4), bad) == float("inf")
    with pytest.raises(DataError, match=r"\(3, 4\) and \(3, 5\)"):
        divergence(torch.zeros(3, 4), torch.zeros(3, 5))


@pytest.mark.parametrize("data", [DATA, (X, Y), iter(DATA)], ids=["list", "tensors", "iterator"])
def test_accuracy_and_paired_standard_error(data: Any) -> None:
    student, teacher = linear(1), linear(2)
    found = evaluate(student, data, reference=teacher)
    scores, original = student(X).detach().numpy(), teacher(X).detach().numpy()
    labels = Y.numpy()
    right, was_right = scores.argmax(1) == labels, original.argmax(1) == labels
    points = 100.0 * (right.astype(float) - was_right.astype(float))
    n, mean = len(points), points.mean()
    standard_error = np.sqrt(((points - mean) ** 2).sum() / (n - 1)) / np.sqrt(n)
    log_p = scores.astype(float) - np.log(np.exp(scores.astype(float)).sum(1, keepdims=True))
    assert found.metric == "accuracy" and found.samples == n == 203
    assert found.value == pytest.approx(100 * right.mean())
    assert found.loss == pytest.approx(-log_p[np.arange(n), labels].mean(), rel=1e-6)
    assert found.difference == pytest.approx(mean)
    assert found.standard_error == pytest.approx(standard_error, rel=1e-12)
    assert found.changed == (scores.argmax(1) != original.argmax(1)).sum()
    assert found.divergence == pytest.approx(divergence(teacher(X).detach(), student(X).detach()), rel=1e-9)


def test_reference_as_tensor_or_the_network_itself() -> None:
    student, teacher = linear(1), linear(2)
    assert evaluate(student, DATA, reference=outputs(teacher, as_batches(DATA))) == evaluate(
        student, DATA, reference=teacher
    )
    itself = evaluate(student, DATA, reference=student)
    assert (itself.divergence, itself.changed, itself.difference, itself.standard_error) == (0, 0, 0, 0)


def test_accuracy_without_a_reference() -> None:
    found = evaluate(linear(1), DATA)
    assert found.divergence is found.changed is found.difference is found.standard_error is None
    assert evaluate(linear(1), [(X[:1], Y[:1])], reference=linear(2)).standard_error is None


def test_divergence_where_labels_are_no_classes() -> None:
    student, teacher = linear(1, classes=1), linear(2, classes=1)
    found = evaluate(student, X.split(50), reference=teacher)
    assert found.metric == "divergence" and found.value == found.divergence and found.loss is None
    assert found.changed is None and found.difference is None and found.samples == 203
    classes = evaluate(linear(1), X, reference=linear(2))
    assert classes.metric == "divergence" and classes.changed


def test_progress_sees_every_batch() -> None:
    seen = []

    def progress(items: Any, label: str, total: int | None = None) -> Any:
        for item in items:
            seen.append(label)
            yield item

    outputs(linear(0), as_batches(DATA), progress)
    assert seen == ["evaluate"] * len(DATA)


def test_refuses_data_of_the_wrong_shape() -> None:
    with pytest.raises(DataError, match=r"batch 1 .*of shape \(8, 3, 4, 4\): RuntimeError: .*cannot be multiplied"):
        evaluate(linear(0), [(torch.zeros(8, 3, 4, 4), torch.zeros(8, dtype=torch.long))])
    with pytest.raises(DataError, match=r"of shape x \(8, 5\): TypeError"):
        outputs(linear(0), [Batch((), {"x": X[:8]})])
    with pytest.raises(DataError, match="no batches"):
        outputs(linear(0), [])


@pytest.mark.parametrize(("labels", "says"), [(torch.full((203,), 4), "to 4, but .* 4 classes"), (Y - 1, "from -1")])
def test_refuses_labels_that_are_no_classes(labels: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        evaluate(linear(0), (X, labels))


def test_refuses_what_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="nothing to measure against"):
        evaluate(linear(0), X)
    with pytest.raises(DataError, match="1 of 2 batches have labels"):
        evaluate(linear(0), [(X, Y), X])
    with pytest.raises(DataError, match="expected one shape"):
        evaluate(linear(0), DATA, reference=torch.zeros(203, 5))
    with pytest.raises(ModelError, match="without a tensor"):
        outputs(type("Nothing", (nn.Module,), {"forward": lambda self, x: None})(), as_batches(X))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_outputs_that_are_not_finite(value: float) -> None:
    broken = linear(0)
    with torch.no_grad():
        broken.weight[1, 1] = value
    with pytest.raises(NumericalError, match="203 of 203 samples, first for sample 0"):
        evaluate(broken, DATA)
    with pytest.raises(NumericalError, match="outputs of the reference"):
        evaluate(linear(0), DATA, reference=broken)
