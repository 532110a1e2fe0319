"""Reasons why several forms refuse a layer."""

from math import prod

from polyad.layers import LayerSpec


def one_channel(layer: LayerSpec) -> str | None:
    """Why forms that mix channels refuse depthwise and single-channel layers."""
    _, out, inp, *_ = layer.weight_shape
    if out == 1 and inp == 1:
        return "it is depthwise: one input and one output channel per group leave no channels to mix"
    if out == 1 or inp == 1:
        return f"it has one {'output' if out == 1 else 'input'} channel per group, so its weight is a matrix: use svd"
    return None


def without_kernel(layer: LayerSpec) -> str | None:
    """Why forms of three and more modes refuse matrices."""
    if layer.matrix:
        return "its weight is a matrix, for which this form is the svd"
    if prod(layer.kernel) == 1:
        return "its kernel has one position, so its weight is a matrix: use svd"
    return None


def one_axis(layer: LayerSpec) -> str | None:
    """Why forms that part the kernel axes refuse layers with fewer than two."""
    if layer.dims < 2:
        return f"it needs two kernel axes to separate, and this layer has {layer.dims}"
    if layer.kernel[0] == 1 or prod(layer.kernel[1:]) == 1:
        return "one kernel axis has length 1, so nothing is left to separate: use cp, tucker2 or svd"
    return None
