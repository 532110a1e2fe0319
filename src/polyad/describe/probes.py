"""Layers that a form is asked about, so that its page says what it carries."""

from polyad.layers import LayerSpec


def _conv(kernel: tuple[int, ...], **changes: object) -> LayerSpec:
    ones = (1,) * len(kernel)
    layer = LayerSpec(
        kind="conv",
        in_features=36,
        out_features=64,
        kernel=kernel,
        stride=ones,
        padding=tuple(length // 2 for length in kernel),
        dilation=ones,
    )
    return layer.model_copy(update=changes)


PROBES: dict[str, LayerSpec] = {
    "linear": LayerSpec(kind="linear", in_features=36, out_features=64),
    "embedding": LayerSpec(kind="embedding", in_features=36, out_features=64),
    "1x1 convolution": _conv((1, 1)),
    "3x3 convolution": _conv((3, 3)),
    "strided": _conv((3, 3), stride=(2, 2)),
    "dilated": _conv((3, 3), dilation=(2, 2), padding=(2, 2)),
    "grouped": _conv((3, 3), groups=4),
    "depthwise": _conv((3, 3), in_features=36, out_features=36, groups=36),
    "1-d convolution": _conv((3,)),
    "3-d convolution": _conv((3, 3, 3)),
    "transposed": _conv((3, 3), kind="conv_transpose", output_padding=(0, 0)),
    "stack of linear": LayerSpec(kind="linear", in_features=36, out_features=64, stack=4),
    "stack of 3x3 convolutions": _conv((3, 3), stack=4),
}
"""Numbers of channels are squares with many divisors, for forms that split them."""
