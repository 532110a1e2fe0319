"""What a person wants to keep: a budget names costs, each as a share of the original or an absolute amount."""

import re
from collections.abc import Mapping, Sequence

from polyad.errors import BudgetError
from polyad.memory import parse_memory
from polyad.records import Record

SUMS = ("params", "macs", "bytes", "latency")
"""Costs that add up over the layers."""

UNITS = (*SUMS, "memory")
"""Costs that can be limited; the memory of a network is a maximum over time, not a sum."""

IN_BYTES = ("bytes", "memory")

_SECONDS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
"""Units of time in nanoseconds, in which latencies are counted."""

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)")

_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[kKmMgG]?)")
_IN_BYTES = re.compile(r"\d+B|\d+(\.\d+)?\s*[kKmMgG]i?B")


class Budget(Record):
    """Always what is KEPT, of the whole network.

    A float up to 1 is a share of the original, an integer above 1 an absolute amount: `Budget(params=0.5)`,
    `Budget(params=135_000, macs=0.6)`. `bytes` are those of the saved tensors on disk, `memory` the peak of the
    activations of one sample in bytes, `latency` the measured time of one pass in nanoseconds. `drop` alone names a
    loss: so many points of accuracy, or per cent of perplexity, may be lost on validation data, and the least share is
    sought that keeps within it, of the parameters or of the unit that is named beside it.
    """

    params: float | int | None = None
    macs: float | int | None = None
    bytes: float | int | None = None
    memory: float | int | None = None
    latency: float | int | None = None
    drop: float | None = None

    def model_post_init(self, context: object) -> None:
        if self.drop is not None and not self.drop > 0:
            raise BudgetError(f"drop={self.drop} is no budget: give what may be lost, above 0, such as drop=0.5.")
        if not self.amounts and self.drop is None:
            raise BudgetError(f"A budget names at least one of {', '.join(UNITS)}, as in Budget(params=0.5).")
        for unit, amount in self.amounts.items():
            share = isinstance(amount, float) and amount <= 1
            if amount <= 0 or not (share or float(amount).is_integer()):
                raise BudgetError(
                    f"{unit}={amount} is no budget: give a share in (0, 1], such as {unit}=0.5, or a whole number."
                )

    @property
    def amounts(self) -> dict[str, float | int]:
        """The units whose kept amount is limited."""
        return {unit: amount for unit in UNITS if (amount := getattr(self, unit)) is not None}

    def limits(self, totals: Mapping[str, int]) -> dict[str, int]:
        """Absolute limits for a network whose costs are `totals`, of the units that these name."""
        return {
            # 33.3 % of 1000 is 333, also where the product comes out as 332.99999
            unit: int(amount * totals[unit] + 1e-6) if isinstance(amount, float) and amount <= 1 else int(amount)
            for unit, amount in self.amounts.items()
            if unit in totals
        }

    def __str__(self) -> str:
        parts = [] if self.drop is None else [f"drop={self.drop:g}"]
        for unit, amount in self.amounts.items():
            share = isinstance(amount, float) and amount <= 1
            whole = time_text(int(amount)) if unit == "latency" else str(int(amount))
            parts.append(f"{unit}={100 * amount:g}%" if share else f"{unit}={whole}")
        return ",".join(parts)

    @classmethod
    def parse(cls, texts: str | Sequence[str]) -> "Budget":
        """Read `params=50%`, `macs=60%,params=120k`, or a list of such texts.

        Raises:
            BudgetError: an unknown unit, a number without its unit, a share outside (0, 100] per cent.
        """
        texts = [texts] if isinstance(texts, str) else texts
        amounts: dict[str, float | int] = {}
        for part in ",".join(texts).split(","):
            unit, _, amount = (piece.strip() for piece in part.partition("="))
            if unit not in (*UNITS, "drop"):
                raise BudgetError(
                    f"{part.strip()!r} is no budget: write UNIT=AMOUNT with a unit of {', '.join(UNITS)}, or drop=0.5."
                )
            if unit in amounts:
                raise BudgetError(f"The budget names {unit} twice.")
            amounts[unit] = _drop(amount) if unit == "drop" else _amount(unit, amount)
        return cls(**amounts)


def parse_share(name: str, text: str) -> float:
    """Read a share such as 5%.

    Raises:
        BudgetError: it is none, or outside (0, 100] per cent.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or match[2] != "%" or not 0 < float(match[1]) <= 100:
        raise BudgetError(f"{name}={text} is no share: write a number above 0 and up to 100 with %, such as 5%.")
    return float(match[1]) / 100


def time_text(nanoseconds: int) -> str:
    """Nanoseconds as they are read back, to the last one: 2500000 -> 2.5ms."""
    whole, rest = divmod(nanoseconds, _SECONDS["ms"])
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".") + "ms"


def _time(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None or (found := round(float(match[1]) * _SECONDS[match[2]])) < 2:
        raise BudgetError(
            f"latency={text} is no budget: write latency=60% of the original, or a time such as latency=12ms or 300us."
        )
    return found


def _drop(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text) is None or not float(text) > 0:
        raise BudgetError(
            f"drop={text} is no budget: write the points of accuracy (per cent of perplexity) that may be lost, such as"
            " drop=0.5."
        )
    return float(text)


def _amount(unit: str, text: str) -> float | int:
    match = _PATTERN.fullmatch(text)
    if unit == "latency" and not text.endswith("%"):
        return _time(text)
    if match is None and unit in IN_BYTES and _IN_BYTES.fullmatch(text):
        return int(text[:-1]) if text[:-1].isdigit() else parse_memory(text)
    if match is None:
        example = "500kB" if unit in IN_BYTES else "120k"
        raise BudgetError(f"{unit}={text} is no budget: write {unit}=50% or an amount such as {unit}={example}.")
    number, suffix = float(match[1]), match[2].lower()
    if suffix == "%":
        if not 0 < number <= 100:
            raise BudgetError(f"{unit}={text} is no budget: what is kept lies above 0 % and at most at 100 %.")
        return number / 100
    amount = number * _FACTORS[suffix]
    if amount <= 1:
        raise BudgetError(f"{unit}={text} has no unit: write {unit}={100 * amount:g}% for a share of the original.")
    return int(amount)
