"""What leaving out channels between layers costs and does, beside the menu of forms.

The channels that one layer reads are left out one after another, the others making up for them: one path for each
reader gives the choices of all sizes and their errors. A narrowing is chosen for all its layers together, and none of
them is replaced then.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from polyad.hidden import Hidden, Narrowed
from polyad.ladders import Norms, priced
from polyad.menu import Candidate, Narrowing
from polyad.metrics import METRICS, Metric
from polyad.progress import Progress, silent
from polyad.records import NARROW, Site, Statistics
from polyad.settings import Settings
from polyad.sites import weight_of
from polyad.solvers.channels import fewer_channels, making_up
from polyad.threads import side_by_side

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.58, 0.66, 0.72, 0.78, 0.84, 0.88, 0.92, 0.95, 0.975)
"""Shares of the channels that may be kept."""


def narrowings(
    model: nn.Module,
    hidden: Sequence[Hidden],
    sites: Sequence[Site],
    statistics: Mapping[str, Statistics],
    settings: Settings,
    progress: Progress = silent,
) -> tuple[Narrowing, ...]:
    """Every one on offer.

    Args:
        model: the original network.
        hidden: from `hidden_in`.
        sites: of the trace.
        statistics: of the readers.
        settings: norm, rounding of ranks (here of the channels), given choices.
    """
    by_name = {site.name: site for site in sites}
    free = [one for one in hidden if not any(name in settings.fixed for name in one.layers)]
    one_each = partial(_of, model, by_name, METRICS[settings.metric], statistics, settings.round_to)
    found = progress(side_by_side(one_each, free), "narrow", len(free))
    return tuple(narrowing for some in found for narrowing in some)


def costs(sites: Mapping[str, Site], hidden: Hidden, kept: int) -> dict[str, Candidate]:
    """The candidates of all its sites with so many channels, without errors."""
    ranks = {name: (kept, sites[name].layer.in_features) for name in hidden.writers}
    ranks |= {name: (kept, kept) for name in hidden.between if name in sites}
    ranks[hidden.reader] = (sites[hidden.reader].layer.out_features, kept)
    return {name: priced(sites[name], NARROW, rank) for name, rank in ranks.items()}


def _of(
    model: nn.Module,
    sites: Mapping[str, Site],
    norm: Metric,
    statistics: Mapping[str, Statistics],
    round_to: int,
    hidden: Hidden,
) -> list[Narrowing]:
    site, channels = sites[hidden.reader], hidden.channels
    norms = Norms.of(site, weight_of(model, site), norm, statistics.get(site.name))
    counts = sorted({max(int(share * channels) // round_to * round_to, 1) for share in SHARES})
    found = []
    for kept in fewer_channels(norms.fit, channels, counts):
        approximation = making_up(norms.fit, channels, kept)
        candidates = costs(sites, hidden, len(kept))
        errors = norms.errors(approximation, norms.fit.relative(approximation))
        candidates[site.name] = priced(site, NARROW, candidates[site.name].rank, **errors)
        found.append(Narrowing(Narrowed(hidden=hidden, kept=kept), candidates))
    return found
