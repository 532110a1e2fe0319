"""nn.TransformerEncoder without nested tensors.

With a padding mask, in evaluation, it packs the samples into a nested tensor that only its fused layers can take, and
zeros stand at the padded positions behind. Layers of replaced weights need ordinary tensors; the zeros stay.
"""

import torch
from torch import Tensor, nn

from polyad.expansions.base import EXPANSIONS, Expansion, Parts


class Encoder(nn.Module):
    """The same layers and norm, one after the other, with zeros where the original would put them."""

    use_nested_tensor = False

    def __init__(self, source: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers, self.norm = source.layers, source.norm
        self.num_layers, self.mask_check = source.num_layers, source.mask_check
        self.enable_nested_tensor = source.enable_nested_tensor
        self.training = source.training  # of this module alone: the layers keep theirs

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Like nn.TransformerEncoder.

        Args:
            src: (n, positions, features), or (positions, features).
            mask: (positions, positions) or (n * heads, positions, positions).
            src_key_padding_mask: (n, positions); True, or anything but 0, for padding.
            is_causal: a promise that `mask` is the causal mask. Without it the mask is taken as it is.
        """
        output = src
        for layer in self.layers:
            output = layer(output, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
        if mask is None and src_key_padding_mask is not None and self._packs(src, src_key_padding_mask.bool()):
            output = output.masked_fill(src_key_padding_mask.bool().unsqueeze(-1), 0)
        return output if self.norm is None else self.norm(output)

    def _packs(self, src: Tensor, padding: Tensor) -> bool:
        """Whether the original would pack this input; conditions as in torch 2.13."""
        first = self.layers[0]
        if first.training or src.dim() != 3 or torch.is_autocast_enabled():
            return False
        if not torch.backends.mha.get_fastpath_enabled():
            return False
        if torch.is_grad_enabled() and any(x.requires_grad for x in (src, *first.parameters())):
            return False
        return not self.mask_check or (not torch.compiler.is_compiling() and _left_aligned(padding))


def _left_aligned(padding: Tensor) -> bool:
    """Whether all padding (n, positions) stands behind what is no padding."""
    return not bool((padding[:, :-1] & ~padding[:, 1:]).any())


def takes(module: nn.Module) -> bool:
    """Only an encoder that may pack: every other one runs its layers and no more."""
    return isinstance(module, nn.TransformerEncoder) and bool(getattr(module, "use_nested_tensor", False))


def refuses(module: nn.Module, parts: Parts = ()) -> str | None:
    """Nothing to refuse: an encoder has no weights of its own."""
    return None


EXPANSIONS.register(
    "encoder",
    Expansion(
        name="encoder",
        summary="nn.TransformerEncoder: its layers on ordinary instead of nested tensors",
        types=(nn.TransformerEncoder,),
        takes=takes,
        refuses=refuses,
        expand=lambda module, parts: Encoder(module),  # type: ignore[arg-type]
    ),
)
