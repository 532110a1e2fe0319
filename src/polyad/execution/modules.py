"""The few modules that a factorised layer needs where no standard layer does it; each holds ordinary tensors."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from polyad.execution.contraction import ROWS, contract
from polyad.execution.network import Network
from polyad.layers import Size

MANY_ROWS = 256
"""Rows assumed where their number is not known while a network is exported."""


def _empty(count: int, dtype: torch.dtype, device: torch.device | str) -> nn.Parameter:
    """A vector that is still to be filled."""
    return nn.Parameter(torch.empty(count, dtype=dtype, device=device))


class ModeConv(nn.Module):
    """A convolution over some of the letters that the channels stand for, applied to all values of the others alike.

    Args:
        sizes: of the letters of the channels as they arrive.
        order: the letters in the order spectators, batch, contracted, as positions in `sizes`.
        spectators: how many letters are spectators.
        layer: the convolution.
    """

    def __init__(self, sizes: Size, order: Sequence[int], spectators: int, layer: nn.Module) -> None:
        super().__init__()
        self.sizes, self.order, self.layer = sizes, tuple(order), layer
        self.fold = prod(sizes[at] for at in self.order[:spectators])
        self.dims = layer.weight.dim() - 2  # type: ignore[operator, union-attr]

    @property
    def weight(self) -> Tensor:
        return self.layer.weight  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, *size) or (channels, *size) -> likewise."""
        if x.dim() == self.dims + 1:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        samples, space = x.shape[0], x.shape[2:]
        letters = len(self.sizes)
        if self.order != tuple(range(letters)):
            axes = (0, *(at + 1 for at in self.order), *range(letters + 1, letters + 1 + self.dims))
            x = x.reshape(samples, *self.sizes, *space).permute(axes)
        inner = prod(self.sizes) // self.fold
        y = self.layer(x.reshape(samples * self.fold, inner, *space))
        return y.reshape(samples, self.fold * y.shape[1], *y.shape[2:])

    def extra_repr(self) -> str:
        return f"letters={self.sizes}, order={self.order}, fold={self.fold}"


class Scale(nn.Module):
    """One number per channel of a matrix: y = weight * x."""

    def __init__(self, channels: int, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        self.weight = _empty(channels, dtype, device)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> the same shape."""
        return x * self.weight

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}"


class Reorder(nn.Module):
    """Bring the output channels from the order in which they are computed into their own, and add the bias.

    Args:
        sizes, order: of the letters as they arrive, and their positions in the order that is wanted.
        dims: spatial dimensions behind the channels; 0 where the channels come last.
        index: whether the channels are permuted once more, in an order that is loaded with the weights.
        bias: whether a bias is added.
    """

    def __init__(
        self,
        sizes: Size,
        order: Sequence[int],
        dims: int,
        *,
        index: bool,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        super().__init__()
        channels = prod(sizes)
        self.sizes, self.order, self.dims = sizes, tuple(order), dims
        self.bias = _empty(channels, dtype, device) if bias else None
        self.register_buffer("index", torch.arange(channels, device=device) if index else None)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, *size), or without the batch -> the same shape."""
        axis = x.dim() - 1 - self.dims
        if self.order != tuple(range(len(self.sizes))):
            split = x.unflatten(axis, self.sizes)
            inner = [axis + at for at in self.order]
            outer = range(axis + len(self.sizes), split.dim())
            x = split.permute(*range(axis), *inner, *outer).flatten(axis, axis + len(self.sizes) - 1)
        if self.index is not None:
            x = x.index_select(axis, self.index)  # type: ignore[arg-type]
        return x if self.bias is None else x + self.bias.view(-1, *(1,) * self.dims)


class TensorLinear(nn.Module):
    """A matrix held as a network of factors, applied in the cheapest order for the rows at hand.

    For few rows the factors meet the rows one after another; for many it is cheaper to join factors first. The order is
    looked up at each call, so the saved tensors do not depend on it.

    Args:
        network: the factors.
        bias: whether a bias is added.
    """

    def __init__(self, network: Network, bias: bool, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        self.network = network
        self.factors = nn.ParameterList(
            torch.empty(network.shape(letters), dtype=dtype, device=device) for letters in network.factors
        )
        self.bias = _empty(network.volume(network.outputs), dtype, device) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)
        rows = rows.reshape(rows.shape[0], *self.network.shape(self.network.inputs))
        letters = (ROWS + self.network.inputs, *self.network.factors)
        y = self._contracted([rows, *self.factors], letters, rows.shape[0])
        y = y.reshape(*x.shape[:-1], self.network.volume(self.network.outputs))
        return y if self.bias is None else y + self.bias

    def _contracted(self, tensors: Sequence[Tensor], letters: tuple[str, ...], rows: int) -> Tensor:
        count = max(rows, 1) if isinstance(rows, int) else MANY_ROWS
        return contract(tensors, letters, ROWS + self.network.outputs, ((ROWS, count), *self.network.sizes))

    def extra_repr(self) -> str:
        return ", ".join(self.network.factors) + f" -> {self.network.outputs}{self.network.inputs}"


class TensorEmbedding(TensorLinear):
    """An embedding held as a network of factors: each row is put together from slices, the table is never built."""

    def forward(self, x: Tensor) -> Tensor:
        """Indices (...) -> (..., out)."""
        inputs, factors = self.network.inputs, self.network.factors
        digits = self._digits(x.reshape(-1))
        tensors, letters = [], []
        for name, factor in zip(factors, self.factors, strict=True):
            own = [letter for letter in inputs if letter in name]
            rest = "".join(letter for letter in name if letter not in own)
            axes = [name.index(letter) for letter in (*own, *rest)]
            tensors.append(factor.permute(axes)[tuple(digits[letter] for letter in own)] if own else factor)
            letters.append(ROWS + rest if own else name)
        y = self._contracted(tensors, tuple(letters), x.numel())
        return y.reshape(*x.shape, self.network.volume(self.network.outputs))

    def _digits(self, index: Tensor) -> dict[str, Tensor]:
        """Each index as one digit per letter, the last letter running fastest."""
        found = {}
        for letter in reversed(self.network.inputs):
            size = self.network.size[letter]
            found[letter] = index % size
            index = index // size
        return found
