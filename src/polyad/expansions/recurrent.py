"""nn.LSTM, nn.GRU and nn.RNN with their weights as linear layers and the time loop in Python.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 1997; Cho et al., EMNLP 2014 (GRU); projected
LSTM: Sak et al., Interspeech 2014. Gates are in the order of PyTorch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from polyad.errors import DataError
from polyad.expansions.base import EXPANSIONS, Expansion, Parts, computed, linear

State = tuple[Tensor, ...]
"""(h,) or, for an LSTM, (h, c); each (n, features) for one layer and direction, (layers * directions, n, features)
for all."""


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, -1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), h.chunk(3, -1)
    new = (xn + (xr + hr).sigmoid() * hn).tanh()
    return (new + (xz + hz).sigmoid() * (state[0] - new),)


def _tanh(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).tanh(),)


def _relu(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).relu(),)


STEPS: dict[str, Callable[[Tensor, Tensor, State], State]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN_TANH": _tanh,
    "RNN_RELU": _relu,
}
"""Mode of nn.RNNBase -> one step: what input and state give, (n, gates) each, and the state before -> the next."""

ATTRIBUTES = (
    "mode",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
)


class Recurrent(nn.Module):
    """For every layer and direction: `ih` on all time steps at once, `hh` in the time loop, `hr` where h is projected.

    Their names are those of PyTorch's weights: `ih_l0`, `hh_l0`, `ih_l0_reverse`, ...
    """

    mode: str
    hidden_size: int
    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int

    def __init__(self, source: nn.RNNBase) -> None:
        super().__init__()
        for name in ATTRIBUTES:
            setattr(self, name, getattr(source, name))
        for name in source._flat_weights_names:  # weight_ih_l0, weight_hh_l0, weight_hr_l0_reverse ... and the biases
            kind, part = name.split("_", 1)
            if kind == "weight":
                self.add_module(part, linear(getattr(source, name), getattr(source, f"bias_{part}", None)))
        self.train(source.training)

    def forward(self, input: Tensor, hx: Tensor | State | None = None) -> tuple[Tensor, Tensor | State]:  # noqa: A002
        """Outputs of the last layer and the final state, as the module that this stands for gives them.

        Args:
            input: (t, n, features), (n, t, features) with batch_first, or (t, features).
            hx: initial h, for an LSTM (h, c), each (layers * directions, n, features), without n where the input has
                none; zeros by default.

        Raises:
            DataError: the input is a PackedSequence, or the initial state does not fit it.
        """
        if isinstance(input, PackedSequence):
            raise DataError("An expanded recurrent layer takes no PackedSequence: give padded tensors.")
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x
        state = self._initial(x, hx, batched)
        ends: list[State] = []
        for layer in range(self.num_layers):
            x = F.dropout(x, self.dropout, self.training) if layer else x
            outputs = []
            for suffix in self._suffixes(layer):
                found, end = self._run(suffix, x, tuple(part[len(ends)] for part in state))
                outputs.append(found)
                ends.append(end)
            x = torch.cat(outputs, -1)
        final = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        if not batched:
            x, final = x.squeeze(1), tuple(part.squeeze(1) for part in final)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, final if self.mode == "LSTM" else final[0]

    def flatten_parameters(self) -> None:
        """Nothing to do: networks call it on the module that this stands for."""

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"l{layer}", f"l{layer}_reverse") if self.bidirectional else (f"l{layer}",)

    def _run(self, suffix: str, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One layer in one direction: (t, n, features) -> (t, n, out) and the state behind the last step."""
        reverse = suffix.endswith("reverse")
        hh = self.get_submodule(f"hh_{suffix}")
        hr = self.get_submodule(f"hr_{suffix}") if self.proj_size else None
        steps = list(self.get_submodule(f"ih_{suffix}")(x).unbind(0))
        outputs = []
        for gates in reversed(steps) if reverse else steps:
            state = STEPS[self.mode](gates, hh(state[0]), state)
            state = state if hr is None else (hr(state[0]), *state[1:])
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs), state

    def _initial(self, x: Tensor, hx: Tensor | State | None, batched: bool) -> State:
        """The given state with a batch axis, or zeros."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size, *([self.hidden_size] if self.mode == "LSTM" else [])]
        shapes = [(count, x.shape[1], size) for size in sizes]
        if hx is None:
            return tuple(x.new_zeros(shape) for shape in shapes)
        given = tuple(hx) if self.mode == "LSTM" else (hx,)
        state: State = tuple(part if batched else part.unsqueeze(1) for part in given)  # type: ignore[union-attr]
        if (found := [tuple(part.shape) for part in state]) != shapes:
            raise DataError(f"The initial state has the shapes {found} (with a batch axis); expected {shapes}.")
        return state


def refuses(module: nn.Module, parts: Parts = ()) -> str | None:
    """Why this recurrent module cannot be expanded, or None."""
    return computed(module, *module._flat_weights_names)  # type: ignore[misc]


EXPANSIONS.register(
    "recurrent",
    Expansion(
        name="recurrent",
        summary="nn.LSTM, nn.GRU, nn.RNN: input, state and output weights as linear layers",
        types=(nn.LSTM, nn.GRU, nn.RNN),
        takes=lambda module: isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)),
        refuses=refuses,
        expand=lambda module, parts: Recurrent(module),  # type: ignore[arg-type]
    ),
)
