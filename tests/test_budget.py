"""Budgets: what is kept, always with a unit."""

import pytest

from polyad.budget import Budget, parse_share
from polyad.errors import BudgetError

TOTALS = {"params": 1000, "macs": 5000, "bytes": 4000, "memory": 2048, "latency": 4_000_000}


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        ("params=50%", {"params": 500}),
        (["params=33.3%", "macs=60%"], {"params": 333, "macs": 3000}),
        ("params=120k,macs=2M", {"params": 120_000, "macs": 2_000_000}),
        ("macs = 100 %", {"macs": 5000}),
        ("params=1.5k", {"params": 1500}),
        ("bytes=500kB", {"bytes": 500_000}),
        ("bytes=25%,memory=2MiB", {"bytes": 1000, "memory": 2 * 2**20}),
        ("memory=1.5MB,bytes=700B", {"memory": 1_500_000, "bytes": 700}),
        ("bytes=2M", {"bytes": 2_000_000}),
        ("latency=60%,params=50%", {"latency": 2_400_000, "params": 500}),
        ("latency=3ms", {"latency": 3_000_000}),
        ("latency=1.234567 ms", {"latency": 1_234_567}),
        ("latency=250us", {"latency": 250_000}),
        ("latency=0.5s", {"latency": 500_000_000}),
    ],
)
def test_what_is_understood(texts: str | list[str], limits: dict[str, int]) -> None:
    budget = Budget.parse(texts)
    assert budget.limits(TOTALS) == limits
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("parms=50%", "params, macs"),
        ("params=0.5", "params=50%"),
        ("params=1", "params=100%"),
        ("params=0%", "above 0 %"),
        ("params=101%", "at most at 100 %"),
        ("params=-5%", "params=50%"),
        ("params=half", "params=50%"),
        ("params", "params=50%"),
        ("params=5kB", "params=120k"),
        ("bytes=5xB", "bytes=500kB"),
        ("latency=3", "latency=12ms"),
        ("latency=3k", "latency=12ms"),
        ("latency=0ms", "latency=12ms"),
        ("latency=0%", "above 0 %"),
        ("params=50%,params=60%", "twice"),
        ("", "UNIT=AMOUNT"),
    ],
)
def test_what_is_not_says_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(BudgetError, match=says):
        Budget.parse(text)


def test_shares() -> None:
    assert parse_share("floor", "5%") == 0.05
    for wrong in ("5", "0%", "101%", "half", "5k"):
        with pytest.raises(BudgetError, match=r"floor=.* such as 5%"):
            parse_share("floor", wrong)


def test_python_budgets() -> None:
    assert Budget(params=0.5).limits(TOTALS) == {"params": 500}
    assert Budget(params=1.0).limits(TOTALS) == {"params": 1000}
    assert Budget(macs=120).limits(TOTALS) == {"macs": 120}
    for wrong in ({}, {"params": 0.0}, {"params": -0.5}, {"params": 1.5}, {"macs": 0}):
        with pytest.raises(BudgetError):
            Budget(**wrong)
