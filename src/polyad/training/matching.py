"""What distillation and fine-tuning minimise: the distance from the original's outputs, and from the labels.

For classes and tokens the divergence KL(p_T || q_T) T^2 of the softmax at temperature T (Hinton, Vinyals and Dean,
"Distilling the Knowledge in a Neural Network", 2015), or, where asked for, the mean squared error of the logits, less
their mean over the classes, which the softmax does not see either (Ba and Caruana, "Do Deep Nets Really Need to be
Deep?", NeurIPS 2014). For other outputs the squared error relative to the energy of the original's. Labels add their
cross-entropy, and blocks, where features are asked for, the mean of the relative squared errors of what they give.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from polyad.batches import Batch, is_integer
from polyad.evaluation import divergence, outputs
from polyad.modes import evaluating
from polyad.outputs import outputs_tensor
from polyad.perplexity import predicts_tokens
from polyad.settings import AUGMENTS, Training
from polyad.training.features import Features, relative_error
from polyad.training.variation import UNVARIED, Variation, is_images

BEARS = 0.8
"""Share of the samples on which the original has to say the same of a varied image."""

LOOKED_AT = 512
"""Samples on which that is found out."""


class Matching:
    """The student beside the original.

    Args:
        teacher: the original; a copy of it is run.
        student: on whichever device it is when it is run.
        unseen: batches that `figure` judges on.
        training: temperature, weights of the labels and of what blocks give.
        labels: whether they are used.
        blocks: names of modules that end blocks.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        unseen: Sequence[Batch],
        training: Training,
        *,
        labels: bool,
        blocks: Sequence[str] = (),
    ) -> None:
        self.student, self.unseen, self.training = student, unseen, training
        self.labels = training.labels if labels else 0.0
        self.teacher = deepcopy(teacher).eval().requires_grad_(False)
        self.teacher.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.expected = outputs(teacher, unseen)
        self.features = Features(self.teacher, student, blocks)

    def loss(self, batch: Batch) -> Tensor:
        """The mean over the samples of a batch."""
        with self.features:
            wanted = self._wanted(batch)
            found = outputs_tensor(batch.run(self.student))
        loss = found.new_zeros(())
        if self.labels:
            loss = loss + self.labels * _cross_entropy(found, batch)
        if wanted is not None:
            loss = loss + (1 - self.labels) * self._distance(wanted, found, predicts_tokens(found, batch))
        if self.features.errors:
            loss = loss + self.training.features * torch.stack(self.features.errors).mean()
        return loss

    @torch.no_grad()
    def _wanted(self, batch: Batch) -> Tensor | None:
        """What the original gives, where it matters."""
        if self.labels == 1 and not self.training.features:
            return None
        self.teacher.to(next(self.student.parameters()).device)
        return outputs_tensor(batch.run(self.teacher))

    def _distance(self, wanted: Tensor, found: Tensor, tokens: bool) -> Tensor:
        if not (tokens or are_classes(found)):
            return relative_error(wanted, found)
        wanted, found = (x.flatten(0, -2).float() for x in (wanted, found))
        if self.training.match == "logits":
            return logits_error(wanted, found)
        return softened_divergence(wanted, found, self.training.temperature)

    def figure(self) -> float:
        """On unseen samples the divergence from the original, and the cross-entropy of labels in their weight."""
        found = outputs(self.student, self.unseen)
        figure = (1 - self.labels) * divergence(self.expected, found)
        if self.labels:
            wanted = torch.cat([batch.labels.flatten() for batch in self.unseen])  # type: ignore[union-attr]
            figure += self.labels * F.cross_entropy(found.double(), wanted.long()).item()
        return figure


@torch.no_grad()
def own_share(expected: Tensor, batches: Sequence[Batch]) -> float:
    """Which share of the energy of the original's outputs it makes itself: all of it, or what differs from the input of
    the same shape that comes closest, as in networks that repair an image.

    Args:
        expected: what it gives for these batches.
    """
    if are_classes(expected):  # whose divergence is in nats
        return 1.0
    energy, shares = expected.double().square().sum(), [1.0]
    for leaves in zip(*(tree_leaves((batch.args, batch.kwargs)) for batch in batches), strict=True):
        if _are_like(expected, leaves):
            shares.append(float((expected - torch.cat(leaves).to(expected)).double().square().sum() / energy))
    return min(share for share in shares if share > 0)


def _are_like(expected: Tensor, leaves: Sequence[object]) -> bool:
    """Whether inputs, batch after batch, have the shape of the outputs."""
    if not all(isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() for leaf in leaves):
        return False
    shapes = [leaf.shape for leaf in leaves]  # type: ignore[attr-defined]
    return {shape[1:] for shape in shapes} == {expected.shape[1:]} and sum(s[0] for s in shapes) == len(expected)


def logits_error(wanted: Tensor, found: Tensor) -> Tensor:
    """Mean squared error of logits (rows, classes), each row less its mean."""
    difference = found - wanted
    return (difference - difference.mean(1, keepdim=True)).square().mean()


def softened_divergence(wanted: Tensor, found: Tensor, temperature: float) -> Tensor:
    """Mean KL(p_T || q_T) T^2 of logits (rows, classes)."""
    expected, said = ((x / temperature).log_softmax(1) for x in (wanted, found))
    return F.kl_div(said, expected, log_target=True, reduction="batchmean") * temperature**2


def are_classes(found: Tensor) -> bool:
    """Whether outputs are scores of classes, (samples, classes)."""
    return found.dim() == 2 and found.shape[1] >= 2 and found.is_floating_point()


@torch.no_grad()
def has_labels(network: nn.Module, batches: Sequence[Batch]) -> bool:
    """Whether every batch says which class, or which token at each position, is right."""
    if not all(is_integer(batch.labels) for batch in batches):
        return False
    with evaluating(network):
        found = [outputs_tensor(batch.run(network)) for batch in (one.take(1) for one in batches)]
    return all(
        predicts_tokens(output, batch.take(1)) or (are_classes(output) and batch.labels.dim() == 1)  # type: ignore[union-attr]
        for output, batch in zip(found, batches, strict=True)
    )


@torch.no_grad()
def variation_of(teacher: nn.Module, batches: Sequence[Batch], training: Training, *, mix: bool = False) -> Variation:
    """How images are varied: as asked for, or as the network bears it, which then says the same of most of them.

    Args:
        mix: whether they may be mixed, where nothing is asked for: not where each has a label of its own.
    """
    if training.augment != "auto":
        at = AUGMENTS.index(training.augment)
        return Variation(*(at >= AUGMENTS.index(name) for name in AUGMENTS[1:]))
    batch = batches[0].take(LOOKED_AT)
    inputs = [*batch.args, *batch.kwargs.values()]
    if not any(map(is_images, inputs)) or not are_classes(expected := outputs(teacher, [batch])):
        return UNVARIED
    somewhere = UNVARIED.draw(batch.size, torch.Generator().manual_seed(0))

    def borne(variation: Variation, numbers: Tensor) -> bool:
        found = outputs(teacher, [variation.apply(batch, numbers)])
        return float((found.argmax(1) == expected.argmax(1)).double().mean()) >= BEARS

    all_of_them = torch.zeros_like(somewhere)
    return Variation(borne(Variation(shift=True), somewhere), borne(Variation(flip=True), all_of_them), mix)


def _cross_entropy(found: Tensor, batch: Batch) -> Tensor:
    labels: Tensor = batch.labels  # type: ignore[assignment]
    return F.cross_entropy(found.flatten(0, -2).float(), labels.flatten().long())
