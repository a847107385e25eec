r"""Kernel ridge regression and its Gaussian process for every penalty, from one eigendecomposition.

Minimises Σ s_i (y_i − b − f(x_i))² + α ‖f‖² over f and a free intercept b. With s̄ = s/Σs, R = diag(√s), u = R 1
normalised, Q an orthonormal basis of its complement, Qᵀ R K R Q = W diag(λ) Wᵀ and V = Q W,

    f(x) + b = ȳ + (k(x) − K s̄)ᵀ a,   a = R V (λ + α)^{-1} Vᵀ R (y − ȳ),   ȳ = s̄ᵀ y.

The intercept has the direction u and nothing else: leverages, degrees of freedom and the restricted likelihood all come
apart. Q is a Householder reflection, so that V is orthogonal to u to rounding also where λ is small. Centring the
kernel instead would leave u among the eigenvectors of 0, and rounding mixes it into those of small λ. Without
intercept, Q = I, ȳ = 0 and K s̄ is left out.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from rmtntk._typing import FloatArray

__all__ = ["Problem", "Spectrum", "decompose"]

_EPS = float(np.finfo(np.float64).eps)
_ROWS = 256


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigendecomposition of the weighted kernel on the complement of the intercept: n' = n − 1 dimensions, else n.

    Attributes
    ----------
    values : ndarray, shape (r,)
        Eigenvalues above rounding, n eps times the largest, ascending.
    vectors : ndarray, shape (n, n')
        Columns of V; the last r belong to `values`, the others to 0.
    root : ndarray, shape (n,)
        √s.
    repetitions : ndarray, shape (n,)
        How often a row counts: s without the weights of classes.
    column : ndarray, shape (n,)
        K s̄ (zeros without intercept).
    total : float
        s̄ᵀ K s̄.
    intercept : bool
    """

    values: FloatArray
    vectors: FloatArray
    root: FloatArray
    repetitions: FloatArray
    column: FloatArray
    total: float
    intercept: bool

    @property
    def n_samples(self) -> int:
        """Rows n."""
        return len(self.root)

    @property
    def n_dimensions(self) -> int:
        """Dimensions left by the intercept."""
        return self.n_samples - int(self.intercept)

    @property
    def n_null(self) -> int:
        """Dimensions in which the kernel is zero."""
        return self.n_dimensions - len(self.values)

    @property
    def kept(self) -> FloatArray:
        """Eigenvectors of `values`, (n, r), a view."""
        return self.vectors[:, self.n_null :]

    @property
    def null(self) -> FloatArray:
        """The other eigenvectors, a view."""
        return self.vectors[:, : self.n_null]

    @property
    def weight_sum(self) -> float:
        """Σ s."""
        return float((self.root**2).sum())

    @property
    def effective_samples(self) -> float:
        """Sum of the repetitions, or n if that is more."""
        return max(float(self.repetitions.sum()), float(self.n_samples))


def decompose(
    kernel: FloatArray, weights: FloatArray, repetitions: FloatArray | None = None, *, intercept: bool
) -> Spectrum:
    """Decompose the weighted kernel; `kernel` (n, n), C-contiguous, is overwritten.

    Costs 9 n³ operations and 3 n² numbers, `kernel` included.

    Raises
    ------
    ValueError
        If the kernel is constant, so that nothing is left of it.
    """
    root = np.sqrt(weights)
    column, total = np.zeros(len(root)), 0.0
    size = float(np.max(np.diagonal(kernel)))
    if intercept:
        column = kernel @ (weights / weights.sum())
        total = float(column @ weights / weights.sum())
    kernel *= root
    kernel *= root[:, None]
    mirror = None
    if intercept:
        mirror, kernel = _reflect(kernel, root / np.linalg.norm(root))
    # the transpose of a symmetric matrix is the layout that LAPACK overwrites
    values, vectors = scipy.linalg.eigh(kernel.T, overwrite_a=True, check_finite=False, driver="evd")
    n = len(root)
    rank = int((values > n * _EPS * values[-1]).sum())
    if not values[-1] > 10.0 * n * _EPS * size * float(weights.max()) or rank == 0:
        raise ValueError("`X` must have rows that the kernel tells apart, but it is the same for all of them")
    if mirror is not None:
        full = np.empty((n, n - 1), order="F")
        full[:-1] = vectors
        full[-1] = 0.0
        for start in range(0, n - 1, _ROWS):
            part = slice(start, start + _ROWS)
            full[:, part] -= np.multiply.outer(2.0 * mirror, mirror[:-1] @ vectors[:, part])
        vectors = full
    repetitions = weights if repetitions is None else repetitions
    return Spectrum(values[len(values) - rank :].copy(), vectors, root, repetitions, column, total, intercept)


def _reflect(kernel: FloatArray, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return v and the leading block of H K H, in place, for H = I − 2 v vᵀ, which takes `unit` to the last axis."""
    n = len(unit)
    mirror = unit.copy()
    mirror[-1] += 1.0
    mirror /= np.linalg.norm(mirror)
    image = kernel @ mirror
    image -= mirror * float(image @ mirror)
    for start in range(0, n, _ROWS):
        part = slice(start, start + _ROWS)
        kernel[part] -= np.multiply.outer(2.0 * mirror[part], image)
        kernel[part] -= np.multiply.outer(2.0 * image[part], mirror)
    flat = kernel.reshape(-1)
    for i in range(1, n - 1):  # close the gaps that the last column leaves, front to back
        flat[i * (n - 1) : (i + 1) * (n - 1)] = kernel[i, :-1].copy()
    return mirror, flat[: (n - 1) ** 2].reshape(n - 1, n - 1)


class Problem:
    """Targets in the eigenbasis: solutions and criteria as functions of the penalty α.

    Parameters
    ----------
    spectrum : Spectrum
    targets : ndarray, shape (n, C)
    """

    def __init__(self, spectrum: Spectrum, targets: FloatArray) -> None:
        self.spectrum = s = spectrum
        share = s.root**2 / s.weight_sum
        self.mean = share @ targets if s.intercept else np.zeros(targets.shape[1])
        whitened = s.root[:, None] * (targets - self.mean)
        self.projected = s.kept.T @ whitened
        # what lies where the kernel is zero; the direction of the intercept has nothing of the centred targets
        self.outside = s.null @ (s.null.T @ whitened) if s.n_null else np.zeros_like(whitened)
        self.energy = self.projected**2
        self.rest = (self.outside**2).sum(axis=0)
        # up to rounding of the mean
        size = np.abs(targets).max(axis=0) * s.n_samples * _EPS
        self.constant = self.energy.sum(axis=0) + self.rest <= s.weight_sum * size**2

    def solve(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Return dual coefficients (n, C) and intercepts (C,): scores are k(x) @ coefficients + intercepts."""
        s = self.spectrum
        coefficients = s.root[:, None] * (s.kept @ (self.projected / (s.values + alpha)[:, None]))
        return coefficients, self.mean - s.column @ coefficients

    def freedom(self, alpha: float) -> float:
        """Degrees of freedom of the fit, the intercept included."""
        s = self.spectrum
        return float((s.values / (s.values + alpha)).sum()) + int(s.intercept)

    def gcv(self, alpha: float) -> float:
        """Return n ‖√s (y − ŷ)‖² / (n − df)² per target, n the effective number of samples (Golub et al. 1979)."""
        s = self.spectrum
        shrink = alpha / (s.values + alpha)
        misfit = float((shrink**2 @ self.energy).sum()) + float(self.rest.sum())
        # n − df without cancellation
        spare = s.effective_samples - s.n_samples + s.n_null + float(shrink.sum())
        return s.effective_samples * misfit / spare**2 / self.energy.shape[1]

    def leave_one_out(self, alpha: float) -> FloatArray:
        """Return the residuals y_i − ŷ_{−i}, (n, C), of fits without row i; exact at fixed inputs' scale and α.

        Of a row that counts more than once one repetition is left out, the share φ of its weight: the residual is
        (y_i − ŷ_i) / (1 − φ h_i) for leverage h_i.
        """
        s = self.spectrum
        inverse = 1.0 / (s.values + alpha)
        residual = s.kept @ (inverse[:, None] * self.projected)  # over α, in rows with nothing outside
        spare = np.empty(s.n_samples)  # 1 − h over α, there
        outside = np.zeros(s.n_samples)
        for start in range(0, s.n_samples, _ROWS):
            part = slice(start, start + _ROWS)
            spare[part] = s.kept[part] ** 2 @ inverse
            if s.n_null:
                outside[part] = (s.null[part] ** 2).sum(axis=1)
        share = 1.0 / np.maximum(s.repetitions, 1.0)
        # where α cancels it is left out: 1 − h may be as small as rounding, and α = 0 is a limit
        beyond = outside > 10.0 * s.n_samples * _EPS
        apart = beyond | (share < 1.0)
        residual[apart] = alpha * residual[apart] + np.where(beyond[apart, None], self.outside[apart], 0.0)
        left = alpha * spare + np.where(beyond, outside, 0.0)
        spare = np.where(apart, (1.0 - share) + share * left, spare)
        return np.asarray(residual / (s.root * spare)[:, None])

    def loo(self, alpha: float) -> float:
        """Mean of the squared leave-one-out residuals, weighted, per target."""
        s = self.spectrum
        return float((s.root**2 @ self.leave_one_out(alpha) ** 2).mean() / s.weight_sum)

    def signal_variance(self, alpha: float) -> FloatArray:
        """Return σ² (C,) of y ~ N(b, σ² (K + α S⁻¹)) by restricted maximum likelihood."""
        s = self.spectrum
        return np.asarray(((1.0 / (s.values + alpha)) @ self.energy + self._over(alpha)) / s.n_dimensions)

    def _over(self, alpha: float) -> FloatArray:
        return self.rest / alpha if self.spectrum.n_null else np.zeros_like(self.rest)

    def log_likelihood(self, alpha: float) -> FloatArray:
        """Log marginal likelihood (C,) at the best σ²; with an intercept the restricted one, b integrated out.

        The prior of b is flat with density 1.

        Raises
        ------
        ValueError
            If a target is constant, so that σ² is 0.
        """
        s = self.spectrum
        variance = self.signal_variance(alpha)
        if self.constant.any():
            raise ValueError("`y` must vary for a marginal likelihood, got a constant target")
        spread = float(np.log(s.values + alpha).sum()) + (s.n_null * math.log(alpha) if s.n_null else 0.0)
        weights = 2.0 * float(np.log(s.root).sum()) - (math.log(s.weight_sum) if s.intercept else 0.0)
        per_target = s.n_dimensions * (np.log(2.0 * math.pi * variance) + 1.0)
        return np.asarray(-0.5 * (per_target + spread - weights))

    def lml(self, alpha: float) -> float:
        """Return minus the log likelihood, per target: to be minimised as the other criteria."""
        return -float(self.log_likelihood(alpha).mean())
