"""What is on offer: for every site the ways to carry it, what each costs and the damage it is predicted to do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from polyad.hidden import Narrowed
from polyad.records import Rank, Record, Site


class Candidate(Record):
    """One way to carry one site: its cost, and the damage it is predicted to do.

    Attributes:
        error: relative, in the norm that the fit minimises.
        damage: what allocators add up; before `assess` the relative error of its layers summed.
        held_out: the error on inputs that no fit has seen, or None.
        nats: what the curvature of the network predicts for the divergence of its outputs, where gradients are known.
        bytes: on disk.
        memory: the peak of the network's activations while the site runs, where a budget asks for it.
        latency: nanoseconds, where a budget asks for it.
    """

    site: str
    form: str
    rank: Rank
    params: int
    macs: int
    error: float
    damage: float
    bytes: int = 0
    memory: int = 0
    latency: int = 0
    held_out: float | None = None
    nats: float | None = None

    @property
    def unseen_error(self) -> float:
        """The relative error on held-out inputs where there are any, else on those of the fit."""
        return self.error if self.held_out is None else self.held_out


@dataclass(frozen=True)
class Narrowing:
    """Some of the channels between layers kept: one candidate for each site that gets narrower, chosen together; the
    reader's carries the damage."""

    narrowed: Narrowed
    candidates: Mapping[str, Candidate]

    @property
    def reader(self) -> Candidate:
        return self.candidates[self.narrowed.hidden.reader]


@dataclass(frozen=True)
class Menu:
    """For every site the candidates, the dense layer first unless the choice is given.

    `params`, `macs` and `bytes` are those of the whole network; `metric` is the norm of the fits, `damage` what damages
    are. `memory` is the peak of activations where a budget asks for it, `memory_elsewhere` that while no site runs,
    `latency` the nanoseconds of one pass where a budget asks for it.
    `suggested`, site -> form -> parameters, is what an allocator found in the network itself. A narrowing stands in for
    one candidate of each of its sites; only allocators that say so look at them.
    """

    sites: tuple[Site, ...]
    candidates: Mapping[str, tuple[Candidate, ...]]
    params: int
    macs: int
    metric: str
    bytes: int = 0
    memory: int = 0
    memory_elsewhere: int = 0
    latency: int = 0
    suggested: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    damage: str = "relative"
    narrowings: tuple[Narrowing, ...] = ()

    def mapped(self, change: Callable[[Candidate], Candidate]) -> "Menu":
        """The menu with another candidate for each, in a narrowing for that of the reader."""
        found = {site: tuple(map(change, options)) for site, options in self.candidates.items()}
        narrowings = tuple(
            replace(one, candidates={**one.candidates, one.reader.site: change(one.reader)}) for one in self.narrowings
        )
        return replace(self, candidates=found, narrowings=narrowings)

    def fixed(self, unit: str) -> int:
        """The cost of what no candidate changes."""
        return getattr(self, unit) - sum(getattr(site, unit) for site in self.sites)
