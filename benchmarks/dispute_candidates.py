"""Candidates of the dispute: the same forms and ranks fitted in each norm, and what each norm predicts of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad.damages.probes import Patch, rescaled
from polyad.decompositions.base import FORMS, Decomposition
from polyad.metrics import METRICS
from polyad.metrics.moments import second_moment
from polyad.records import Rank, Site, Statistics
from polyad.sites import weight_of
from polyad.solvers import Problem, best_variant, fit_path, problems, ranks_within

NORMS = ("weights", "inputs_diagonal", "inputs", "curvature")
"""In which candidates are fitted, and by which they are judged."""

SHAPES = ("svd", "cp", "group_svd/4")
SHARES = (0.05, 0.1, 0.2, 0.35, 0.6, 0.8)
STEPS = 20
LARGEST = 200_000
"""Weights of a layer beyond which only the closed form, svd, is fitted."""


@dataclass(frozen=True)
class Fitted:
    """One site in one form at one rank, fitted in one norm.

    Attributes:
        weight: (groups, out, n) float32, what replaces the weight.
        before: by norm the damage that it predicts of the candidate as it is rebuilt: fitted in the weight norm, the
            bias does not move.
        after: the same once the mean of every output channel is given back.
    """

    site: str
    form: str
    rank: Rank
    share: float
    norm: str
    weight: Tensor
    before: Mapping[str, float]
    after: Mapping[str, float]


class Judge:
    """The norms of one site on held-out inputs."""

    def __init__(self, model: torch.nn.Module, site: Site, statistics: Statistics) -> None:
        self.site, self.statistics = site, statistics
        self.weight = weight_of(model, site).double().flatten(2)
        self.left = METRICS["curvature"].left(site, statistics)  # type: ignore[misc]
        held_out, mean = statistics.held_out, statistics.held_out_mean
        assert held_out is not None and mean is not None
        self.moments = (held_out, second_moment(site, held_out, mean, statistics.mean))

    def damages(self, approximation: Tensor, *, moved: bool) -> dict[str, float]:
        """Relative errors in the first three norms, nats in the last.

        Args:
            moved: whether the mean of the error is given back.
        """
        moment = self.moments[int(moved)]
        diagonal = moment if moment.dim() == 2 else moment.diagonal(dim1=-2, dim2=-1)
        difference = self.weight - approximation
        return {
            "weights": Problem(self.weight, None).relative(approximation),
            "inputs_diagonal": Problem(self.weight, diagonal).relative(approximation),
            "inputs": Problem(self.weight, moment).relative(approximation),
            "curvature": float(Problem(self.weight, moment, self.left).squared_norm(difference)) / 2,
        }

    def patch(self, fitted: Fitted, *, recovered: bool) -> Patch:
        """What is put into the layer: with `recovered` mean and variance of its output channels are matched."""
        weight, site = fitted.weight.double(), self.site
        if not site.bias_may_move or (fitted.norm == "weights" and not recovered):
            return Patch(0.0, weight, None)
        weight = rescaled(site, self.weight, weight, self.statistics) if recovered and site.calls == 1 else weight
        return Patch(0.0, weight, torch.einsum("gon,gn->go", self.weight - weight, self.statistics.mean))


def fitted(model: torch.nn.Module, site: Site, statistics: Statistics) -> Iterator[Fitted]:
    """Every form at every share in every norm."""
    judge = Judge(model, site, statistics)
    plain, _ = problems(site, weight_of(model, site), METRICS["inputs"], statistics)
    for form in _forms(site):
        family = best_variant(FORMS[form], site.layer, plain)
        if family is None:
            continue
        ranks = _ranks(site, family, plain)
        for norm in NORMS:
            problem, _ = problems(site, weight_of(model, site), METRICS[norm], statistics)
            for share, found in zip(ranks, fit_path(family, site.layer, problem, list(ranks.values()), steps=STEPS)):
                weight = family.reconstruct(found.factors).reshape(problem.weight.shape)
                after = judge.damages(weight, moved=True)
                before = judge.damages(weight, moved=norm != "weights")
                yield Fitted(site.name, form, found.rank, share, norm, weight.float(), before, after)


def _forms(site: Site) -> list[str]:
    names = SHAPES if site.layer.weight_params <= LARGEST else SHAPES[:1]
    return [name for name in names if FORMS[name].refuses(site.layer) is None and (name != "cp" or site.layer.kernel)]


def _ranks(site: Site, form: Decomposition, problem: Problem) -> dict[float, Rank]:
    """Share -> the largest rank within it; a rank is there once."""
    found: dict[float, Rank] = {}
    for share in SHARES:
        ranks: Sequence[Rank] = ranks_within(form, site.layer, problem, [share])
        if ranks and ranks[-1] not in found.values():
            found[share] = ranks[-1]
    return found
