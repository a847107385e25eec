r"""Ridge readout with the penalty chosen by generalised cross-validation.

With F the centred features and H = F (FᵀF + αI)^{-1} Fᵀ, the penalty minimises
GCV(α) = n ‖(I − H) Y‖² / (n − 1 − tr H)² (the intercept takes one degree of freedom). One eigendecomposition of
the smaller of FᵀF, FFᵀ serves every α.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._typing import FloatArray

__all__ = ["Ridge", "fit_ridge"]

EPS = float(np.finfo(np.float64).eps)


class Ridge(NamedTuple):
    """Linear readout: predictions are features @ coefficients + intercept.

    Attributes
    ----------
    coefficients : ndarray, shape (d, k)
    intercept : ndarray, shape (k,)
    alpha : float
        Penalty, in units of squared singular values of the centred features.
    gcv : float
        The criterion at `alpha`, per target.
    """

    coefficients: FloatArray
    intercept: FloatArray
    alpha: float
    gcv: float


def fit_ridge(features: FloatArray, targets: FloatArray, alpha: float | None = None) -> Ridge:
    """Fit targets (n, k) on features (n, d); alpha=None chooses it by generalised cross-validation.

    Notes
    -----
    Costs O(n d min(n, d)). The search covers penalties from 1e-12 to 1e3 times the largest eigenvalue and
    polishes the best of 64 values.

    References
    ----------
    Golub, Heath and Wahba (1979), "Generalized cross-validation as a method for choosing a good ridge parameter".
    """
    n, d = features.shape
    feature_mean = features.mean(axis=0)
    target_mean = targets.mean(axis=0)
    centred = features - feature_mean
    y = targets - target_mean
    # Centring leaves the dual form one eigenvalue of 0, which takes no degree of freedom; the primal form has at
    # least one degree of freedom left over.
    dual = n <= d + 1
    gram = centred @ centred.T if dual else centred.T @ centred
    values, vectors = np.linalg.eigh(gram)
    top = float(values[-1])
    values = np.where(values > max(n, d) * EPS * top, values, 0.0)  # below is rounding: the rank ends here
    if top <= 16.0 * n * EPS**2 * float((features**2).sum()):
        raise ValueError("the features are the same for every sample: there is nothing to fit a readout on")
    projected = vectors.T @ y if dual else vectors.T @ (centred.T @ y)
    if dual:
        energy = (projected**2).sum(axis=1)
        rest, spare = 0.0, 0
    else:
        energy = (projected**2).sum(axis=1) / np.where(values > 0.0, values, np.inf)
        rest, spare = max(0.0, float((y**2).sum() - energy.sum())), n - 1 - d
    first = 1 if dual else 0

    def criterion(log_alpha: float) -> float:
        penalty = math.exp(log_alpha)
        keep = penalty / (values + penalty)
        misfit = float((keep**2 * energy).sum()) + rest
        freedom = spare + float(keep[first:].sum())
        return n * misfit / freedom**2 / y.shape[1]

    if alpha is None:
        grid = np.log(top) + np.linspace(math.log(1e-12), math.log(1e3), 64)
        scores = [criterion(value) for value in grid]
        k = int(np.argmin(scores))
        low, high = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
        best = scipy.optimize.minimize_scalar(criterion, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
        alpha = math.exp(float(best.x) if best.fun <= scores[k] else float(grid[k]))
    if alpha == 0.0:
        inverse = np.where(values > 0.0, 1.0 / np.where(values > 0.0, values, 1.0), 0.0)
    else:
        inverse = 1.0 / (values + alpha)
    solved = vectors @ (inverse[:, None] * projected)
    coefficients = centred.T @ solved if dual else solved
    gcv = criterion(math.log(alpha)) if alpha > 0.0 else math.inf
    return Ridge(coefficients, target_mean - feature_mean @ coefficients, float(alpha), gcv)
