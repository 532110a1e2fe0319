"""Stage 4: one choice per site, within the budget."""

from collections.abc import Mapping
from dataclasses import replace

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, by_damage, total, within
from polyad.budget import SUMS, Budget
from polyad.errors import BudgetError
from polyad.menu import Candidate, Menu
from polyad.records import DENSE, NARROW, Choice, Plan, Refusal, Site, rank_text


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
    menu = within_memory(menu, budget)
    if budget.latency is not None and not menu.latency:
        raise BudgetError("A budget of latency needs the menu to know its latencies: price it with `Latencies` first.")
    check_reachable(menu, budget)
    own = {unit: limit - menu.fixed(unit) for unit, limit in budget.limits(_totals(menu)).items()}
    chosen = check_limits(allocator, budget)
    selection = chosen.select(menu, own) if own else smallest_damage(menu)
    if selection is None or not within(selection, own):
        raise BudgetError(
            f"The {allocator} allocator finds no plan that keeps {budget} at once, though each alone can be reached:"
            f" {_binding(menu, budget, own)}."
        )
    choices = tuple(_choice(site, selection[site.name], menu.candidates[site.name]) for site in menu.sites)
    return Plan(
        metric=menu.metric,
        damage=menu.damage,
        allocator=allocator,
        budget=str(budget),
        choices=choices,
        narrowed=tuple(one.narrowed for one in menu.narrowings if selection[one.reader.site] == one.reader),
        refused=refused,
        params_before=menu.params,
        macs_before=menu.macs,
        bytes_before=menu.bytes,
        rule=chosen.tell(menu, own, selection) if own else "",
    )


def check_limits(allocator: str, budget: Budget) -> Allocator:
    """The allocator; BudgetError where it takes fewer limits than a budget names."""
    chosen = ALLOCATORS[allocator]
    if not chosen.several and len([unit for unit in budget.amounts if unit in SUMS]) > 1:
        raise BudgetError(f"The {allocator} allocator spends one limit, not {budget}: name one, or take knapsack.")
    return chosen


def with_floor(menu: Menu, floor: float) -> Menu:
    """The menu without candidates that keep less than a share of their layer's parameters; given choices stay."""
    if not floor:
        return menu
    least = {site.name: floor * site.params for site in menu.sites}
    kept = {
        site: options if len(options) == 1 else tuple(c for c in options if c.params >= least[site])
        for site, options in menu.candidates.items()
    }
    wide = [n for n in menu.narrowings if all(c.params >= least[c.site] for c in n.candidates.values())]
    return replace(menu, candidates=kept, narrowings=tuple(wide))


def check_reachable(menu: Menu, budget: Budget, *, margin: float = 0.0) -> None:
    """Raise BudgetError, with the reachable range, for a limit that the smallest candidates of all sites exceed.

    Args:
        menu: fitted, or the outline of one.
        budget: what is kept, of the whole network.
        margin: let a limit pass that is short by less than this share; for an outline, whose costs are not exact.
    """
    totals, memory = _totals(menu), "" if budget.memory is None else " within the limit of memory"
    for unit, limit in budget.limits(totals).items():
        smallest = menu.fixed(unit) + sum(min(getattr(c, unit) for c in found) for found in menu.candidates.values())
        if limit < smallest * (1 - margin):
            whole = totals[unit]
            raise BudgetError(
                f"{unit}={limit:,} ({limit / whole:.1%} of {whole:,}) cannot be reached: what these forms offer here"
                f"{memory} keeps from {smallest:,} ({smallest / whole:.1%}) to {whole:,} (100 %)."
            )


def within_memory(menu: Menu, budget: Budget) -> Menu:
    """The menu without candidates that take more memory than a budget allows.

    The peak of a network is the largest of the peaks while each site runs and while none does, so the limit is one on
    every candidate alone.

    Raises:
        BudgetError: a site, or what lies between the sites, takes more whatever is chosen.
    """
    if budget.memory is None:
        return menu
    if not menu.memory:
        raise BudgetError("A budget of memory needs the menu to know its peaks: price it with `with_peaks` first.")
    (limit,) = budget.limits({"memory": menu.memory}).values()
    least = {site: min(c.memory for c in found) for site, found in menu.candidates.items()}
    worst = max(least, key=lambda site: least[site])
    if (smallest := max(menu.memory_elsewhere, least[worst])) > limit:
        where = worst if least[worst] > menu.memory_elsewhere else "what runs between the layers that can be replaced"
        raise BudgetError(
            f"memory={limit:,} ({limit / menu.memory:.1%} of {menu.memory:,}) cannot be reached: {where} takes"
            f" {smallest:,} ({smallest / menu.memory:.1%}) or more; expected from that to {menu.memory:,} (100 %)."
        )
    kept = {site: tuple(c for c in found if c.memory <= limit) for site, found in menu.candidates.items()}
    return replace(menu, candidates=kept)


def smallest_damage(menu: Menu) -> Selection:
    """The least damaging candidate of every site: what memory alone asks for."""
    return {site: min(found, key=by_damage) for site, found in menu.candidates.items()}


def _totals(menu: Menu) -> dict[str, int]:
    return {unit: getattr(menu, unit) for unit in SUMS if unit != "latency" or menu.latency}


def _binding(menu: Menu, budget: Budget, own: Mapping[str, int]) -> str:
    """How far the last limit can be met within the others; the exact allocator says."""
    *others, last = own
    rest = {unit: own[unit] for unit in others}
    priced = {
        site: tuple(c.model_copy(update={"damage": getattr(c, last)}) for c in found)
        for site, found in menu.candidates.items()
    }
    found = ALLOCATORS["knapsack"].select(replace(menu, candidates=priced), rest)
    if found is None:
        return "raise one of them"
    least = menu.fixed(last) + total(found, last)
    if least <= own[last] + menu.fixed(last):
        return "take knapsack, which finds one"
    return f"within the others {last} goes down to {least:,} ({least / getattr(menu, last):.1%}); raise one of them"


def _choice(site: Site, taken: Candidate, options: tuple[Candidate, ...]) -> Choice:
    return Choice(
        site=site,
        form=taken.form,
        rank=taken.rank,
        params=taken.params,
        macs=taken.macs,
        bytes=taken.bytes,
        latency=taken.latency,
        damage=taken.damage,
        why=_why(site, taken, options),
    )


def _why(site: Site, taken: Candidate, options: tuple[Candidate, ...]) -> str:
    """What the best other form would have done at no more parameters, or why the layer stays dense."""
    if taken.form == NARROW:
        return "channels between layers, left out of all that have them"
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
