"""Single layers with inputs such as they get in the network: what is timed in place of the network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec, Size
from polyad.records import DENSE, Rank, Run, Site

Pick = tuple[str, Rank]
"""A form and a rank."""


@dataclass(frozen=True)
class Place:
    """A layer (one of a stack) on an input of one size: what layers have in common that take the same time."""

    layer: LayerSpec
    dtype: str
    size: Size

    @classmethod
    def of(cls, site: Site, run: Run) -> "Place":
        return cls(site.layer, site.dtype, run.size)

    def inputs(self, samples: int) -> Tensor:
        """Such as the layer gets: (samples, in, *size), (samples, positions, in), or tokens (samples, positions)."""
        if self.layer.kind == "embedding":
            return torch.zeros(samples, *self.size, dtype=torch.int64)
        size = (self.layer.in_features, *self.size)
        if self.layer.matrix:
            size = (self.layer.in_features,) if self.size == (1,) else (*self.size, self.layer.in_features)
        return torch.randn(samples, *size).to(getattr(torch, self.dtype))

    def module(self, form: str, rank: Rank) -> nn.Module:
        """The layer in a form, with weights of no meaning."""
        dtype = getattr(torch, self.dtype)
        if form == DENSE:
            module = self.layer.member.model_copy(update={"transposed": False}).build(dtype)
        else:
            module = FORMS[form].skeleton(self.layer, rank, dtype)
        return seeded(module)


def seeded(module: nn.Module) -> nn.Module:
    """The module with small random weights: what memory holds by chance may be slow to compute with."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.05)
    return module
