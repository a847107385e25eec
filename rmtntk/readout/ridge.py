r"""Ridge readout with the penalty chosen by generalised cross-validation.

With F the centred features and H = F (FᵀF + αI)^{-1} Fᵀ, the penalty minimises
GCV(α) = n ‖(I − H) Y‖² / (n − 1 − tr H)² (the intercept takes one degree of freedom). One eigendecomposition of
the smaller of FᵀF, FFᵀ serves every α.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import scipy  # loads scipy.optimize when it is first used
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_real
from rmtntk.readout._checks import EPS, check_fit, refuse_constant

__all__ = ["Ridge", "fit_ridge", "solve_ridge"]


@dataclass(frozen=True, eq=False)
class Ridge:
    """Linear readout fitted by least squares: scores are features @ coefficients + intercept.

    Attributes
    ----------
    coefficients : ndarray, shape (d, C)
    intercept : ndarray, shape (C,)
    alpha : float
        Penalty, in units of squared singular values of the centred features.
    gcv : float
        The criterion at `alpha`, per target; infinite for alpha = 0.
    """

    coefficients: FloatArray
    intercept: FloatArray
    alpha: float
    gcv: float

    kind: ClassVar[Literal["ridge"]] = "ridge"
    bits: ClassVar[Literal[64]] = 64

    @property
    def nbytes(self) -> int:
        """Bytes of coefficients and intercept."""
        return self.coefficients.nbytes + self.intercept.nbytes

    def scores(self, features: FloatArray) -> FloatArray:
        """Return the scores (n, C) of features (n, d)."""
        return np.asarray(features @ self.coefficients + self.intercept)

    def describe(self) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """Return a JSON-ready header and arrays from which :func:`rmtntk.readout.restore` makes it again."""
        header = {
            "kind": self.kind,
            "bits": self.bits,
            "alpha": self.alpha,
            "gcv": self.gcv if math.isfinite(self.gcv) else None,
        }
        return header, {"coefficients": self.coefficients, "intercept": self.intercept}


def fit_ridge(features: ArrayLike, targets: ArrayLike, alpha: float | None = None) -> Ridge:
    """Fit targets (n, C) on features (n, d); alpha=None chooses it by generalised cross-validation.

    Raises
    ------
    ValueError
        If an array is not a finite matrix, lengths differ, alpha is negative, or all samples have the same features.

    Notes
    -----
    Costs O(n d min(n, d)). The search covers penalties from 1e-12 to 1e3 times the largest eigenvalue and
    polishes the best of 64 values. For n that does not fit in memory there is
    :class:`rmtntk.readout.StreamingRidge`.

    References
    ----------
    Golub, Heath and Wahba (1979), "Generalized cross-validation as a method for choosing a good ridge parameter".
    """
    f, y = check_fit(features, targets)
    n, d = f.shape
    feature_mean, target_mean = f.mean(axis=0), y.mean(axis=0)
    squares = float(np.einsum("ij,ij->", f, f))
    centred, y = f - feature_mean, y - target_mean
    if n > d + 1:
        moments = centred.T @ centred, centred.T @ y, float((y**2).sum())
        return solve_ridge(*moments, n, feature_mean, target_mean, squares, alpha)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    refuse_constant(float(values[-1]), n, squares)
    # Below the cut is rounding: the rank ends there. Centring leaves an eigenvalue of 0.
    kept = values > max(n, d) * EPS * values[-1]
    kept[0] = False
    projected = vectors.T @ y
    energy = (projected**2).sum(axis=1)
    rank = int(kept.sum())
    rest = 0.0 if rank == n - 1 else float(energy[~kept].sum())
    alpha, gcv = _choose(values[kept], energy[kept], rest, n, y.shape[1], alpha)
    coefficients = centred.T @ (vectors[:, kept] @ (projected[kept] / (values[kept] + alpha)[:, None]))
    return Ridge(coefficients, target_mean - feature_mean @ coefficients, alpha, gcv)


def solve_ridge(
    gram: FloatArray,
    cross: FloatArray,
    target_squares: float,
    n: int,
    feature_mean: FloatArray,
    target_mean: FloatArray,
    feature_squares: float,
    alpha: float | None = None,
) -> Ridge:
    """Solve from centred moments FᵀF (d, d), FᵀY (d, C), ‖Y‖²; `feature_squares` is ‖F‖² before centring.

    Needs no samples. The cost is that of an eigendecomposition of `gram`.
    """
    values, vectors = np.linalg.eigh(gram)
    refuse_constant(float(values[-1]), n, feature_squares)
    kept = values > max(n, len(values)) * EPS * values[-1]
    kept[: max(0, len(values) - (n - 1))] = False  # no more than n − 1 dimensions in n centred samples
    values, projected = values[kept], vectors[:, kept].T @ cross
    energy = (projected**2).sum(axis=1) / values
    rest = 0.0 if len(values) == n - 1 else max(0.0, target_squares - float(energy.sum()))
    alpha, gcv = _choose(values, energy, rest, n, cross.shape[1], alpha)
    coefficients = vectors[:, kept] @ (projected / (values + alpha)[:, None])
    return Ridge(coefficients, target_mean - feature_mean @ coefficients, alpha, gcv)


def _choose(
    values: FloatArray, energy: FloatArray, rest: float, n: int, n_targets: int, alpha: float | None
) -> tuple[float, float]:
    """Return the penalty and its GCV, from positive eigenvalues, ‖Y‖² along each and what lies outside."""
    spare = n - 1 - len(values)

    def criterion(log_alpha: float) -> float:
        penalty = math.exp(log_alpha)
        keep = penalty / (values + penalty)
        misfit = float((keep**2 * energy).sum()) + rest
        freedom = spare + float(keep.sum())
        return n * misfit / freedom**2 / n_targets

    if alpha is None:
        grid = np.log(values[-1]) + np.linspace(math.log(1e-12), math.log(1e3), 64)
        scores = [criterion(value) for value in grid]
        k = int(np.argmin(scores))
        low, high = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
        best = scipy.optimize.minimize_scalar(criterion, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
        alpha = math.exp(float(best.x) if best.fun <= scores[k] else float(grid[k]))
    alpha = check_real(alpha, "alpha", low=0.0)
    return alpha, criterion(math.log(alpha)) if alpha > 0.0 else math.inf
