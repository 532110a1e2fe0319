"""The learning rate over a training, and how far the training is: counted in steps, in seconds, or in both."""

from dataclasses import dataclass
from math import cos, pi

FLOOR = 0.01
"""The last rate, as a share of the highest."""


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
