"""The choices of a compression: one schema for the command line, the Python call and the recipe file."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from polyad.errors import BudgetError
from polyad.records import Rank, Record


class Options(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments of the public functions."""

    forms: Sequence[str] | None
    metric: str
    damage: str | None
    allocator: str
    floor: float
    recover: str
    samples: int
    round_to: int
    ignore: Sequence[str]
    fixed: Mapping[str, tuple[str, Rank]]
    stack: Sequence[str]
    split: Mapping[str, int | tuple[int, ...]]
    memory: int | None
    runtime: str
    threads: int | None
    latency_batch: int
    seed: int


class Settings(Record):
    """How a network is compressed.

    Attributes:
        forms: names of the forms on the menu, variants among them ("block_term/4"), or ("all",); by default those that
            `polyad forms` marks.
        metric: the norm of the fits, "inputs", "curvature", "weights" ... (`polyad metrics`).
        damage: what makes the errors of different layers comparable (`polyad damages`); by default what `assess` says.
        allocator: how the budget is spent.
        floor: the least share of a layer's parameters that is kept, from 0 to 1.
        recover: the recovery level.
        samples: calibration samples; a fifth of them are held out from every fit.
        round_to: ranks are multiples of this.
        ignore: layers left alone: names, wildcards such as `layer1.*`, or regular expressions such as
            `re:.*downsample.*`.
        stack: layers of one shape that are replaced together and may share factors: a pattern each, as in `ignore`.
        fixed: layers whose choice is given: name -> ("dense", ()) or (form, rank).
        split: linear layers that make several things side by side, to be treated as one layer for each: a pattern as in
            `ignore` -> how many equal parts, or the size of each.
        memory: bytes that the statistics of the layers may take at once, what goes beyond it lying on disk; no limit by
            default. The result does not depend on it.
        runtime: what runs the network where a budget names its latency (`polyad runtimes`).
        threads: that the runtime takes; as many as PyTorch does by default.
        latency_batch: samples in one pass whose latency is measured.
        seed: of everything random.
    """

    forms: tuple[str, ...] | None = None
    metric: str = "inputs"
    damage: str | None = None
    allocator: str = "knapsack"
    floor: float = 0.0
    recover: str = "statistics"
    samples: int = 256
    round_to: int = 1
    ignore: tuple[str, ...] = ()
    fixed: dict[str, tuple[str, Rank]] = {}
    stack: tuple[str, ...] = ()
    split: dict[str, int | tuple[int, ...]] = {}
    memory: int | None = None
    runtime: str = "eager"
    threads: int | None = None
    latency_batch: int = 1
    seed: int = 0

    def model_post_init(self, context: object) -> None:
        if not 0 <= self.floor <= 1:
            raise BudgetError(f"floor={self.floor} is no share: give a number from 0 to 1, such as floor=0.05.")
        if self.memory is not None and self.memory <= 0:
            raise BudgetError(f"memory={self.memory} is no amount of memory: give bytes, such as 4_000_000_000.")
        for name in ("threads", "latency_batch"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise BudgetError(f"{name}={number} is too few: give a whole number from 1 on.")
