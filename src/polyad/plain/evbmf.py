"""How many singular values of a matrix stand out of noise, by empirical variational Bayes.

Nakajima, Sugiyama, Babacan and Tomioka, Global analytic solution of fully-observed variational Bayesian matrix
factorization, JMLR 14, 2013. For an L x M matrix (L <= M), alpha = L / M, a singular value g survives where

    g > s sqrt(M (1 + t) (1 + alpha / t)),    t = 2.5129 sqrt(alpha)  (their corollary 2),

and the variance s^2 of the noise is the one of least free energy (their theorem 4): for x = g^2 / (M s^2) the sum of
psi_0(x) = x - log x over the values below that threshold and of psi_1(x) = psi_0(x) + log(tau + 1) + alpha log(tau /
alpha + 1) - tau over the others, tau = (x - 1 - alpha + sqrt((x - 1 - alpha)^2 - 4 alpha)) / 2.
"""

from math import ceil, log

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from polyad.linalg import eigh_descending

GRID = 64
"""The free energy may have several minima: it is looked at on so many variances before the best one is refined."""


def evbmf_rank(matrix: Tensor) -> int:
    """The number of components (rows, columns) that empirical variational Bayes keeps; 0 where all is noise."""
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    energy = eigh_descending(rows.double() @ rows.double().mT)[0].numpy()
    if not energy.sum() > 0:
        return 0
    L, M = rows.shape
    alpha = L / M
    t = 2.5129 * alpha**0.5
    threshold = (1 + t) * (1 + alpha / t)
    variance = _variance(np.maximum(energy, energy.max() * torch.finfo(torch.float64).eps), M, alpha, threshold)
    return int((energy > M * variance * threshold).sum())


def _variance(energy: np.ndarray, M: int, alpha: float, threshold: float) -> float:
    """The noise's variance of least free energy, between the bounds of theorem 4."""
    L = len(energy)
    top = min(ceil(L / (1 + alpha)) - 1, L - 1)
    low = max(energy[top] / (M * threshold), energy[top:].mean() / M)
    high = energy.sum() / (L * M)
    if not low < high:
        return float(high)

    def free_energy(logarithm: float) -> float:
        x = energy / (M * np.exp(logarithm))
        above = x[x > threshold]
        tau = (above - 1 - alpha + np.sqrt((above - 1 - alpha) ** 2 - 4 * alpha)) / 2
        return float((x - np.log(x)).sum() + (np.log(tau + 1) + alpha * np.log(tau / alpha + 1) - tau).sum())

    grid = np.linspace(log(low), log(high), GRID)
    best = int(np.argmin([free_energy(at) for at in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    return float(np.exp(minimize_scalar(free_energy, bounds=bounds, method="bounded").x))
