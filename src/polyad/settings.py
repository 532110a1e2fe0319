"""The choices of a compression: one schema for the command line, the Python call and the recipe file."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import TypedDict

from polyad.errors import BudgetError, PolyadError, UnknownNameError
from polyad.records import Rank, Record


class Training(Record):
    """How a recovery level that trains goes about it.

    Attributes:
        epochs: passes over the samples; `EPOCHS` where neither they nor the time are given.
        time: seconds of wall clock; the rate comes down by its end, whatever the number of epochs.
        batch: samples of one step of the optimiser.
        accumulate: parts in which a batch goes through the network, where the whole does not fit into memory.
        optimizer: "soap" (Adam in the eigenbases of each factor's gradients) or "adamw".
        rate: highest learning rate, with "soap" relative to the root mean square of each parameter's entries; by
            default the higher the farther the network is from what is wanted of it (`training.schedule.suited`), in
            a reconstruction the highest of these.
        warmup: share of the training in which the rate rises.
        decay: weight decay.
        clip: norm beyond which a gradient is cut, or None.
        average: decay of the moving average of the weights; 0 takes the weights as they are.
        device: where it is trained, as PyTorch names it; "auto": on a graphics card where there is one.
        precision: "float32" or "bfloat16" (what PyTorch's autocast computes in it).
        execution: how factorised layers run while they are trained, the same function each time: "factored",
            "contracted" into one dense layer, or for each of them what is quicker by a count ("auto").
        augment: how images are varied: "none", "shift", "flip" (and shift), "mix" (two of them, and both), or what the
            original itself bears, mixed where no labels are used ("auto").
        norms: "frozen" leaves batch norm in evaluation mode, its statistics as they are; "batch" lets it train.
        match: what a distillation of classes or tokens matches: the "divergence" of the softmax, or "logits" (less
            their mean over the classes).
        temperature: of that softmax.
        features: weight of what the blocks give, beside the outputs: the mean of their relative squared errors.
        labels: weight of the labels in a fine-tuning; the rest is the original's.
        blocks: names of modules that a reconstruction, or a distillation of features, takes as blocks, or patterns as
            in `Settings.ignore`; the others are found.
        sweeps: how often a refit goes through all layers; it ends where the held-out divergence no longer falls.
        patience: validations without an improvement that end it, or None.
        checkpoint: seconds between two checkpoints.
        compile: whether torch.compile is used.
        respend: share of a distillation or fine-tuning after which the budget is spent once more on what was learned
            (rank adaptation), where the network is compressed in the same run; 0 never.
        dense_control: whether the original gets the same recovery, as a measure of what is the recipe's own gain.
        seed: of the order of samples and of how they are varied.
    """

    epochs: int | None = None
    time: float | None = None
    batch: int = 128
    accumulate: int = 1
    optimizer: str = "soap"
    rate: float | None = None
    warmup: float = 0.1
    decay: float = 0.0
    clip: float | None = 1.0
    average: float = 0.99
    device: str = "auto"
    precision: str = "float32"
    execution: str = "auto"
    augment: str = "auto"
    norms: str = "frozen"
    match: str = "divergence"
    temperature: float = 1.0
    features: float = 0.0
    labels: float = 0.5
    blocks: tuple[str, ...] = ()
    sweeps: int = 1
    patience: int | None = None
    checkpoint: float = 120.0
    compile: bool = False
    respend: float = 0.0
    dense_control: bool = False
    seed: int = 0

    def model_post_init(self, context: object) -> None:
        for name, known in _NAMED.items():
            if (found := getattr(self, name)) not in known:
                raise UnknownNameError(f"There is no {name} {found!r} of a training. Known: {', '.join(known)}.")
        for name in ("epochs", "time", "batch", "accumulate", "rate", "temperature", "clip", "patience", "sweeps"):
            if (found := getattr(self, name)) is not None and not 0 < found < inf:
                raise PolyadError(f"{name}={found} of a training is no positive number.")
        if not 0 <= self.features < inf:
            raise PolyadError(f"features={self.features} of a training is no weight: give 0 or more.")
        for name in ("warmup", "average", "labels", "respend"):
            if not 0 <= getattr(self, name) <= 1:
                raise PolyadError(f"{name}={getattr(self, name)} of a training is no share: give 0 to 1.")

    @property
    def passes(self) -> int | None:
        """Epochs, the usual number where nothing else ends the training."""
        return EPOCHS if self.epochs is None and self.time is None else self.epochs


EPOCHS = 10

AUGMENTS = ("none", "shift", "flip", "mix")
"""How images are varied, each with what stands before it."""

_NAMED = {
    "precision": ("float32", "bfloat16"),
    "optimizer": ("soap", "adamw"),
    "execution": ("auto", "factored", "contracted"),
    "augment": ("auto", *AUGMENTS),
    "norms": ("frozen", "batch"),
    "match": ("divergence", "logits"),
}


class Options(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments of the public functions."""

    forms: Sequence[str] | None
    metric: str
    damage: str | None
    allocator: str
    floor: float
    finalists: int
    narrow: bool
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
    training: Training


class Settings(Record):
    """How a network is compressed.

    Attributes:
        forms: names of the forms on the menu, variants among them ("block_term/4"), or ("all",); by default those that
            `polyad forms` marks.
        metric: the norm of the fits, "inputs", "curvature", "weights" ... (`polyad metrics`).
        damage: what makes the errors of different layers comparable (`polyad damages`); by default what `assess` says.
        allocator: how the budget is spent.
        floor: the least share of a layer's parameters that is kept, from 0 to 1.
        finalists: how many plans, made by weighing damages differently, are compared as whole networks (1 to 8).
        narrow: whether channels between layers may be left out, beside the forms of single layers.
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
        training: how recovery levels that train go about it.
    """

    forms: tuple[str, ...] | None = None
    metric: str = "inputs"
    damage: str | None = None
    allocator: str = "knapsack"
    floor: float = 0.0
    finalists: int = 1
    narrow: bool = False
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
    training: Training = Training()

    def model_post_init(self, context: object) -> None:
        if not 0 <= self.floor <= 1:
            raise BudgetError(f"floor={self.floor} is no share: give a number from 0 to 1, such as floor=0.05.")
        if self.finalists < 1:
            raise BudgetError(f"finalists={self.finalists} compares nothing: give 1 for the plan alone, up to 8.")
        if self.memory is not None and self.memory <= 0:
            raise BudgetError(f"memory={self.memory} is no amount of memory: give bytes, such as 4_000_000_000.")
        for name in ("threads", "latency_batch"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise BudgetError(f"{name}={number} is too few: give a whole number from 1 on.")
