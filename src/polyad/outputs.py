"""What a network returns, as one tensor."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polyad.errors import ModelError


def outputs_tensor(output: Any) -> Tensor:
    """What a network returns as one tensor: itself, its `logits`, or the first tensor in it.

    Raises:
        ModelError: there is no tensor in it.
    """
    found = _find_tensor(output)
    if found is None:
        raise ModelError(
            f"The network returns a {type(output).__name__} without a tensor; expected a tensor, a tuple or dict of "
            "them, or an output with `logits`: wrap the network so that it returns one."
        )
    return found


def _find_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    inner = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for found in map(_find_tensor, inner) if found is not None), None)
