"""The descent of factorised networks: Adam in the eigenbases of what the gradients of each factor look like.

The factors of a layer are small matrices whose rows hang together: terms that nearly cancel each other, input channels
that are nearly the same. Adam sees each entry by itself, so its steps have to be as small as the steepest direction
bears. Here the second moments of the gradients over rows and over columns are kept, as Shampoo does (Gupta, Koren and
Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML 2018), and Adam runs in their eigenbases (Vyas et
al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025). For factors that costs nothing beside a
convolution.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 1024
"""A side of a matrix beyond this keeps its own basis: decompositions of it would cost more than they bring."""

EVERY = 10
"""Steps between two looks at the bases."""

DAMPING = 1e-3
"""Share of its mean eigenvalue by which a moment is lifted when its basis is looked for, and of the root mean square by
which roots of squares are: where there is no gradient but rounding, a basis stays and nothing is blown up."""

SIDES = ("rows", "columns")


class Soap(torch.optim.Optimizer):
    """SOAP: Adam in the eigenbases of the second moments of each matrix's gradients.

    Convolution weights are matrices (out, in times kernel); vectors and single numbers are left to plain Adam. Bases
    begin as the identity and follow the moments by orthogonal iteration, so that the descent is a continuous function
    of the gradients: two processes that share a batch end where one does.

    Args:
        parameters: floating-point ones.
        lr: the rate.
        weight_decay: decoupled, as in AdamW.
        betas: decays of the mean of the gradients and of that of their squares, and of both moments.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)
        return value

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = _matrix(parameter.grad), self.state[parameter]  # type: ignore[arg-type]
        if not state:
            state |= _begun(gradient)
        state["step"] += 1
        _follow(gradient, state, group["betas"][1])
        update = _update(gradient, state, group["betas"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update.reshape(parameter.shape), alpha=group["lr"])


def _matrix(gradient: Tensor) -> Tensor:
    """A gradient as a matrix, or vector, of float32 at least."""
    flat = gradient.flatten(1) if gradient.dim() > 1 else gradient
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _begun(gradient: Tensor) -> dict[str, Tensor]:
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


def _follow(gradient: Tensor, state: dict[str, Tensor], kept: float) -> None:
    """The moments take up a gradient; at the first and each tenth step the bases follow by one orthogonal iteration.

    All stays contiguous: a product may differ in its last bits with the layout, and a checkpoint gives it back so.
    """
    turn = int(state["step"]) % EVERY == 1
    for side, turned in _sides(gradient):
        state[side].lerp_(turned @ turned.mT, 1 - kept)
        if turn:
            basis, lift = state[f"{side}_basis"], DAMPING * state[side].diagonal().mean()
            state[f"{side}_basis"] = torch.linalg.qr(state[side] @ basis + lift * basis)[0].contiguous()


def _update(gradient: Tensor, state: dict[str, Tensor], betas: tuple[float, float]) -> Tensor:
    """What Adam says in the bases, brought back."""
    seen, kept = betas
    step = float(state["step"])
    state["mean"].lerp_(gradient, 1 - seen)
    state["square"].lerp_(_turned(gradient, state).square(), 1 - kept)
    mean, square = _turned(state["mean"], state) / (1 - seen**step), state["square"] / (1 - kept**step)
    lifted = square + DAMPING**2 * square.mean() + torch.finfo(square.dtype).tiny
    return _turned(mean * lifted.rsqrt(), state, back=True)


def _turned(matrix: Tensor, state: dict[str, Tensor], *, back: bool = False) -> Tensor:
    """A matrix in the bases, or back from them."""
    rows, columns = (state.get(f"{side}_basis") for side in SIDES)
    if rows is not None:
        matrix = (rows if back else rows.mT) @ matrix
    if columns is not None:
        matrix = matrix @ (columns.mT if back else columns)
    return matrix
