"""A network as it trains quickest, for a while."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from polyad.modes import evaluating
from polyad.records import Choice
from polyad.settings import Training
from polyad.training.contracted import able, contracted, worth_contracting
from polyad.training.folded import folded

NORMS = (nn.modules.batchnorm._BatchNorm,)


@contextmanager
def prepared(
    student: nn.Module,
    trained: Sequence[nn.Parameter],
    choices: Sequence[Choice],
    training: Training,
    device: torch.device | None = None,
) -> Iterator[None]:
    """Inside, gradients are on for what is trained, the network is on the device for it with channels last, and layers
    run in their quickest way; behind it everything but the values of the tensors is as before.

    Dropout is off and batch norm frozen: on thousands of images or fewer its statistics are better left as they are.

    Args:
        device: by default the one of `Training`, which is a graphics card where there is one.
    """
    home = next(student.parameters()).device
    asked = {parameter: parameter.requires_grad for parameter in student.parameters()}
    wanted = set(map(id, trained))
    dense = {"factored": [], "contracted": able(choices), "auto": worth_contracting(choices)}[training.execution]
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(evaluating(student))
        student.to(device or _device(training, home), memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        stack.enter_context(contracted(student, dense))
        if training.norms == "frozen":
            stack.enter_context(folded(student, choices))
        else:
            for module in student.modules():
                module.train(isinstance(module, NORMS))
        if training.compile:
            student.compile()
        for parameter in asked:
            parameter.requires_grad_(id(parameter) in wanted)
        try:
            yield
        finally:
            student._compiled_call_impl = None
            student.to(home, memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
            for parameter, before in asked.items():
                parameter.requires_grad_(before)
                parameter.grad = None


def _device(training: Training, home: torch.device) -> torch.device:
    if training.device != "auto":
        return torch.device(training.device)
    return torch.device("cuda") if home.type == "cpu" and torch.cuda.is_available() else home
