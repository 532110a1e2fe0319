"""Does a changed network still do what the original does? The outputs on an example, compared."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from polyad.batches import Batch, run_on
from polyad.errors import DataError, ModelError
from polyad.modes import evaluating
from polyad.outputs import outputs_tensor
from polyad.splits import Call

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference over the largest output that counts as rounding: some hundred machine epsilons and more, since a
deep network amplifies them; what is computed wrongly errs by far more."""


@dataclass(frozen=True)
class Reference:
    """What a network gives for an example.

    Attributes:
        example: a batch, or a function that runs the network.
        outputs: every tensor that the network returned, call after call.
        tolerance: relative, by the least precise floating-point type in the network.
    """

    example: Batch | Call
    outputs: list[Tensor]
    tolerance: float

    @classmethod
    def of(cls, model: nn.Module, example: Batch | Call) -> "Reference":
        """Run the network; it is not changed.

        Raises:
            DataError: it refuses the example.
        """
        outputs = _outputs(model, example)
        dtypes = {tensor.dtype for tensor in (*model.parameters(), *outputs)}
        return cls(example, outputs, max((TOLERANCE[dtype] for dtype in dtypes if dtype in TOLERANCE), default=0.0))

    def differs(self, model: nn.Module) -> str | None:
        """How another network fails to do the same, or None."""
        if not self.outputs:
            return "the network returns no tensor on the example, so nothing shows that it stays the same"
        try:
            found = _outputs(model, self.example)
        except DataError as error:
            return f"expanded, it fails on the example ({_cause(error)})"
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in self.outputs]:
            return "expanded, its outputs have other shapes"
        worst = max(map(_difference, found, self.outputs))
        if not worst <= self.tolerance:
            return f"expanded, its outputs differ by {worst:.2g} of the largest one"
        return None


def _outputs(model: nn.Module, example: Batch | Call) -> list[Tensor]:
    """All tensors that the model returns while the example runs, with one state of the random numbers."""
    returned: list[Any] = []
    handle = model.register_forward_hook(lambda module, args, output: returned.append(output))
    try:
        with torch.random.fork_rng(_cards(model)), torch.no_grad(), evaluating(model):
            torch.manual_seed(0)
            run_on(model, example, "the example input")
    finally:
        handle.remove()
    return [tensor for output in returned for tensor in _tensors(output)]


def _cards(model: nn.Module) -> list[torch.device]:
    """The graphics cards whose random numbers a run may draw."""
    return list({parameter.device for parameter in model.parameters() if parameter.is_cuda})


def _tensors(output: Any) -> list[Tensor]:
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if found := [leaf.to_padded_tensor(0.0) if leaf.is_nested else leaf for leaf in leaves]:
        return found
    try:
        return [outputs_tensor(output)]
    except ModelError:
        return []


def _difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; what is not finite has to be the same."""
    if found.dtype != expected.dtype:
        return float("inf")
    found, expected = found.detach().double(), expected.detach().double()
    finite = expected.isfinite()
    same = torch.equal(found.isfinite(), finite) and torch.equal(
        found[~finite].nan_to_num(), expected[~finite].nan_to_num()
    )
    if not same:
        return float("inf")
    found, expected = found[finite], expected[finite]
    if not expected.numel():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _cause(error: DataError) -> str:
    """The message of what the network raised, without what `run_on` says around it."""
    inner = error.__cause__ or error
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0].rstrip(".")
