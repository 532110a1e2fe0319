"""Networks of attention and recurrent modules, for the tests of expansion."""

import torch
from torch import Tensor, nn


class Tokens(nn.Module):
    """A Transformer encoder over the rows of an image with padding: (n, 8, 8) -> (n, 10)."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options)  # type: ignore[arg-type]
        self.embed = nn.Linear(8, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        padding = x.abs().sum(-1) == 0
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=padding).mean(1))


class Rows(nn.Module):
    """A recurrent network over the rows of an image: (n, 8, 8) -> (n, 10)."""

    def __init__(self, kind: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.rnn = kind(8, 24, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.rnn.flatten_parameters()  # type: ignore[operator]
        return self.head(self.rnn(x)[0][:, -1])


class Fused(nn.Module):
    """Attention written out, with one linear layer for query, key and value: (n, 8, 8) -> (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 48)
        self.proj = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).mean(1))


def built(make: type[nn.Module], **options: object) -> nn.Module:
    """A network with fixed random weights, spread as training spreads them: some directions matter more."""
    torch.manual_seed(0)
    model = make(**options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                u, s, vh = torch.linalg.svd(parameter, full_matrices=False)
                decay = 0.7 ** torch.arange(len(s))
                parameter.copy_(u @ torch.diag(3 * s[0] * decay) @ vh)
            elif parameter.dim() == 1 and parameter.eq(parameter[0]).all() and not parameter[0]:
                parameter.uniform_(-0.3, 0.3)
    return model.eval()


def images(n: int = 24, padded: bool = True) -> Tensor:
    """(n, 8, 8), in every other sample the last three rows empty."""
    x = torch.randn(n, 8, 8, generator=torch.Generator().manual_seed(1))
    if padded:
        x[::2, 5:] = 0
    return x
