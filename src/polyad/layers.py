"""A standard PyTorch layer as a value: what it is, what it costs, how to build it, how its weight is laid out.

A site is described by one `LayerSpec`, a factorised site by a sequence of them.

The *canonical* weight of any layer is `(groups, out, in, *kernel)`, with `out` and `in` counted per group. For a
transposed convolution PyTorch stores `(in, out / groups, *kernel)`, for an embedding `(in, out)`: a look-up is the
product with a one-hot row. The canonical form hides the differences.

A *stack* is several layers of one shape that share factors. Its canonical weight holds their groups one after another.
"""

from math import prod
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from polyad.errors import FormError

Size = tuple[int, ...]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class LayerSpec(BaseModel):
    """A linear layer, an embedding, or a (transposed) convolution of one to three dimensions; or a stack of one.

    `transposed` is a linear layer that stores its weight as (in, out): the Conv1D of transformers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear", "embedding", "conv", "conv_transpose"]
    in_features: int
    out_features: int
    bias: bool = False
    kernel: Size = ()
    stride: Size = ()
    padding: Size | Literal["same", "valid"] = ()
    output_padding: Size = ()
    dilation: Size = ()
    groups: int = 1
    padding_mode: str = "zeros"
    transposed: bool = False
    stack: int = 1

    if TYPE_CHECKING:  # pydantic adds it to frozen models

        def __hash__(self) -> int: ...

    @property
    def member(self) -> "LayerSpec":
        """One layer of a stack."""
        return self if self.stack == 1 else self.model_copy(update={"stack": 1})

    @property
    def matrix(self) -> bool:
        """Whether the layer has no kernel axes at all."""
        return self.kind in ("linear", "embedding")

    @property
    def dims(self) -> int:
        """Number of spatial dimensions; 0 for a linear layer or an embedding."""
        return len(self.kernel)

    @property
    def label(self) -> str:
        """The class name in torch.nn (or transformers); of a stack with the number of its layers."""
        if self.stack > 1:
            return f"{self.stack} x {self.member.label}"
        if self.matrix:
            return "Conv1D" if self.transposed else self.kind.capitalize()
        return ("Conv" if self.kind == "conv" else "ConvTranspose") + f"{self.dims}d"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Canonical shape (groups, out, in, *kernel); the groups of all layers of a stack."""
        return (
            self.stack * self.groups,
            self.out_features // self.groups,
            self.in_features // self.groups,
            *self.kernel,
        )

    @property
    def weight_params(self) -> int:
        return prod(self.weight_shape)

    @property
    def params(self) -> int:
        """Weight and bias."""
        return self.weight_params + (self.stack * self.out_features if self.bias else 0)

    def narrower(self, outputs: int, inputs: int) -> "LayerSpec":
        """The same layer with fewer channels; a depthwise one stays depthwise."""
        groups = outputs if self.groups > 1 else 1
        return self.model_copy(update={"out_features": outputs, "in_features": inputs, "groups": groups})

    def canonical(self, weight: Tensor) -> Tensor:
        """PyTorch layout -> (groups, out, in, *kernel), of one layer."""
        groups, out, inp, *kernel = self.weight_shape
        if self.kind == "embedding":
            return weight.t().unsqueeze(0)
        if self.kind == "conv_transpose":
            return weight.reshape(groups, inp, out, *kernel).transpose(1, 2)
        return (weight.t() if self.transposed else weight).reshape(self.weight_shape)

    def native(self, weight: Tensor) -> Tensor:
        """(groups, out, in, *kernel) -> PyTorch layout, of one layer."""
        groups, out, inp, *kernel = self.weight_shape
        weight = weight.reshape(self.weight_shape)
        if self.kind == "embedding":
            return weight[0].t()
        if self.kind == "linear":
            return weight.reshape(out, inp).t() if self.transposed else weight.reshape(out, inp)
        if self.kind == "conv_transpose":
            return weight.transpose(1, 2).reshape(groups * inp, out, *kernel)
        return weight.reshape(groups * out, inp, *kernel)

    def output_size(self, size: Size) -> Size:
        """Spatial size (or leading positions of a linear layer or embedding) behind this layer."""
        if self.matrix:
            return size
        return tuple(self._output_length(axis, length) for axis, length in enumerate(size))

    def _output_length(self, axis: int, length: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        if self.padding == "same":
            return length
        pad = 0 if isinstance(self.padding, str) else self.padding[axis]
        if self.kind == "conv":
            return (length + 2 * pad - reach - 1) // self.stride[axis] + 1
        extra = self.output_padding[axis] if self.output_padding else 0
        return (length - 1) * self.stride[axis] - 2 * pad + reach + extra + 1

    def macs(self, size: Size) -> int:
        """Multiply-accumulates of one layer for one sample of spatial size `size`; bias and look-ups count nothing."""
        if self.kind == "embedding":
            return 0
        positions = size if self.kind == "conv_transpose" else self.output_size(size)
        return self.member.weight_params * prod(positions)

    def build(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> nn.Module:
        """The layer itself (one of a stack), its parameters not yet filled with anything meaningful."""
        if self.transposed:
            raise FormError("transformers builds a Conv1D, not Polyad: build an ordinary linear layer.")
        if self.kind == "embedding":
            return nn.Embedding(self.in_features, self.out_features, dtype=dtype, device=device)
        options = {"bias": self.bias, "dtype": dtype, "device": device}
        if self.kind == "linear":
            return nn.Linear(self.in_features, self.out_features, **options)
        options |= {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        options |= {"groups": self.groups, "padding_mode": self.padding_mode}
        if self.kind == "conv":
            return _CONV[self.dims](self.in_features, self.out_features, self.kernel, **options)
        options["output_padding"] = self.output_padding or 0
        return _CONV_TRANSPOSE[self.dims](self.in_features, self.out_features, self.kernel, **options)

    @classmethod
    def of(cls, module: nn.Module) -> "LayerSpec":
        """Describe an nn.Linear, nn.Embedding, nn.Conv*d, nn.ConvTranspose*d (or a subclass with its attributes) or a
        Conv1D."""
        if isinstance(module, nn.Embedding):
            return cls(kind="embedding", in_features=module.num_embeddings, out_features=module.embedding_dim)
        if is_conv1d(module):
            inp, out = map(int, module.weight.shape)  # type: ignore[union-attr, arg-type]
            return cls(kind="linear", in_features=inp, out_features=out, bias=module.bias is not None, transposed=True)
        if isinstance(module, nn.Linear):
            return cls(
                kind="linear",
                in_features=module.in_features,
                out_features=module.out_features,
                bias=module.bias is not None,
            )
        transposed = isinstance(module, tuple(_CONV_TRANSPOSE.values()))
        return cls(
            kind="conv_transpose" if transposed else "conv",
            in_features=module.in_channels,  # type: ignore[arg-type]
            out_features=module.out_channels,  # type: ignore[arg-type]
            bias=module.bias is not None,
            kernel=module.kernel_size,  # type: ignore[arg-type]
            stride=module.stride,  # type: ignore[arg-type]
            padding=module.padding,  # type: ignore[arg-type]
            output_padding=module.output_padding if transposed else (),  # type: ignore[arg-type]
            dilation=module.dilation,  # type: ignore[arg-type]
            groups=module.groups,  # type: ignore[arg-type]
            padding_mode=module.padding_mode,  # type: ignore[arg-type]
        )


LAYER_TYPES = (nn.Linear, nn.Embedding, *_CONV.values(), *_CONV_TRANSPOSE.values())


def conv1d_class(module: nn.Module) -> type[nn.Module] | None:
    """The Conv1D of transformers that a module is an instance of, known without importing transformers, or None.

    It is a linear layer: `y = x W + b` with W (in, out) and `nf` outputs.
    """
    for kind in type(module).__mro__:
        if (kind.__module__, kind.__name__) == ("transformers.pytorch_utils", "Conv1D"):
            weight = getattr(module, "weight", None)
            return kind if hasattr(module, "nf") and isinstance(weight, Tensor) and weight.dim() == 2 else None
    return None


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is a Conv1D of transformers."""
    return conv1d_class(module) is not None


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer that `LayerSpec` describes."""
    return isinstance(module, LAYER_TYPES) or is_conv1d(module)
