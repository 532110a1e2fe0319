"""What a damage is: a price on the error of a candidate, in a unit that all sites share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from polyad.batches import Batch
from polyad.menu import Candidate, Menu
from polyad.progress import Progress, silent
from polyad.records import Statistics
from polyad.registry import Registry
from polyad.work import NOTHING_KEPT, Work

Price = Callable[[Candidate], float]
"""The damage of a candidate that is not dense: at least 0, and never less for a larger error of the same site."""


@dataclass(frozen=True)
class Ground:
    """What a damage may look at beside the menu.

    Attributes:
        model: the original network, only read.
        statistics: from `observe`, by site.
        batches: inputs to measure on, those first that no fit has seen; empty where the data is a function.
        unseen: how many samples of them no fit has seen.
        work: where finished measurements are kept and found.
        progress: shows how far it is.
    """

    model: nn.Module
    statistics: Mapping[str, Statistics]
    batches: Sequence[Batch] = ()
    unseen: int = 0
    work: Work = NOTHING_KEPT
    progress: Progress = silent


@dataclass(frozen=True)
class Damage:
    """One way to price errors.

    Attributes:
        name: as on the command line.
        summary: one line.
        source: the paper.
        price: menu and ground -> the price of its candidates. What it returns is a function of the candidate's site and
            errors alone, so that one fitted menu can be priced in any way.
        needs_curvature: whether candidates have to know their nats, which takes gradients in `observe`.
        needs_batches: whether it runs the network.
    """

    name: str
    summary: str
    source: str
    price: Callable[[Menu, Ground], Price]
    needs_curvature: bool = False
    needs_batches: bool = False


DAMAGES: Registry[Damage] = Registry("damage", "polyad.damages")
