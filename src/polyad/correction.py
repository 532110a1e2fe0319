"""A limit of latency kept by the network itself: solve, measure, correct the limit that the table is given, again.

What a table of single layers predicts for a network may be off by some per cent, all the same for plans that are like
each other. So the limit that the allocator is given is moved until the network as measured keeps the one that was
asked for.
"""

from collections.abc import Callable, Sequence

from polyad.bench import Round
from polyad.errors import BudgetError
from polyad.records import Plan

ROUNDS = 5
"""At most so many networks are measured."""

CLOSE = 0.03
"""A network that takes at most so much less than the limit is close enough."""

AIM = 0.99
"""The share of the limit that is aimed at: a measurement is good for about a per cent."""

OVER = 1.005
"""A network is within the limit if it takes no more than so much of it, for the same reason."""


def corrected(
    limit: int, whole: int, decide: Callable[[int], Plan], measure: Callable[[Plan], int]
) -> tuple[Plan, tuple[Round, ...]]:
    """The plan whose network keeps a limit, and all that were measured, its own last.

    Args:
        limit: nanoseconds.
        whole: of the original network, which predicted and measured latencies have in common.
        decide: a limit on the predicted latency -> a plan.
        measure: a plan -> the latency of its network.

    Raises:
        BudgetError: the limit itself cannot be reached by the table. Where only a corrected one cannot, the plan that
            comes closest is given.
    """
    tried: dict[tuple, tuple[Plan, Round]] = {}
    asked = limit
    for _ in range(ROUNDS):
        try:
            plan = decide(asked)
        except BudgetError:
            if not tried:
                raise
            break
        same = tuple((choice.form, choice.rank) for choice in plan.choices)
        if same in tried:
            break
        tried[same] = plan, Round(predicted=plan.latency, measured=measure(plan))
        if (1 - CLOSE) * limit <= tried[same][1].measured <= OVER * limit:
            break
        asked = _next([found for _, found in tried.values()], round(AIM * limit), whole)
    best = min(tried, key=lambda same: _distance(tried[same][1].measured, limit))
    rounds = [found for same, (_, found) in tried.items() if same != best]
    return tried[best][0], (*rounds, tried[best][1])


def _next(rounds: Sequence[Round], aim: int, whole: int) -> int:
    """Where the predicted latency has to lie for the measured one to meet the aim.

    Straight between the two networks on both sides of it, the original among them; beyond the fastest one, on the line
    from the original through that one.
    """
    points = sorted((one.measured, one.predicted) for one in (*rounds, Round(predicted=whole, measured=whole)))
    above = next((at for at, (measured, _) in enumerate(points) if measured > aim), len(points) - 1)
    low, high = (points[above - 1], points[above]) if above else (points[0], points[-1])
    if high[0] == low[0]:
        return aim
    return max(round(low[1] + (aim - low[0]) * (high[1] - low[1]) / (high[0] - low[0])), 1)


def _distance(measured: int, limit: int) -> tuple[bool, int]:
    """Within the limit goes before beyond it, close before far."""
    return measured > OVER * limit, abs(measured - limit)
