"""Stage 4: one choice per site, within the budget."""

from polyad.allocators.base import ALLOCATORS, within
from polyad.budget import Budget
from polyad.errors import BudgetError
from polyad.records import DENSE, Candidate, Choice, Menu, Plan, Refusal, Site, rank_text


def allocate(menu: Menu, budget: Budget, *, allocator: str = "knapsack", refused: tuple[Refusal, ...] = ()) -> Plan:
    """Spend a budget on a menu.

    Args:
        menu: from `propose`.
        budget: what is kept, of the whole network.
        allocator: a registered name.
        refused: the layers that are no sites, for the record.

    Raises:
        BudgetError: the budget cannot be reached; the message names the reachable range.
        UnknownNameError: no such allocator.
    """
    check_reachable(menu, budget)
    fixed = {"params": menu.fixed_params, "macs": menu.fixed_macs}
    limits = budget.limits({"params": menu.params, "macs": menu.macs})
    own = {unit: limit - fixed[unit] for unit, limit in limits.items()}
    selection = ALLOCATORS[allocator].select(menu, own)
    if selection is None or not within(selection, own):
        raise BudgetError(
            f"The {allocator} allocator finds no plan that keeps {budget} at once, though each alone can be reached:"
            " raise one of them."
        )
    choices = tuple(_choice(site, selection[site.name], menu.candidates[site.name]) for site in menu.sites)
    return Plan(
        metric=menu.metric,
        damage=menu.damage,
        allocator=allocator,
        budget=str(budget),
        choices=choices,
        refused=refused,
        params_before=menu.params,
        macs_before=menu.macs,
    )


def check_reachable(menu: Menu, budget: Budget, *, margin: float = 0.0) -> None:
    """Raise BudgetError, with the reachable range, for a limit that the smallest candidates of all sites exceed.

    Args:
        menu: fitted, or the outline of one.
        budget: what is kept, of the whole network.
        margin: let a limit pass that is short by less than this share; for an outline, whose costs are not exact.
    """
    totals = {"params": menu.params, "macs": menu.macs}
    fixed = {"params": menu.fixed_params, "macs": menu.fixed_macs}
    for unit, limit in budget.limits(totals).items():
        smallest = fixed[unit] + sum(min(getattr(c, unit) for c in found) for found in menu.candidates.values())
        if limit < smallest * (1 - margin):
            whole = totals[unit]
            raise BudgetError(
                f"{unit}={limit:,} ({limit / whole:.1%} of {whole:,}) cannot be reached: what these forms offer here"
                f" keeps from {smallest:,} ({smallest / whole:.1%}) to {whole:,} (100 %)."
            )


def _choice(site: Site, taken: Candidate, options: tuple[Candidate, ...]) -> Choice:
    return Choice(
        site=site,
        form=taken.form,
        rank=taken.rank,
        params=taken.params,
        macs=taken.macs,
        damage=taken.damage,
        why=_why(site, taken, options),
    )


def _why(site: Site, taken: Candidate, options: tuple[Candidate, ...]) -> str:
    """What the best other form would have done at no more parameters, or why the layer stays dense."""
    others = [option for option in options if option.form not in (taken.form, DENSE)]
    if taken.form == DENSE:
        return "its parameters count for more than those of other layers" if others else "no form carries it with less"
    if len(options) == 1:
        return "given"
    text = f"{taken.form} with a damage of {taken.damage:.3g} at {taken.params / site.params:.0%}"
    rivals = [option for option in others if option.params <= taken.params]
    if not rivals:
        return text + "; no other form is as small"
    rival = min(rivals, key=lambda c: (c.damage, c.form, c.rank))
    return text + f"; next best {rival.form} {rank_text(rival.rank)}: {rival.damage:.3g}"
