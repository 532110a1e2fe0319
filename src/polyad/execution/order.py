"""In which order a convolution meets its factors.

The input carries its channels; each factor is applied as one small convolution that sums over the letters nobody needs
any more, keeps the letters that others still need (as groups), and brings new ones. The cheapest order is found exactly
by dynamic programming over the sets of factors applied so far. Letters of the channels that a factor does not have are
spectators: the factor is applied to each of their values alike.
"""

from dataclasses import dataclass
from functools import cache
from math import prod

from polyad.execution.network import KERNEL, Network, kernel_axes
from polyad.layers import LayerSpec, Size

NOMINAL = 32
"""Length of every axis of the input for which orders are compared; only strides make it matter."""


@dataclass(frozen=True)
class Step:
    """One factor applied to what has been computed so far.

    Attributes:
        factor: its position.
        before: letters of the channels in the order in which they arrive.
        spectators, batch, contracted, new: letters, in the order in which the layer sees them.
        layer: the layer that applies it to each value of the spectators.
    """

    factor: int
    before: str
    spectators: str
    batch: str
    contracted: str
    new: str
    layer: LayerSpec

    @property
    def after(self) -> str:
        """Letters of the channels behind it, in order."""
        return self.spectators + self.batch + self.new

    @property
    def wanted(self) -> str:
        """The order in which the layer wants the channels that arrive."""
        return self.spectators + self.batch + self.contracted


@cache
def steps(network: Network, layer: LayerSpec) -> tuple[Step, ...]:
    """The factors in the order that needs the fewest multiply-accumulates.

    Args:
        network: the factors; `layer.groups` is one of its letters where there are several groups.
        layer: the layer that they replace (one of a stack).
    """
    order = _cheapest(network, layer)
    found: list[Step] = []
    channels = network.inputs
    for at, factor in enumerate(order):
        later = order[at + 1 :]
        spectators, batch, contracted, new = _roles(network, channels, factor, later)
        if later:  # so that the next factor finds its letters in the order in which it wants them
            ahead = _roles(network, spectators + batch + new, later[0], later[1:])
            new = "".join(sorted(new, key=lambda letter: next(i for i, role in enumerate(ahead) if letter in role)))
        else:
            new = "".join(sorted(new, key=network.outputs.index))
        axes = kernel_axes(network.factors[factor], layer.dims)
        sizes = (network.volume(batch), network.volume(contracted), network.volume(new))
        part = _part(layer, axes, *sizes)
        found.append(Step(factor, channels, spectators, batch, contracted, new, part))
        channels = found[-1].after
    return tuple(found)


def _roles(network: Network, channels: str, factor: int, later: tuple[int, ...]) -> tuple[str, str, str, str]:
    """(spectators, batch, contracted, new) of a factor; each in the order of the channels."""
    letters = network.factors[factor]
    needed = set(network.outputs).union(*(network.factors[other] for other in later))
    spectators = "".join(letter for letter in channels if letter not in letters)
    met = [letter for letter in channels if letter in letters]
    batch = "".join(letter for letter in met if letter in needed)
    contracted = "".join(letter for letter in met if letter not in needed)
    new = "".join(letter for letter in letters if letter not in channels and letter not in KERNEL)
    return spectators, batch, contracted, new


def _cheapest(network: Network, layer: LayerSpec) -> tuple[int, ...]:
    """The best order: for every set of applied factors only the cheapest way to get there is followed further."""
    count = len(network.factors)
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for done in range(1 << count):
        if done not in best:
            continue
        cost, order = best[done]
        channels, size = _state(network, layer, order)
        for factor in range(count):
            if done >> factor & 1:
                continue
            later = tuple(other for other in range(count) if other != factor and not done >> other & 1)
            total = cost + _macs(network, layer, _roles(network, channels, factor, later), factor, size)
            reached = done | 1 << factor
            if reached not in best or total < best[reached][0]:
                best[reached] = (total, (*order, factor))
    return best[(1 << count) - 1][1]


def _state(network: Network, layer: LayerSpec, order: tuple[int, ...]) -> tuple[str, Size]:
    """Channel letters and spatial size once some factors are applied; neither depends on their order."""
    rest = [letters for at, letters in enumerate(network.factors) if at not in order]
    needed = set(network.outputs).union(*rest)
    present = dict.fromkeys(network.inputs)
    done = set()
    for factor in order:
        present |= dict.fromkeys(letter for letter in network.factors[factor] if letter not in KERNEL)
        done |= set(kernel_axes(network.factors[factor], layer.dims))
    untouched = {letter for letter in network.inputs if not any(letter in network.factors[at] for at in order)}
    channels = "".join(letter for letter in present if letter in needed or letter in untouched)
    behind = layer.output_size((NOMINAL,) * layer.dims)
    return channels, tuple(behind[axis] if axis in done else NOMINAL for axis in range(layer.dims))


def _macs(network: Network, layer: LayerSpec, roles: tuple[str, str, str, str], factor: int, size: Size) -> int:
    axes = kernel_axes(network.factors[factor], layer.dims)
    behind = layer.output_size((NOMINAL,) * layer.dims)
    if layer.kind != "conv_transpose":
        size = tuple(behind[axis] if axis in axes else length for axis, length in enumerate(size))
    kernel = prod(layer.kernel[axis] for axis in axes)
    return prod(network.volume(letters) for letters in roles) * kernel * prod(max(length, 1) for length in size)


def _part(layer: LayerSpec, axes: tuple[int, ...], batch: int, contracted: int, new: int) -> LayerSpec:
    """The layer of one step: the geometry of the whole layer along some kernel axes, neutral along the others.

    Padding is separable too: each of PyTorch's padding modes fills an axis from that axis alone, and no part but the
    last has a bias that would turn zeros into something else.
    """
    changes: dict[str, object] = {"bias": False, "stack": 1, "transposed": False}
    changes |= {"in_features": batch * contracted, "out_features": batch * new, "groups": batch}
    if layer.matrix:
        return layer.model_copy(update=changes | {"kind": "linear"})

    def along(values: Size, neutral: int) -> Size:
        return tuple(value if axis in axes else neutral for axis, value in enumerate(values))

    changes |= {"kernel": along(layer.kernel, 1), "stride": along(layer.stride, 1)}
    changes |= {"dilation": along(layer.dilation, 1), "output_padding": along(layer.output_padding, 0)}
    if not isinstance(layer.padding, str):
        changes["padding"] = along(layer.padding, 0)
    if not axes:
        changes |= {"kind": "conv", "padding": (0,) * layer.dims, "output_padding": (), "padding_mode": "zeros"}
    return layer.model_copy(update=changes)
