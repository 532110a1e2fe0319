"""On request: a linear layer that makes several things at once (query, key and value, say) as one layer for each."""

import torch
from torch import Tensor, nn

from polyad.expansions.base import EXPANSIONS, Expansion, Parts, linear
from polyad.layers import LayerSpec, is_conv1d


class Split(nn.ModuleList):
    """Linear layers side by side on one input, their outputs joined."""

    def __init__(self, source: nn.Module, parts: Parts) -> None:
        spec = LayerSpec.of(source)
        weight = spec.canonical(source.weight)[0]  # type: ignore[arg-type]  # (out, in)
        biases = (None,) * len(parts) if source.bias is None else source.bias.split(parts)  # type: ignore[operator]
        super().__init__(linear(rows, bias) for rows, bias in zip(weight.split(parts), biases, strict=True))
        self.in_features, self.out_features = spec.in_features, spec.out_features
        self.train(source.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., in) -> (..., out)."""
        return torch.cat([part(input) for part in self], -1)


def takes(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_conv1d(module)


def refuses(module: nn.Module, parts: Parts) -> str | None:
    """Why the layer does not come apart in these parts, or None."""
    out = LayerSpec.of(module).out_features
    if len(parts) < 2 or min(parts) < 1:
        return f"{list(parts)} are no sizes of two and more parts"
    if sum(parts) != out:
        return f"it has {out} outputs, and the parts {list(parts)} have {sum(parts)} in all"
    return None


EXPANSIONS.register(
    "split",
    Expansion(
        name="split",
        summary="a linear layer of several projections: one linear layer for each, on request",
        types=(nn.Linear,),
        takes=takes,
        refuses=refuses,
        expand=Split,
        on_request=True,
    ),
)
