"""nn.MultiheadAttention with its four projections as linear layers.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017; the semantics, masks and all, are those of
torch.nn.MultiheadAttention (torch 2.13) away from its fast path.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyad.expansions.base import EXPANSIONS, Expansion, Parts, computed, linear


class Attention(nn.Module):
    """softmax(Q K' / sqrt(d) + mask) V per head, with Q, K, V and the output made by linear layers.

    `torch.nn.TransformerEncoderLayer` reads some attributes of its attention to see whether one fused kernel may run
    all of the layer from its weights. The class attributes answer that there are no such weights.
    """

    in_proj_weight = None
    in_proj_bias = None
    bias_k = None
    bias_v = None
    add_zero_attn = False
    _qkv_same_embed_dim = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.kdim, self.vdim = source.embed_dim, source.kdim, source.vdim
        self.num_heads, self.head_dim = source.num_heads, source.head_dim
        self.dropout, self.batch_first = source.dropout, source.batch_first
        if source._qkv_same_embed_dim:
            weights = source.in_proj_weight.chunk(3)
        else:
            weights = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        biases = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(linear, weights, biases)
        self.out_proj = linear(source.out_proj.weight, source.out_proj.bias)
        self.train(source.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Output (as `query`) and, where asked for, weights (n, l, s) or per head (n, heads, l, s).

        Args:
            query: (n, l, embed_dim), or (l, n, embed_dim) without batch_first, or (l, embed_dim).
            key: likewise with s positions and kdim features.
            value: likewise with s positions and vdim features.
            key_padding_mask: (n, s) or (s,); True, or what is added to the scores, for positions to leave out.
            need_weights: return the weights, at the price of holding them.
            attn_mask: (l, s) or (n * heads, l, s), bool or added to the scores.
            average_attn_weights: the weights' mean over the heads.
            is_causal: a promise that `attn_mask` is the causal mask.

        Raises:
            RuntimeError: shapes that do not fit each other, or a causal promise without a mask.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal promises that attn_mask is the causal mask, but attn_mask is None: give it.")
        q = self._heads(self.q_proj(query))
        k = self._heads(self.k_proj(key))
        v = self._heads(self.v_proj(value))
        self._check(q, k, v)
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else self._mask(attn_mask, key_padding_mask, q, k)
        heads, weights = self._attended(q, k, v, mask) if need_weights else (self._fused(q, k, v, mask, causal), None)
        output = self.out_proj(self._joined(heads, query.dim()))
        if weights is None:
            return output, None
        weights = weights.mean(1) if average_attn_weights else weights
        return output, weights if query.dim() == 3 else weights.squeeze(0)

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Output per head (n, heads, l, head_dim) and the attention weights (n, heads, l, s)."""
        scores = (q * sqrt(1 / self.head_dim)) @ k.mT
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        weights = F.dropout(weights, self.dropout, self.training)
        return weights @ v, weights

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """The same output without the weights in memory."""
        return F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0, causal)

    def _heads(self, x: Tensor) -> Tensor:
        """Projected input, batched or not -> (n, heads, positions, head_dim)."""
        if x.dim() == 2:
            x = x.unsqueeze(0)
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _joined(self, heads: Tensor, dims: int) -> Tensor:
        """(n, heads, l, head_dim) -> the layout of a query of `dims` axes."""
        joined = heads.transpose(1, 2).flatten(2)
        if dims == 2:
            return joined.squeeze(0)
        return joined if self.batch_first else joined.transpose(0, 1)

    def _mask(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
        """Both masks as one that is added to the scores, of a shape that broadcasts to (n, heads, l, s), or None."""
        n, heads, length, positions = *q.shape[:3], k.shape[2]
        mask = None
        if attn_mask is not None:
            _expect("attn_mask", attn_mask, (length, positions), (n * heads, length, positions))
            mask = _added(attn_mask, q.dtype)
            mask = mask.unflatten(0, (n, heads)) if mask.dim() == 3 else mask
        if key_padding_mask is not None:
            _expect("key_padding_mask", key_padding_mask, (n, positions), *([(positions,)] if n == 1 else []))
            padding = _added(key_padding_mask, q.dtype).view(n, 1, 1, positions)
            mask = padding if mask is None else mask + padding
        return mask

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Keys and values of one sample must not silently serve a whole batch."""
        if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0]:
            raise RuntimeError(
                "query, key and value need one batch size, key and value as many positions; found (samples, positions)"
                f" {[(x.shape[0], x.shape[2]) for x in (q, k, v)]}."
            )


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is added to the scores: -inf where a bool mask is True."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
    return mask


def _expect(name: str, mask: Tensor, *shapes: tuple[int, ...]) -> None:
    if tuple(mask.shape) not in shapes:
        allowed = " or ".join(map(str, shapes))
        raise RuntimeError(f"{name} has the shape {tuple(mask.shape)}; expected {allowed}.")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise RuntimeError(f"{name} is of {mask.dtype}; expected bool or a floating-point type.")


def refuses(module: nn.Module, parts: Parts = ()) -> str | None:
    """Why this attention cannot be expanded, or None."""
    if module.bias_k is not None or module.bias_v is not None:
        return "it adds a learned key and value (add_bias_kv), which no linear layer carries"
    if module.add_zero_attn:
        return "it adds a key and value of zeros (add_zero_attn)"
    if not isinstance(module.out_proj, nn.Linear):
        return f"its out_proj is a {type(module.out_proj).__name__}, not an nn.Linear"
    separate = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    return computed(module, *(("in_proj_weight",) if module._qkv_same_embed_dim else separate))


def fused(parent: nn.Module) -> bool:
    """Whether a TransformerEncoderLayer may run as one fused kernel, which reads the weights of all of its layers."""
    if not isinstance(parent, nn.TransformerEncoderLayer):
        return False
    own = parent.self_attn
    readable = own.batch_first and own.in_proj_bias is not None and own._qkv_same_embed_dim and own.num_heads % 2 == 0
    return bool(readable and parent.activation_relu_or_gelu and parent.norm1.eps == parent.norm2.eps)


EXPANSIONS.register(
    "attention",
    Expansion(
        name="attention",
        summary="nn.MultiheadAttention: query, key, value and output projections as linear layers",
        types=(nn.MultiheadAttention,),
        takes=lambda module: isinstance(module, nn.MultiheadAttention),
        refuses=refuses,
        expand=lambda module, parts: Attention(module),  # type: ignore[arg-type]
        read_by=fused,
    ),
)
