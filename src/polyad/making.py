"""Stage 5 as it is called: the network of a plan."""

from dataclasses import dataclass

from torch import nn

from polyad.looking import Observed, with_expansions_in_use
from polyad.narrow import narrow
from polyad.progress import Progress, silent
from polyad.rebuild import FINAL_STEPS, Factorised, factorise, rebuild
from polyad.records import Plan
from polyad.work import NOTHING_KEPT, Work


@dataclass(frozen=True)
class Made:
    """A compressed network, its plan, and how its parts were fitted."""

    student: nn.Module
    plan: Plan
    fitted: list[Factorised]


def make(
    model: nn.Module,
    plan: Plan,
    seen: Observed,
    *,
    steps: int = FINAL_STEPS,
    progress: Progress = silent,
    work: Work = NOTHING_KEPT,
) -> Made:
    """The compressed network of a plan, not recovered.

    Args:
        model: the original network; it is not changed.
        plan, seen: what was decided, and from what.
        steps: at most so many L-BFGS iterations of a fit.
        work: where finished fits are kept and found.
    """
    fitted = factorise(seen.expanded.model, plan, seen.statistics, steps=steps, progress=progress, work=work)
    student = rebuild(with_expansions_in_use(model, plan), fitted)
    return Made(student, plan, fitted + narrow(student, plan, seen.statistics))
