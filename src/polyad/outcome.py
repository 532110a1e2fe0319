"""What a compression comes to: costs, errors, quality. Frozen records, JSON-serialisable."""

from collections.abc import Mapping

from polyad.bench import Bench, Round
from polyad.records import Rank, Record, Refusal


class Evaluation(Record):
    """A network measured on labelled or unlabelled data.

    Attributes:
        metric, value: "accuracy" (per cent) with labels of classes, "perplexity" with tokens, else "divergence".
        loss: cross-entropy in nats for classes and tokens, else None.
        samples: how many, of tokens where those are predicted.
        divergence: mean KL in nats from the original (classes, tokens), else relative squared error of the outputs.
        changed: predictions that differ from the original's.
        difference: value minus the original's value, on the same samples.
        standard_error: of `difference`, paired.
    """

    metric: str
    value: float
    loss: float | None
    samples: int
    divergence: float | None = None
    changed: int | None = None
    difference: float | None = None
    standard_error: float | None = None


class SiteReport(Record):
    """One row of the report; errors are squared norms relative to the squared norm of the original."""

    name: str
    label: str
    form: str
    rank: Rank
    params_before: int
    params: int
    macs_before: int
    macs: int
    weight_error: float
    output_error: float | None
    held_out_error: float | None
    energy: tuple[float, ...] = ()
    why: str = ""


class FormRefusal(Record):
    """Sites that one form of the menu cannot carry, for one reason."""

    form: str
    reason: str
    sites: tuple[str, ...]


class Amount(Record):
    """A cost before and after."""

    before: int
    after: int

    @property
    def kept(self) -> float:
        return self.after / self.before if self.before else 1.0


class Latency(Amount):
    """Nanoseconds of one pass before and after, measured in turn.

    Attributes:
        predicted: the share kept by the table of single layers, None where the plan was not made on this bench.
        bench: where it was measured.
        rounds: the solutions that were measured before, the last of them that of the plan.
    """

    predicted: float | None = None
    bench: Bench
    rounds: tuple[Round, ...] = ()

    @property
    def error(self) -> float | None:
        """By how much of itself the prediction is off: above 0 where the network is faster than predicted."""
        return None if self.predicted is None else self.predicted / self.kept - 1


class CurvePoint(Record):
    """One network that a search for a drop has measured.

    Attributes:
        unit, share: the cost that was searched, and the share of it that is kept.
        drop: what it loses on validation data, in `loss_unit` ("points of accuracy"), with its `standard_error`.
        params, macs: of the whole network.
    """

    unit: str
    share: float
    drop: float
    standard_error: float | None
    loss_unit: str
    params: int
    macs: int

    @property
    def text(self) -> str:
        """What it loses, in words."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return f"{self.drop:.3g}{error} {self.loss_unit}"


class Report(Record):
    """All that is known about one compression: the report page and its JSON are two views of it.

    `memory` is the peak of the activations of one sample, `latency` what one pass takes, where the budget names them;
    `rule` is what the allocator's own rule came to, such as the multiplier; `curve` are the networks that a search for
    a drop has measured; `control` is the original after the same recovery, where that was asked for.
    """

    model: str
    budget: str
    metric: str
    damage: str = "relative"
    allocator: str
    recovery: str
    params: Amount
    macs: Amount
    bytes: Amount
    memory: Amount | None = None
    latency: Latency | None = None
    sites: tuple[SiteReport, ...]
    refused: tuple[Refusal, ...]
    form_refusals: tuple[FormRefusal, ...] = ()
    before: Evaluation | None = None
    after: Evaluation | None = None
    control: Evaluation | None = None
    recovered: tuple[str, ...] = ()
    seconds: Mapping[str, float] = {}
    provenance: Mapping[str, str] = {}
    rule: str = ""
    curve: tuple[CurvePoint, ...] = ()
