"""Input channels of a layer left out, the others making up for them: backward elimination in the norm of a problem.

With S the channels that are kept, the weight on them that errs least is

    W_S = W C[:, S] C[S, S]^-1,

and with P the inverse of C over the channels that are left, leaving out channel i (its columns, one for each kernel
position) adds

    tr(G V_i P_ii^-1 V_i')

to the error, V being the weight as it is by then; what is left of V and P follows by a rank-p update (the optimal
brain surgeon: Hassibi and Stork, NIPS 1992, here for the output of one layer; channels of convolutions: He, Zhang and
Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017). Starting from all channels, the cheapest
go first, some at a time while there are many.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from polyad.linalg import solve_positive, symmetric
from polyad.solvers.problem import Problem
from polyad.threads import on_threads

PACE = 64
"""One channel in so many of those that are left goes at once, at least one."""


@on_threads(1)
def fewer_channels(problem: Problem, channels: int, counts: Sequence[int]) -> list[tuple[int, ...]]:
    """For each count the channels to keep, ascending; the smaller choices are parts of the larger ones.

    Args:
        problem: weight (1, out, n) of a layer without groups, n = channels x kernel positions.
        channels: how many input channels there are.
        counts: how many are to be kept.
    """
    found = {channels: tuple(range(channels))}
    wanted = sorted({count for count in counts if 1 <= count < channels}, reverse=True)
    if wanted:
        path = _eliminated(problem, channels, wanted)
        found |= dict(zip(wanted, path, strict=True))
    return [found[min(max(count, 1), channels)] for count in counts]


def making_up(problem: Problem, channels: int, kept: Sequence[int]) -> Tensor:
    """The weight (1, out, n) that errs least with some of the input channels; zero at the others."""
    columns = _columns(channels, problem.weight.shape[-1] // channels, kept)
    found = torch.zeros_like(problem.weight)
    if problem.matrix is None or problem.matrix.dim() == 2:
        found[..., columns] = problem.weight[..., columns]
        return found
    inner = problem.matrix[:, columns]
    seen = inner @ problem.weight.mT
    found[..., columns] = solve_positive(symmetric(inner[..., columns]), seen).mT
    return found


def _eliminated(problem: Problem, channels: int, counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The channels that are left at each of some falling counts."""
    problem, _ = problem.moderate
    weight, inverse = problem.weight[0], _inverse(problem)
    left, positions = torch.arange(channels), weight.shape[1] // channels
    for count in counts:
        while (many := min(max(len(left) // PACE, 1), len(left) - count)) > 0:
            cheapest = _costs(weight, inverse, positions, problem.left).topk(many, largest=False).indices
            staying = torch.ones(len(left), dtype=torch.bool)
            staying[cheapest] = False
            weight, inverse = _without(weight, inverse, staying.repeat_interleave(positions))
            left = left[staying]
        yield tuple(left.tolist())


def _inverse(problem: Problem) -> Tensor:
    n = problem.weight.shape[-1]
    if problem.matrix is None:
        return torch.eye(n, dtype=problem.weight.dtype)
    if problem.matrix.dim() == 2:
        return torch.diag(1 / problem.matrix[0])
    return symmetric(solve_positive(problem.matrix[0], torch.eye(n, dtype=problem.matrix.dtype)))


def _costs(weight: Tensor, inverse: Tensor, positions: int, left: Tensor | None) -> Tensor:
    """What leaving out each channel adds to the error."""
    channels = weight.shape[1] // positions
    blocks = inverse.view(channels, positions, channels, positions).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    columns = weight.view(-1, channels, positions).permute(1, 2, 0)
    weighted = columns if left is None else columns @ left[0]
    return (solve_positive(blocks, columns) * weighted).sum((1, 2))


def _without(weight: Tensor, inverse: Tensor, staying: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and inverse over the columns that stay."""
    across, going = inverse[~staying][:, staying], inverse[~staying][:, ~staying]
    update = solve_positive(symmetric(going), across)
    return weight[:, staying] - weight[:, ~staying] @ update, inverse[staying][:, staying] - across.mT @ update


def _columns(channels: int, positions: int, kept: Sequence[int]) -> Tensor:
    return torch.arange(channels * positions).view(channels, positions)[list(kept)].flatten()
