"""Probability that the nearest target is the right one, for Gaussian scores."""

import numpy as np
from scipy.special import ndtr, ndtri

from rmtntk._typing import FloatArray

__all__ = ["accuracy", "orthant"]

_POINTS = 1 << 14


def accuracy(means: FloatArray, covariances: FloatArray, targets: FloatArray) -> FloatArray:
    """P(the target nearest to the score is the class's own), shape (K,).

    Nearest to ±1 is the sign; nearest to one-hot rows is the arg max. Classes with the same target count as one.

    Parameters
    ----------
    means, covariances : ndarray, shapes (K, m) and (K, m, m)
        Of the score in every class.
    targets : ndarray, shape (K, m)
    """
    distinct, own = np.unique(targets, axis=0, return_inverse=True)
    own = own.reshape(-1)
    out = np.ones(len(targets))
    if len(distinct) == 1:
        return out
    for a, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        mine = distinct[own[a]]
        if targets.shape[1] == 1:  # an interval between midpoints
            spread = float(np.sqrt(max(covariance[0, 0], 0.0)))
            line = distinct[:, 0]  # ascending
            low = 0.5 * (line[own[a]] + line[own[a] - 1]) if own[a] > 0 else -np.inf
            high = 0.5 * (line[own[a]] + line[own[a] + 1]) if own[a] + 1 < len(line) else np.inf
            if spread == 0.0:
                out[a] = float(low <= mean[0] <= high)
            else:
                out[a] = float(ndtr((high - mean[0]) / spread) - ndtr((low - mean[0]) / spread))
            continue
        others = np.delete(distinct, own[a], axis=0)
        gaps = mine - others  # correct if gaps · f > (|mine|² − |other|²)/2 for all
        limits = gaps @ mean - 0.5 * ((mine**2).sum() - (others**2).sum(axis=1))
        out[a] = orthant(limits, gaps @ covariance @ gaps.T)
    return out


def orthant(mean: FloatArray, covariance: FloatArray) -> float:
    """P(all components > 0) of a Gaussian vector; closed in one dimension, about 1e-5 in up to ten.

    Notes
    -----
    Conditioning one component after the other, integrated over a fixed Kronecker sequence with the tent transform;
    deterministic.

    References
    ----------
    Genz (1992), "Numerical computation of multivariate normal probabilities", section 2.
    """
    d = len(mean)
    factor = _semidefinite_root(covariance)
    base = 1.0
    for _ in range(60):  # root of x^d = x + 1, the best known additive recurrence in d − 1 dimensions
        base = (1.0 + base) ** (1.0 / d)
    steps = base ** -np.arange(1.0, d)
    points = np.abs(2.0 * ((np.arange(1, _POINTS + 1)[:, None] * steps + 0.5) % 1.0) - 1.0)
    found = np.zeros((_POINTS, d))
    probability = np.ones(_POINTS)
    for i in range(d):
        drift = mean[i] + found[:, :i] @ factor[i, :i]
        if factor[i, i] == 0.0:
            probability = probability * (drift > 0.0)
            continue
        inside = ndtr(drift / factor[i, i])
        probability = probability * inside
        if i + 1 < d:
            # x_i = drift + factor ξ > 0 given: −ξ below drift/factor
            found[:, i] = -ndtri(np.maximum(points[:, i] * inside, np.finfo(np.float64).tiny))
    return float(probability.mean())


def _semidefinite_root(covariance: FloatArray) -> FloatArray:
    """Lower triangular factor of a positive semi-definite matrix; a direction without variance has a zero pivot."""
    d = len(covariance)
    factor = np.zeros((d, d))
    floor = 1e-12 * float(np.abs(covariance).max(initial=0.0))
    for i in range(d):
        pivot = covariance[i, i] - factor[i, :i] @ factor[i, :i]
        if pivot <= floor:
            continue
        factor[i, i] = np.sqrt(pivot)
        factor[i + 1 :, i] = (covariance[i + 1 :, i] - factor[i + 1 :, :i] @ factor[i, :i]) / factor[i, i]
    return factor
