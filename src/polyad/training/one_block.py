"""One block trained to give what the block of the original gives."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.decompositions.base import FORMS
from polyad.memory_format import channels_last
from polyad.progress import Progress, silent
from polyad.records import Choice
from polyad.settings import Training
from polyad.training.average import copied, put
from polyad.training.blocks import Chain
from polyad.training.loop import Course, Trained, train
from polyad.training.passages import Passage, run_block
from polyad.training.ranks import ALONE, Ranks
from polyad.training.samples import Samples
from polyad.training.schedule import HIGHEST
from polyad.training.settling import settle
from polyad.work import NOTHING_KEPT, Work

SETTLED_ON = 16
"""Batches, of the several dozen, on whose inputs terms are made small."""

AT_ONCE = 64
"""Samples that go through a block together where it is judged."""

SLOWER = 0.1
"""A block that does not improve is tried once more, at this share of the rate."""


def train_block(
    student: nn.Module,
    teacher: nn.Module,
    passage: Passage,
    unseen: Passage,
    training: Training,
    *,
    work: Work = NOTHING_KEPT,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train a block of the student; where that does not lower its error on unseen samples it stays as it is.

    Args:
        student: the network with the block.
        teacher: the original.
        passage: what is learned from.
        unseen: the same block on samples to judge by.
        training: how.
        work, progress, ranks: as for `train`.
    """
    chain, choices = passage.block.of(student), passage.block.relative()
    before, error = copied(chain), _Error(chain, unseen.batches)
    course = Course(
        chain,
        Samples(passage.batches),
        error.loss,
        error.figure,
        passage.block.name,
        parameters=_own(student, chain),
        choices=choices,
        key=(Samples(unseen.batches).key,),
        settle=partial(settle, chain, passage.block.of(teacher), choices, passage.batches[:SETTLED_ON]),
    )

    def trained(rate: float) -> Trained:
        _balance(chain, choices)
        found = train(course, training.model_copy(update={"rate": rate}), work=work, progress=progress, ranks=ranks)
        if not found.improved:
            put(chain, before)
        return found

    rate = training.rate or HIGHEST[training.optimizer]
    found = trained(rate)
    return found if found.improved else trained(SLOWER * rate)


def trainable(student: nn.Module, chain: Chain) -> bool:
    """Whether a block has parameters that no other part of the network shares."""
    return bool(_own(student, chain))


class _Error:
    """Squared error of what a block gives, relative to the energy of what it should give."""

    def __init__(self, chain: Chain, unseen: Sequence[Batch]) -> None:
        self.chain, self.unseen = chain, Samples(unseen)
        self.energy = sum(float(part.labels.double().square().sum()) for part in self.unseen.parts)  # type: ignore[union-attr]
        self.energy = max(self.energy, torch.finfo(torch.float32).tiny)

    def loss(self, batch: Batch) -> Tensor:
        return self._squared(batch) * (len(self.unseen) / batch.size / self.energy)

    def figure(self) -> float:
        total = 0.0
        for at, part in enumerate(self.unseen.parts):
            for positions in torch.arange(part.size).split(AT_ONCE):  # picked, so copied: a block may work in place
                batch = channels_last(self.unseen.take((at, positions)).beside(self.chain))
                total += float(self._squared(batch).double())
        return total / self.energy

    def _squared(self, batch: Batch) -> Tensor:
        wanted: Tensor = batch.labels  # type: ignore[assignment]
        return (run_block(self.chain, batch) - wanted).square().sum()


def _own(student: nn.Module, chain: Chain) -> tuple[nn.Parameter, ...]:
    """The parameters of a block, but for those that the network has under further names: they would change the rest."""
    everywhere, here = (
        [id(p) for _, p in model.named_parameters(remove_duplicate=False)] for model in (student, chain)
    )
    return tuple(p for p in chain.parameters() if everywhere.count(id(p)) == here.count(id(p)))


@torch.no_grad()
def _balance(chain: Chain, choices: Sequence[Choice]) -> None:
    """The factors of each term with equal norms, so that one step size fits all of them."""
    for choice in choices:
        if choice.dense:
            continue
        form, layer = FORMS[choice.form], choice.site.layer
        module: nn.Sequential = chain.get_submodule(choice.site.name)  # type: ignore[assignment]
        factors = [factor.double() for factor in form.read(module, layer, choice.rank)]
        form.load(module, layer, form.balanced(layer, factors), module[-1].bias if layer.bias else None)  # type: ignore[arg-type]
