"""The ranks that empirical variational Bayes finds in the weights, weakened or tightened to meet the budget.

EVBMF gives a rank for every unfolding of a weight and knows no budget (Kim et al., ICLR 2016, take it as it is). MUSCO
(Gusak et al. 2019) weakens it: a share of the way from the full rank to that of EVBMF. So a layer at the level

    0 < t <= 1   keeps t times the parameters that it has at the ranks of EVBMF,
    1 < t <= 2   keeps 2 - t of the way back from the dense layer to those ranks,

and all layers get the same level, the highest one that the budget allows. How the parameters of a form with several
ranks are parted between them is the menu's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf

from torch import Tensor, nn

from polyad.allocators.base import ALLOCATORS, Allocator, Selection, smallest, total_damage, within
from polyad.cost import site_params
from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import BudgetError
from polyad.menu import Candidate, Menu
from polyad.plain.cuts import side, unfolding
from polyad.plain.evbmf import evbmf_rank
from polyad.records import DENSE, Site
from polyad.sites import weight_of


def prepare(model: nn.Module, menu: Menu) -> Menu:
    """The menu with, for each site and form, the parameters at the ranks that EVBMF finds."""
    suggested = {}
    for site in menu.sites:
        weight = weight_of(model, site).cpu()
        forms = sorted({candidate.form for candidate in menu.candidates[site.name]} - {DENSE})
        suggested[site.name] = {name: _params(site, FORMS[name], weight) for name in forms}
    return replace(menu, suggested=suggested)


def _params(site: Site, form: Decomposition, weight: Tensor) -> int:
    """Parameters at the rank of EVBMF of each rank letter's unfolding.

    Where a letter parts nothing (CP, rings) it is the largest over the modes of the weight: no smaller CP rank has
    unfoldings of those ranks.
    """
    target = weight.reshape(-1, *form.sizes(site.layer).values())
    rank = []
    for letter, largest in zip(form.rank_letters(site.layer), form.max_rank(site.layer), strict=True):
        modes = side(form.letters, form.view, letter)
        cuts = [modes] if modes else list(form.view)
        found = [
            evbmf_rank(matrix)
            for cut in cuts
            for matrix in unfolding(target, [form.view.index(mode) + 1 for mode in cut])
        ]
        rank.append(min(max(*found, 1), largest))
    return min(site_params(site, form.name, tuple(rank)), site.params)


def select(menu: Menu, limits: Mapping[str, int]) -> Selection | None:
    """At a level each site takes its largest candidate within it, of the form with most ranks (Tucker-2 before SVD)."""
    ladders = {site.name: _ladder(site, menu) for site in menu.sites}
    chosen = {site: ladder[0][1] for site, ladder in ladders.items()}
    highest = chosen
    for step in _steps(ladders):
        chosen = chosen | {new.site: new for new in step}
        highest = chosen if within(chosen, limits) else highest
    tries = (highest, *(smallest(menu, unit) for unit in limits))
    allowed = [found for found in tries if within(found, limits)]
    return min(allowed, key=lambda found: (objective(menu, found), total_damage(found)), default=None)


def _steps(ladders: Mapping[str, list[tuple[float, Candidate]]]) -> Iterator[list[Candidate]]:
    """What the sites take anew at each level, from below."""
    waiting = sorted((level, site, at) for site, ladder in ladders.items() for at, (level, _) in enumerate(ladder))
    level, step = -inf, []
    for here, site, at in waiting:
        if here != level and step:
            yield step
            step = []
        level = here
        step.append(ladders[site][at][1])
    if step:
        yield step


def _ladder(site: Site, menu: Menu) -> list[tuple[float, Candidate]]:
    """Level -> candidate of a site, at rising levels."""
    options, suggested = menu.candidates[site.name], menu.suggested.get(site.name, {})
    forms = {c.form for c in options if c.form != DENSE}
    if missing := sorted(forms - suggested.keys()):
        raise BudgetError(
            f"The evbmf allocator needs the ranks of {missing[0]} at {site.name}: let it prepare the menu with the"
            " network first."
        )
    first = min(options, key=lambda c: (-len(c.rank), c.form)).form
    ladder = [(_level(c, site, suggested), c) for c in options if c.form in (first, DENSE)]
    return sorted(ladder, key=lambda pair: (pair[0], -pair[1].damage, pair[1].rank))


def _level(candidate: Candidate, site: Site, suggested: Mapping[str, int]) -> float:
    if candidate.form == DENSE:
        return 2.0
    there = suggested[candidate.form]
    if candidate.params <= there:
        return candidate.params / there
    return 1 + (candidate.params - there) / max(site.params - there, 1)


def objective(menu: Menu, selection: Selection) -> float:
    """What all sites keep together, counted down."""
    return -sum(candidate.params for candidate in selection.values())


def tell(menu: Menu, limits: Mapping[str, int], selection: Selection) -> str:
    sites = {site.name: site for site in menu.sites}
    found = [_level(c, sites[c.site], menu.suggested[c.site]) for c in selection.values() if c.form != DENSE]
    if not found:
        return "every layer stays dense"
    if (level := max(found)) <= 1:
        return f"{level:.0%} of the parameters at the ranks of EVBMF"
    return f"the ranks of EVBMF, weakened: {2 - level:.0%} of the way to them from the dense layers"


ALLOCATORS.register(
    "evbmf",
    Allocator(
        "evbmf",
        "the ranks that stand out of noise, weakened or tightened to the budget",
        "Nakajima et al., JMLR 2013; Kim et al., ICLR 2016; MUSCO: Gusak et al. 2019",
        select,
        objective=objective,
        prepare=prepare,
        tell=tell,
    ),
)
