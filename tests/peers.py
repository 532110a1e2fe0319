"""What TensorLy reaches with the same tensor and ranks, run as its users run it."""

from collections.abc import Callable

import numpy as np
import tensorly as tl
from tensorly.decomposition import parafac, partial_tucker, tensor_ring, tensor_ring_als, tensor_train, tucker
from torch import Tensor

from polyad.records import Rank

SEED, BOND = 0, 2

WIDE = 64
"""Channels from which TR-ALS takes minutes."""

FEWER_MODES = "Trying to compute SVD with n_eigenvecs"
"""Start of the warning of its start by SVD where the rank exceeds a mode, as on every 3x3 kernel."""


def cp(kernel: Tensor, rank: Rank) -> float:
    """CP-ALS over (o, i, hw): the better of the start by SVD and of a random one."""
    return _cp(kernel.flatten(2), rank)


def cp4(kernel: Tensor, rank: Rank) -> float:
    """CP-ALS over (o, i, h, w), likewise."""
    return _cp(kernel, rank)


def _cp(kernel: Tensor, rank: Rank) -> float:
    tensor, found = kernel.numpy(), []
    for init in ("svd", "random"):
        fit = parafac(tensor, rank[0], n_iter_max=200, tol=1e-8, init=init, random_state=SEED)
        found.append(_error(tensor, tl.cp_to_tensor(fit)))
    return min(found)


def tucker2(kernel: Tensor, rank: Rank) -> float:
    """HOOI over the two channel modes."""
    tensor = kernel.flatten(2).numpy()
    (core, bases), _ = partial_tucker(tensor, list(rank), modes=[0, 1], n_iter_max=100)
    return _error(tensor, tl.tenalg.multi_mode_dot(core, bases, modes=[0, 1]))


def tucker4(kernel: Tensor, rank: Rank) -> float:
    """HOOI over all four modes."""
    tensor = kernel.numpy()
    return _error(tensor, tl.tucker_to_tensor(tucker(tensor, list(rank), n_iter_max=100)))


def tt(kernel: Tensor, rank: Rank) -> float:
    """TT-SVD along i, h, w, o."""
    tensor = kernel.permute(1, 2, 3, 0).numpy()
    return _error(tensor, tl.tt_to_tensor(tensor_train(tensor, [1, *rank, 1])))


def tr(kernel: Tensor, rank: Rank) -> float:
    """The better of TR-SVD (where it takes the ranks) and TR-ALS, along i, h, w, o; of wide kernels TR-SVD alone."""
    tensor, ranks = kernel.permute(1, 2, 3, 0).numpy(), [BOND, *rank, BOND]
    rings = []
    if max(tensor.shape) < WIDE:
        rings.append(tensor_ring_als(tensor, ranks, n_iter_max=100, random_state=SEED))
    if BOND * rank[0] <= tensor.shape[0]:
        rings.append(tensor_ring(tensor, list(ranks)))
    return min(_error(tensor, tl.tr_to_tensor(ring)) for ring in rings)


def _error(tensor: np.ndarray, approximation: np.ndarray) -> float:
    return float(np.square(tensor - approximation).sum() / np.square(tensor).sum())


PEERS: dict[str, Callable[[Tensor, Rank], float]] = {
    "cp": cp,
    "cp4": cp4,
    "tucker2": tucker2,
    "tucker": tucker4,
    "tt": tt,
    "tr": tr,
}
