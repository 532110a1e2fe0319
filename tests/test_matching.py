"""What distillation and fine-tuning minimise, and how images are varied: as the original bears it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.budget import Budget
from polyad.evaluation import divergence, outputs
from polyad.pipeline import compress
from polyad.progress import silent
from polyad.recovery.base import RECOVERIES, Lesson
from polyad.settings import Training
from polyad.training.matching import Matching, has_labels, logits_error, own_share, softened_divergence, variation_of
from polyad.training.variation import UNVARIED, Variation

CLASSES = 5


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 64, CLASSES),
    ).eval()  # fmt: skip


def batches(count: int, labelled: bool = True) -> list[Batch]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    return [Batch((images,), {}, images.mean((1, 2, 3)).mul(20).long() % CLASSES if labelled else None)]


def test_losses_are_their_formulas() -> None:
    torch.manual_seed(0)
    wanted, found = torch.randn(7, CLASSES), torch.randn(7, CLASSES)
    assert logits_error(wanted, wanted + 3) == pytest.approx(0, abs=1e-10)  # the softmax does not see it
    centred = [x - x.mean(1, keepdim=True) for x in (wanted, found)]
    assert torch.allclose(logits_error(wanted, found), F.mse_loss(*centred))
    assert softened_divergence(wanted, found, 1.0).item() == pytest.approx(divergence(wanted, found), rel=1e-5)
    p, q = (wanted / 4).softmax(1), (found / 4).softmax(1)
    assert softened_divergence(wanted, found, 4.0).item() == pytest.approx(
        16 * (p * (p / q).log()).sum(1).mean().item()
    )


@pytest.mark.parametrize("match", [None, "divergence", "logits"])
def test_classes_are_matched_by_what_is_asked_for(match: str | None) -> None:
    student, teacher, (batch,) = network(0), network(1), batches(20)
    training = Training() if match is None else Training(match=match)
    found = Matching(teacher, student, [batch], training, labels=False).loss(batch)
    wanted, said = teacher(batch.args[0]), student(batch.args[0])
    expected = logits_error(wanted, said) if match == "logits" else softened_divergence(wanted, said, 1.0)
    assert torch.allclose(found, expected)


def test_labels_are_mixed_in_by_their_weight() -> None:
    student, teacher, unseen = network(0), network(1), batches(20)
    (batch,) = unseen
    free = Matching(teacher, student, unseen, Training(), labels=False)
    mixed = Matching(teacher, student, unseen, Training(labels=0.25), labels=True)
    entropy = F.cross_entropy(student(batch.args[0]), batch.labels)  # type: ignore[arg-type]
    assert torch.allclose(mixed.loss(batch), 0.75 * free.loss(batch) + 0.25 * entropy)
    assert free.figure() == pytest.approx(divergence(outputs(teacher, unseen), outputs(student, unseen)))
    assert mixed.figure() == pytest.approx(0.75 * free.figure() + 0.25 * entropy.item(), rel=1e-5)
    assert Matching(teacher, student, unseen, Training(labels=1.0), labels=True).loss(batch) == entropy


def test_features_add_the_mean_error_of_the_blocks() -> None:
    student, teacher, unseen = network(0), network(1), batches(20)
    student[3], teacher[3] = nn.ReLU(inplace=True), nn.ReLU(inplace=True)  # what a hook saw is changed behind it
    (batch,) = unseen
    plain = Matching(teacher, student, unseen, Training(), labels=False)
    both = Matching(teacher, student, unseen, Training(features=3.0), labels=False, blocks=["0", "2"])
    errors = []
    for end in (1, 3):
        wanted, found = teacher[:end](batch.args[0]), student[:end](batch.args[0])
        errors.append((wanted - found).square().sum() / wanted.square().sum())
    expected = plain.loss(batch) + 3.0 * sum(errors) / 2
    for _ in range(2):
        loss = both.loss(batch)
        assert torch.allclose(loss, expected)
    loss.backward()
    assert both.figure() == plain.figure()
    both.features.close()
    assert not any(module._forward_hooks for module in student.modules())


def test_what_is_no_class_is_matched_relative_to_its_energy() -> None:
    teacher, student = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    (batch,) = batches(6)
    wanted, found = teacher(batch.args[0]), student(batch.args[0])
    loss = Matching(teacher, student, [batch], Training(), labels=False).loss(batch)
    assert torch.allclose(loss, (wanted - found).square().sum() / wanted.square().sum())


def test_tokens_are_matched_position_by_position() -> None:
    class Next(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 11))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    teacher, student, tokens = Next(), Next(), torch.randint(11, (3, 6))
    batch = Batch((tokens,), {}, tokens.roll(-1, 1))
    loss = Matching(teacher, student, [batch], Training(), labels=False).loss(batch)
    expected = divergence(teacher(tokens).flatten(0, 1), student(tokens).flatten(0, 1))
    assert loss.item() == pytest.approx(expected, rel=1e-4) and has_labels(teacher, [batch])


def test_images_are_varied_as_the_original_bears_it() -> None:
    (batch,) = batches(64)
    still = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))  # every pixel has its weight
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, CLASSES, bias=False))
    assert variation_of(still, [batch], Training()) == UNVARIED
    assert variation_of(mean, [Batch((batch.args[0] + 1,))], Training()) == Variation(shift=True, flip=True)
    assert variation_of(still, [batch], Training(augment="shift")) == Variation(shift=True)
    assert variation_of(still, [batch], Training(augment="mix")) == Variation(shift=True, flip=True, mix=True)
    assert variation_of(still, [batch], Training(), mix=True) == Variation(mix=True)
    assert variation_of(mean, [batch], Training(augment="none"), mix=True) == UNVARIED
    assert variation_of(nn.Conv2d(1, 2, 3), [batch], Training()) == UNVARIED  # not classes


def test_mixed_images_have_no_labels_to_be_tuned_to() -> None:
    given = lesson(True)
    training = given.training.model_copy(update={"augment": "mix"})
    (note,) = RECOVERIES["finetune"].run(replace(given, training=training))
    assert note.startswith("finetune: left out, mixed images have no label of their own")


def lesson(labelled: bool) -> Lesson:
    teacher = network(1)
    options = {"metric": "weights", "damage": "relative", "recover": "none"}
    found = compress(teacher, [torch.randn(8, 1, 8, 8)], budget=Budget(params=0.4), **options)
    fast = Training(epochs=5, batch=32, rate=3e-2, augment="flip")  # mixtures of noise are something else
    return Lesson(found.model, teacher, found.plan, batches(200, labelled), batches(50, labelled), silent, fast)


@pytest.mark.parametrize(("level", "features"), [("distillation", 0.0), ("distillation", 1.0), ("finetune", 0.0)])
def test_levels_that_train_bring_the_outputs_closer(level: str, features: float) -> None:
    given = lesson(True)
    before = divergence(outputs(given.teacher, given.held_out), outputs(given.student, given.held_out))
    (note,) = RECOVERIES[level].run(
        replace(given, training=given.training.model_copy(update={"labels": 0.01, "features": features}))
    )
    after = divergence(outputs(given.teacher, given.held_out), outputs(given.student, given.held_out))
    assert after < 0.7 * before, note
    assert note.startswith(f"{level}: 5 epochs in ")


def test_finetune_without_labels_says_so() -> None:
    given = lesson(False)
    before = [parameter.clone() for parameter in given.student.parameters()]
    assert RECOVERIES["finetune"].run(given) == (
        "finetune: left out, it needs labels of classes or tokens for all samples",
    )
    assert all(torch.equal(a, b) for a, b in zip(before, given.student.parameters()))


def test_auto_stops_where_nothing_is_left_to_win() -> None:
    given = lesson(False)
    (note,) = RECOVERIES["auto"].run(replace(given, student=given.teacher))
    assert note.startswith("auto: refit and what follows left out, the divergence is down to 0")


def test_what_a_network_adds_to_its_input_is_what_it_makes_itself() -> None:
    """Where something else of its shape comes in, where nothing does, and where it gives back what it got."""
    torch.manual_seed(0)
    images, more = torch.randn(8, 3, 5, 5) + 1, torch.randn(8, 3, 5, 5)
    halves = [Batch((images[:4], more[:4])), Batch((images[4:], more[4:]))]
    expected = images + 0.1 * more
    share = float((0.1 * more).square().sum() / expected.square().sum())
    assert own_share(expected, halves) == pytest.approx(share, rel=1e-4)
    assert own_share(expected[:, :1], halves) == own_share(images, [Batch((images,))]) == 1.0
