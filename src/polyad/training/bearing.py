"""How images are varied: as asked for, or as the original network bears it."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.evaluation import outputs
from polyad.settings import AUGMENTS, Training
from polyad.training.matching import are_classes, own_share
from polyad.training.variation import UNVARIED, Variation, is_images

BEARS = 0.8
"""Share of the samples of which the original has to say the same, or of what it makes of them, in whatever way they are
varied."""

LOOKED_AT = 512
"""Samples on which that is found out."""


@torch.no_grad()
def variation_of(teacher: nn.Module, batches: Sequence[Batch], training: Training, *, mix: bool = False) -> Variation:
    """How images are varied: as asked for, or as the network bears it.

    Classes of a varied image have to be the same; an image that is made of it, varied likewise.

    Args:
        mix: whether they may be mixed, where nothing is asked for: not where each has a label of its own.
    """
    if training.augment != "auto":
        at = AUGMENTS.index(training.augment)
        return Variation(*(at >= AUGMENTS.index(name) for name in AUGMENTS[1:]))
    batch = batches[0].take(LOOKED_AT)
    if not any(map(is_images, [*batch.args, *batch.kwargs.values()])):
        return UNVARIED
    expected = outputs(teacher, [batch])
    if not (are_classes(expected) or is_images(expected)):
        return UNVARIED
    somewhere = UNVARIED.draw(batch.size, torch.Generator().manual_seed(0))
    borne = partial(_borne, teacher, batch, expected)
    shift, flip = borne(Variation(shift=True), somewhere), borne(Variation(flip=True), torch.zeros_like(somewhere))
    return Variation(shift, flip, mix and are_classes(expected))


def _borne(teacher: nn.Module, batch: Batch, expected: Tensor, variation: Variation, numbers: Tensor) -> bool:
    """Whether the original gives for varied images what it should.

    Args:
        expected: what it gives for them as they are.
    """
    found = outputs(teacher, [variation.apply(batch, numbers)])
    if are_classes(expected):
        return float((found.argmax(1) == expected.argmax(1)).double().mean()) >= BEARS
    (wanted,) = variation.apply(Batch((expected,)), numbers).args
    own = own_share(expected, [batch]) * expected.double().square().sum()
    return bool((found - wanted).double().square().sum() <= (1 - BEARS) * own)
