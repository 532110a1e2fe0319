"""The records that pass between stages: frozen, and JSON-serialisable where they cross a file."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from polyad.bench import Timed
from polyad.hidden import Narrowed
from polyad.layers import LayerSpec, Size
from polyad.steps import Step
from polyad.storage import itemsize

Rank = tuple[int, ...]

PLAN_VERSION = 1
"""Schema of plan.json; raised when a field changes its meaning."""

DENSE = "dense"
"""The form that keeps a layer as it is; its rank is the empty tuple."""

NARROW = "narrow"
"""The form of a layer that stays one plain layer with fewer channels; its rank is (outputs, inputs)."""


class Record(BaseModel):
    """A frozen value that knows its JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(Record):
    """How often one forward pass of one sample runs a layer on an input of one spatial size."""

    size: Size
    times: int = 1


class Site(Record):
    """A layer that can be replaced.

    Attributes:
        name: dotted module name, the first one under which the module is registered; of a stack the pattern.
        members: of a stack, the names of its layers in order.
        aliases: further names of the same module object.
        layer: what the layer is.
        dtype: of its weight, as in "float32".
        runs: spatial sizes of its inputs (the positions in front of the last axis for a linear layer), one sample.
        norm_behind: the batch norm that alone consumes its output, or None.
        latency: nanoseconds of all its runs in one pass, where a budget asks for it; else 0.
    """

    name: str
    layer: LayerSpec
    dtype: str
    runs: tuple[Run, ...]
    aliases: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    norm_behind: str | None = None
    latency: int = 0

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that it stands for: one, or those of a stack."""
        return self.members or (self.name,)

    @property
    def params(self) -> int:
        return self.layer.params

    @property
    def macs(self) -> int:
        """For one sample, all runs together."""
        return sum(run.times * self.layer.macs(run.size) for run in self.runs)

    @property
    def bytes(self) -> int:
        """On disk, in the type of its weight."""
        return self.params * itemsize(self.dtype)

    @property
    def calls(self) -> int:
        """How often one forward pass runs it."""
        return sum(run.times for run in self.runs)

    @property
    def bias_may_move(self) -> bool:
        """Whether a constant shift of the output can be absorbed: by its own bias or by the batch norm behind."""
        return self.layer.bias or self.norm_behind is not None


class Refusal(Record):
    """A layer that cannot be replaced, and why."""

    name: str
    label: str
    params: int
    macs: int
    reason: str


class Trace(Record):
    """What `trace` found: every linear and convolution layer is either a site or refused.

    `params` counts the whole network (tied weights once); `macs` its linear and convolution layers, for one sample.
    """

    sites: tuple[Site, ...]
    refused: tuple[Refusal, ...]
    params: int
    macs: int
    bytes: int

    def site(self, name: str) -> Site:
        return next(site for site in self.sites if site.name == name)


@dataclass(frozen=True)
class Statistics:
    """Second moments of what a site sees, per group.

    Attributes:
        count: number of patches (rows) seen.
        mean: (groups, n) float64, n = in * prod(kernel) per group.
        moment: (groups, n, n) float64, E[x x']; (groups, n), its diagonal, for the one-hot rows of an embedding.
        held_out: the same moment over images that no fit looks at, or None.
        held_out_mean: likewise.
        noise: (groups,) sum of the squared errors that correlations in `moment` are expected to have; None for a
            diagonal, and for a single sample.
        curvature: (groups, out, out) float64, second moment of the gradients at the outputs, summed over the positions
            of a sample, labels drawn from the network's own prediction; or None.
    """

    count: int
    mean: Tensor
    moment: Tensor
    held_out: Tensor | None = None
    held_out_mean: Tensor | None = None
    noise: Tensor | None = None
    curvature: Tensor | None = None


class Preprocessing(Record):
    """How pixels become inputs: resize the shorter side and crop the middle to `size` (height, width) where one is
    given, scale to [0, 1], subtract `mean`, divide by `std` (one value per channel, or one for all). How text does: by
    the file `tokenizer`, in the number of `tokens` that the network knows, at most `context` of them at once."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    tokenizer: str | None = None
    tokens: int | None = None
    context: int | None = None


class Choice(Record):
    """What the plan decides for one site."""

    site: Site
    form: str
    rank: Rank
    params: int
    macs: int
    damage: float
    why: str
    bytes: int = 0
    latency: int = 0

    @property
    def dense(self) -> bool:
        """Whether it is a plain layer still, if perhaps a narrower one."""
        return self.form in (DENSE, NARROW)


class Plan(Record):
    """One choice per site: can be printed, saved as JSON, edited by hand and replayed.

    `model` is the specification that builds the architecture ("zoo:resnet20"), empty for a network of one's own;
    `timed` is where and what latencies were measured, where the budget names one; `expanded` are the modules, by name
    and in order, in whose expansions sites lie; `narrowed` are the channels between layers of which only some are kept;
    `rule` is what the allocator's own rule came to, such as the multiplier.
    """

    version: int = PLAN_VERSION
    model: str = ""
    metric: str
    damage: str = "relative"
    allocator: str
    budget: str
    choices: tuple[Choice, ...]
    refused: tuple[Refusal, ...] = ()
    expanded: dict[str, Step] = {}
    narrowed: tuple[Narrowed, ...] = ()
    params_before: int
    macs_before: int
    bytes_before: int = 0
    timed: Timed | None = None
    rule: str = ""

    @property
    def params(self) -> int:
        """Of the whole network, after."""
        norms = sum(one.removed * one.hidden.params for one in self.narrowed)
        return self.params_before + sum(c.params - c.site.params for c in self.choices) - norms

    @property
    def macs(self) -> int:
        """Of the whole network for one sample, after."""
        return self.macs_before + sum(c.macs - c.site.macs for c in self.choices)

    @property
    def bytes(self) -> int:
        """Of the whole network on disk, after."""
        norms = sum(one.removed * one.hidden.bytes for one in self.narrowed)
        return self.bytes_before + sum(c.bytes - c.site.bytes for c in self.choices) - norms

    @property
    def latency(self) -> int:
        """Predicted nanoseconds of one pass, after; 0 where none were measured."""
        return self.timed.before + sum(c.latency - c.site.latency for c in self.choices) if self.timed else 0

    def __str__(self) -> str:
        rows = [f"{'site':30} {'form':12} {'rank':>10} {'params kept':>12} {'macs kept':>10} {'damage':>8}"]
        for c in self.choices:
            rows.append(
                f"{c.site.name:30} {c.form:12} {rank_text(c.rank):>10} {c.params / c.site.params:>12.1%}"
                f" {c.macs / max(c.site.macs, 1):>10.1%} {c.damage:>8.4f}"
            )
        rows.append(
            f"{len(self.choices)} sites; parameters {self.params_before} -> {self.params}"
            f" ({self.params / self.params_before:.1%} kept), MACs {self.macs_before} -> {self.macs}"
            f" ({self.macs / self.macs_before:.1%} kept)"
        )
        if self.rule:
            rows.append(f"{self.allocator}: {self.rule}")
        if self.timed:
            rows += self.timed.lines(self.latency)
        return "\n".join(rows)


def rank_text(rank: Rank) -> str:
    """(8, 12) -> "8x12"; () -> "-"."""
    return "x".join(map(str, rank)) or "-"
