r"""Ridge for samples that do not fit in memory: the sufficient statistics, updated batch by batch.

Kept are n, the means and the centred moments S = Σ (f − f̄)(f − f̄)ᵀ, P = Σ (f − f̄)(y − ȳ)ᵀ, Σ (y − ȳ)². Two parts with
n₁, n₂ samples and differences δ, ε of their means make S = S₁ + S₂ + n₁n₂/(n₁ + n₂) δδᵀ, P likewise with δεᵀ. Sums of
raw products, whose difference n f̄f̄ᵀ cancels where the mean is large, are never formed.
"""

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._memory import check_memory
from rmtntk._typing import FloatArray
from rmtntk._validation import check_real
from rmtntk.readout._checks import check_fit
from rmtntk.readout.ridge import Ridge, solve_ridge

__all__ = ["StreamingRidge"]


class StreamingRidge:
    """Accumulates samples and solves ridge regression on all it has seen, equal to `fit_ridge` to rounding.

    Attributes
    ----------
    n : int
        Samples seen.
    feature_mean, target_mean : ndarray, shapes (d,) and (C,)
    gram : ndarray, shape (d, d)
        Centred FᵀF.
    cross : ndarray, shape (d, C)
        Centred FᵀY.
    target_squares : float
        ‖Y‖², centred.

    Notes
    -----
    Memory O(d² + dC) whatever n is; an update of m rows costs O(m d (d + C)).

    References
    ----------
    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1.
    """

    def __init__(self, n_features: int, n_targets: int) -> None:
        check_memory(8 * n_features**2, f"the Gram matrix of {n_features} features", "take a narrower last layer")
        self.n = 0
        self.feature_mean = np.zeros(n_features)
        self.target_mean = np.zeros(n_targets)
        self.gram = np.zeros((n_features, n_features))
        self.cross = np.zeros((n_features, n_targets))
        self.target_squares = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the statistics."""
        return sum(a.nbytes for a in (self.feature_mean, self.target_mean, self.gram, self.cross)) + 16

    def update(self, features: ArrayLike, targets: ArrayLike) -> "StreamingRidge":
        """Add samples: features (m, d) and targets (m, C)."""
        f, y = check_fit(features, targets)
        for array, wanted, name in ((f, len(self.feature_mean), "features"), (y, len(self.target_mean), "targets")):
            if array.shape[1] != wanted:
                raise ValueError(f"`{name}` must have {wanted} columns as declared, got shape {array.shape}")
        feature_mean, target_mean = f.mean(axis=0), y.mean(axis=0)
        f, y = f - feature_mean, y - target_mean
        self._join(len(f), feature_mean, target_mean, f.T @ f, f.T @ y, float((y**2).sum()))
        return self

    def merge(self, other: "StreamingRidge") -> "StreamingRidge":
        """Add what another accumulator of the same shape has seen; `other` is left as it is."""
        if not isinstance(other, StreamingRidge):
            raise TypeError(f"`other` must be a StreamingRidge, got {other!r}")
        if other.cross.shape != self.cross.shape:
            raise ValueError(f"`other` must have the shape {self.cross.shape} of features and targets, "
                             f"got {other.cross.shape}")  # fmt: skip
        if other.n:
            self._join(other.n, other.feature_mean, other.target_mean, other.gram, other.cross, other.target_squares)
        return self

    def with_targets(self, order: list[int]) -> "StreamingRidge":
        """Return a view with target columns `order`; −1 stands for a new one that was 0 for every sample so far."""
        index = np.array(order, dtype=np.int64)
        view = object.__new__(StreamingRidge)
        view.n, view.feature_mean, view.gram = self.n, self.feature_mean, self.gram
        view.target_squares = self.target_squares
        view.target_mean = np.where(index < 0, 0.0, self.target_mean[index])
        view.cross = np.where(index < 0, 0.0, self.cross[:, index])
        return view

    def solve(self, alpha: float | None = None) -> Ridge:
        """Return the ridge readout of all samples seen; alpha=None chooses it by generalised cross-validation.

        Raises
        ------
        ValueError
            If fewer than two samples were seen, or all have the same features.
        MemoryLimitError
            If the eigendecomposition, three matrices (d, d), does not fit in memory.
        """
        if alpha is not None:
            alpha = check_real(alpha, "alpha", low=0.0)
        if self.n < 2:
            raise ValueError(f"a ridge needs at least two samples, got {self.n}: call update(features, targets) first")
        d = len(self.gram)
        check_memory(24 * d * d, f"the eigendecomposition for {d} features", "take a narrower last layer")
        squares = float(np.trace(self.gram)) + self.n * float(self.feature_mean @ self.feature_mean)
        return solve_ridge(
            self.gram, self.cross, self.target_squares, self.n, self.feature_mean, self.target_mean, squares, alpha
        )

    def _join(
        self,
        n: int,
        feature_mean: FloatArray,
        target_mean: FloatArray,
        gram: FloatArray,
        cross: FloatArray,
        target_squares: float,
    ) -> None:
        total = self.n + n
        weight = self.n * n / total
        delta, shift = feature_mean - self.feature_mean, target_mean - self.target_mean
        self.gram += gram
        self.cross += cross
        self.target_squares += target_squares
        if weight > 0.0:
            self.gram += np.outer(weight * delta, delta)
            self.cross += np.outer(weight * delta, shift)
            self.target_squares += weight * float(shift @ shift)
        self.feature_mean += delta * (n / total)
        self.target_mean += shift * (n / total)
        self.n = total
