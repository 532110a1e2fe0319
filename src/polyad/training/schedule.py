"""The learning rate, the highest and that over a training; how far a training is, in steps, in seconds, or in both."""

from dataclasses import dataclass
from math import cos, pi, sqrt

FLOOR = 0.01
"""The last rate, as a share of the highest."""

HIGHEST = {"soap": 2e-3, "adamw": 1e-3}
"""The highest rate by optimiser where none is given: that of SOAP is relative to the size of what is trained."""

LOWEST = 1e-3
"""Of the rates that are taken where none is given, as a share of the highest."""


def suited(figure: float, highest: float) -> float:
    """The highest rate for a network that is so far from what is wanted of it.

    Steps all have the size of the rate, so the noise that they leave in the outputs grows with it; what there is to win
    is of the size of the root of a divergence, or of a squared error relative to its energy. A rate at which the noise
    is larger undoes more than it brings.

    Args:
        figure: divergence in nats, or squared error relative to what the network makes itself, before the training.
        highest: the rate where nothing is right yet.
    """
    return highest * min(max(sqrt(max(figure, 0.0)), LOWEST), 1.0)


@dataclass(frozen=True)
class Extent:
    """How long a training lasts; whichever limit is reached first ends it.

    Attributes:
        steps: of the optimiser, or None.
        seconds: of wall clock, those of an interrupted run included, or None.
    """

    steps: int | None
    seconds: float | None

    def done(self, steps: int, seconds: float) -> float:
        """The share that lies behind, 1 at the end."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(steps / self.steps)
        if self.seconds is not None:
            shares.append(seconds / self.seconds)
        return min(max(shares), 1.0)


def rate_at(done: float, warmup: float) -> float:
    """The rate as a share of the highest: linear up to it, then half a cosine down to `FLOOR`.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.

    Args:
        done: how far the training is, 0 to 1.
        warmup: where the highest rate is reached.
    """
    if done < warmup:
        return max(done / warmup, FLOOR)
    part = (done - warmup) / max(1 - warmup, 1e-9)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + cos(pi * min(part, 1.0)))
