"""A network as it trains quickest, for a while."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.modes import evaluating
from polyad.records import Choice
from polyad.settings import Training
from polyad.training.contracted import able, contracted, worth_contracting

NORMS = (nn.modules.batchnorm._BatchNorm,)


@contextmanager
def prepared(
    student: nn.Module, trained: Sequence[nn.Parameter], choices: Sequence[Choice], training: Training
) -> Iterator[None]:
    """Inside, gradients are on for what is trained, images have channels last, layers run in their quickest way; behind
    it everything but the values of the tensors is as before.

    Dropout is off and batch norm frozen: on thousands of images or fewer its statistics are better left as they are.
    """
    asked = {parameter: parameter.requires_grad for parameter in student.parameters()}
    wanted = set(map(id, trained))
    dense = {"factored": [], "contracted": able(choices), "auto": worth_contracting(choices)}[training.execution]
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(evaluating(student))
        stack.enter_context(contracted(student, dense))
        if training.norms == "batch":
            for module in student.modules():
                module.train(isinstance(module, NORMS))
        student.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for parameter in asked:
            parameter.requires_grad_(id(parameter) in wanted)
        try:
            yield
        finally:
            student.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
            for parameter, before in asked.items():
                parameter.requires_grad_(before)
                parameter.grad = None


def laid_out(batch: Batch) -> Batch:
    """The batch with channels last where it holds images."""

    def change(leaf: Tensor) -> Tensor:
        return leaf.contiguous(memory_format=torch.channels_last) if leaf.dim() == 4 else leaf

    return batch.each(change)
