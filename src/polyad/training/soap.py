"""The descent of factorised networks: Adam in the eigenbases of what the gradients of each factor look like.

The factors of a layer are small matrices whose rows hang together: terms that nearly cancel each other, input channels
that are nearly the same. Adam sees each entry by itself, so its steps have to be as small as the steepest direction
bears. Here the second moments of the gradients over rows and over columns are kept, as Shampoo does (Gupta, Koren and
Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML 2018), and Adam runs in their eigenbases (Vyas et
al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025). For factors that costs nothing beside a
convolution.

A step is relative to the size of what it changes, as in Adafactor (Shazeer and Stern, "Adafactor: Adaptive Learning
Rates with Sublinear Memory Cost", ICML 2018, section 8): the entries of a narrow layer's factors are dozens of times as
large as those of a wide layer, and no one absolute rate suits both.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from polyad.training import lists

LARGEST = 1024
"""A side of a matrix beyond this keeps its own basis: decompositions of it would cost more than they bring."""

EVERY = 10
"""Steps between two looks at the bases."""

DAMPING = 1e-3
"""Share of its mean eigenvalue by which a moment is lifted when its basis is looked for, and of the root mean square by
which roots of squares are: where there is no gradient but rounding, a basis stays and nothing is blown up."""

LEAST = 1e-2
"""Size that is taken for what is smaller, so that a bias of zero learns too."""

SIDES = ("rows", "columns")

State = dict[str, Tensor]
"""What is kept of one parameter."""


class Soap(torch.optim.Optimizer):
    """SOAP: Adam in the eigenbases of the second moments of each matrix's gradients.

    Convolution weights are matrices (out, in times kernel); vectors and single numbers are left to plain Adam. Bases
    begin as the identity and follow the moments by orthogonal iteration, so that the descent is a continuous function
    of the gradients: two processes that share a batch end where one does.

    Args:
        parameters: floating-point ones.
        lr: the rate: what a step changes, relative to the root mean square of the entries of each parameter.
        weight_decay: decoupled, as in AdamW.
        betas: decays of the mean of the gradients and of that of their squares, and of both moments.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.95, 0.95),
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step down the gradients."""
        value = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if parameters := [one for one in group["params"] if one.grad is not None]:
                self._step(parameters, group)
        return value

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """All at once, but for products of matrices: on a graphics card what counts is the number of kernels."""
        gradients = [_matrix(one.grad) for one in parameters]  # type: ignore[arg-type]
        states = [self.state[one] for one in parameters]
        for gradient, state in zip(gradients, states):
            state |= {} if state else _begun(gradient)
            state["step"] += 1
            _follow(gradient, state, group["betas"][1])
        updates = _updates(gradients, states, group["betas"])
        lists.mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        sizes = lists.clamp_min(lists.div(lists.norm(parameters), [one.numel() ** 0.5 for one in parameters]), LEAST)
        shaped = [update.reshape(one.shape).to(one.dtype) for update, one in zip(updates, parameters)]
        lists.sub_(parameters, lists.mul(shaped, sizes), alpha=group["lr"])


def _matrix(gradient: Tensor) -> Tensor:
    """A gradient as a matrix, or vector, of float32 at least."""
    flat = gradient.flatten(1) if gradient.dim() > 1 else gradient
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _begun(gradient: Tensor) -> State:
    """The state in front of the first step."""
    state = {name: torch.zeros_like(gradient) for name in ("mean", "square")}
    state["step"] = torch.zeros(())
    for side, turned in _sides(gradient):
        state[side] = turned.new_zeros(len(turned), len(turned))
        state[f"{side}_basis"] = torch.eye(len(turned)).to(turned)
    return state


def _sides(gradient: Tensor) -> list[tuple[str, Tensor]]:
    """The sides with a basis of their own, each with the gradient turned so that it comes first."""
    if gradient.dim() < 2 or min(gradient.shape) < 2:
        return []
    both = zip(SIDES, (gradient, gradient.mT), strict=True)
    return [(side, turned) for side, turned in both if len(turned) <= LARGEST]


def _follow(gradient: Tensor, state: State, kept: float) -> None:
    """The moments take up a gradient; at the first and each tenth step the bases follow by one orthogonal iteration.

    All stays contiguous: a product may differ in its last bits with the layout, and a checkpoint gives it back so.
    """
    turn = int(state["step"]) % EVERY == 1
    for side, turned in _sides(gradient):
        state[side].lerp_(turned @ turned.mT, 1 - kept)
        if turn:
            basis, lift = state[f"{side}_basis"], DAMPING * state[side].diagonal().mean()
            state[f"{side}_basis"] = torch.linalg.qr(state[side] @ basis + lift * basis)[0].contiguous()


def _updates(gradients: list[Tensor], states: list[State], betas: tuple[float, float]) -> list[Tensor]:
    """What Adam says in the bases, brought back."""
    seen, kept = betas
    means, squares = ([state[name] for state in states] for name in ("mean", "square"))
    lists.lerp_(means, gradients, 1 - seen)
    turned = list(map(_turned, gradients, states))
    lists.lerp_(squares, lists.mul(turned, turned), 1 - kept)
    lifts = [DAMPING**2 * one.mean() + torch.finfo(one.dtype).tiny for one in squares]
    roots = lists.sqrt(lists.add(squares, lifts))
    steps = lists.div(list(map(_turned, means, states)), roots)
    unbiased = [(1 - kept**n) ** 0.5 / (1 - seen**n) for n in (float(state["step"]) for state in states)]
    return [_turned(one, state, back=True) for one, state in zip(lists.mul(steps, unbiased), states)]


def _turned(matrix: Tensor, state: State, *, back: bool = False) -> Tensor:
    """A matrix in the bases, or back from them."""
    rows, columns = (state.get(f"{side}_basis") for side in SIDES)
    if rows is not None:
        matrix = (rows if back else rows.mT) @ matrix
    if columns is not None:
        matrix = matrix @ (columns.mT if back else columns)
    return matrix
