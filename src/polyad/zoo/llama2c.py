"""A Llama-style language model of 260,000 parameters: the architecture of `stories260K` of llama2.c.

Touvron et al., "LLaMA", 2023; rotary positions: Su et al., "RoFormer", 2021; grouped queries: Ainslie et al., "GQA",
EMNLP 2023; SwiGLU: Shazeer, 2020. Trained weights: A. Karpathy, llama2.c (`tinyllamas/stories260K`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyad.errors import DataError
from polyad.llama2c_file import Sizes
from polyad.records import Preprocessing
from polyad.zoo.base import ZOO, ZooEntry

SIZES = Sizes(width=64, hidden=172, layers=5, heads=8, kv_heads=4, tokens=512, context=512)
"""Of stories260K."""

EPSILON, BASE, SPREAD = 1e-5, 10_000.0, 0.02
"""Under the root of a norm; wavelengths of the rotary pairs grow to it; standard deviation of random weights."""


class Attention(nn.Module):
    """Causal attention; each key and value head serves heads / kv_heads query heads."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.kv_heads = sizes.heads, sizes.kv_heads
        self.q = nn.Linear(sizes.width, sizes.width, bias=False)
        self.k = nn.Linear(sizes.width, sizes.kv_width, bias=False)
        self.v = nn.Linear(sizes.width, sizes.kv_width, bias=False)
        self.o = nn.Linear(sizes.width, sizes.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(batch, positions, width), tables (positions, head width / 2) -> (batch, positions, width)."""
        q = rotated(_parted(self.q(x), self.heads), cos, sin)
        k = rotated(_parted(self.k(x), self.kv_heads), cos, sin)
        v = _parted(self.v(x), self.kv_heads)
        shared = self.heads // self.kv_heads
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.up = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.down = nn.Linear(sizes.hidden, sizes.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, width) -> the same shape."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class DecoderLayer(nn.Module):
    """Attention, then feed-forward, each behind a norm and beside a shortcut."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(sizes.width, eps=EPSILON)
        self.attention = Attention(sizes)
        self.mlp_norm = nn.RMSNorm(sizes.width, eps=EPSILON)
        self.mlp = FeedForward(sizes)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(batch, positions, width) -> the same shape."""
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.mlp(self.mlp_norm(x))


class Llama2c(nn.Module):
    """Tokens -> scores of the token that follows each; the head is the embedding.

    Args:
        sizes: of the network.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, sizes: Sizes = SIZES) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.tokens, sizes.width)
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width, eps=EPSILON)
        self.head = nn.Linear(sizes.width, sizes.tokens, bias=False)
        self.head.weight = self.embedding.weight
        cos, sin = rotary_tables(sizes.context, sizes.head_width)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, positions) int64 -> logits (batch, positions, vocabulary); position i sees tokens 0 ... i."""
        positions = tokens.shape[-1]
        if positions > self.sizes.context:
            raise DataError(
                f"The sequence has {positions} tokens; expected at most {self.sizes.context}, the context of this "
                "network. Cut it into pieces."
            )
        cos, sin = self.cos[:positions], self.sin[:positions]
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


def rotary_tables(positions: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (positions, width / 2) of position * 10000^(-2 i / width)."""
    pairs = width // 2
    angles = torch.arange(positions).unsqueeze(1) * BASE ** (-torch.arange(pairs) / pairs)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each neighbouring pair of channels turned by its angle: (batch, heads, positions, width) -> the same shape."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def _parted(x: Tensor, heads: int) -> Tensor:
    """(batch, positions, heads * width) -> (batch, heads, positions, width)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def build() -> nn.Module:
    """The network with random weights."""
    model = Llama2c()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=SPREAD)
    return model


ZOO.register(
    "llama2c",
    ZooEntry(
        name="llama2c",
        build=build,
        input_size=(SIZES.context,),
        preprocessing=Preprocessing(tokens=SIZES.tokens, context=SIZES.context),
        summary="Llama-style language model of stories260K: 64 wide, 5 layers, 512 tokens",
        source="Touvron et al., 2023; Karpathy, llama2.c",
    ),
)
