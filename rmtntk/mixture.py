r"""K-class Gaussian mixtures x_i ~ N(μ_a/√p, C_a/p), the data model of the theory."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray, IntArray, Seed
from rmtntk._validation import as_generator, check_array, check_data, check_integer, check_labels

__all__ = ["GaussianMixture"]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    r"""Mixture with class means μ_a and covariances C_a; samples are x_i ~ N(μ_a/√p, C_a/p).

    Parameters
    ----------
    means : array_like, shape (K, p)
        μ_a, of norm O(1) in the theory.
    covariances : array_like, shape (K,), (K, p) or (K, p, p)
        C_a as multiples of the identity, diagonals, or full symmetric positive semi-definite matrices, in
        variance units.
    weights : array_like, shape (K,), optional
        Class proportions, positive, summing to 1; equal if not given.

    Attributes
    ----------
    classes : tuple
        Class labels; 0 … K − 1 unless estimated by :meth:`from_data`.
    traces : ndarray, shape (K,)
        tr C_a / p.
    trace_products : ndarray, shape (K, K)
        T_ab = tr(C_a C_b)/p (unbiased estimates after :meth:`from_data`).

    Raises
    ------
    ValueError
        If shapes do not fit, a covariance is not symmetric positive semi-definite, or weights do not sum to 1.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), Assumption 1.
    """

    means: FloatArray
    covariances: FloatArray
    weights: FloatArray
    classes: tuple[Hashable, ...]
    trace_products: FloatArray

    def __init__(
        self,
        means: ArrayLike,
        covariances: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        classes: tuple[Hashable, ...] | None = None,
        trace_products: ArrayLike | None = None,
    ) -> None:
        mu = check_data(means, "means")
        n_classes, p = mu.shape
        cov = check_array(covariances, "covariances", max(1, min(3, np.ndim(covariances))))
        if cov.shape not in ((n_classes,), (n_classes, p), (n_classes, p, p)):
            raise ValueError(
                f"`covariances` must have shape ({n_classes},), ({n_classes}, {p}) or ({n_classes}, {p}, {p}) "
                f"to fit `means`, got {cov.shape}"
            )
        _check_covariances(cov)
        share = np.full(n_classes, 1.0 / n_classes) if weights is None else check_array(weights, "weights", 1)
        if share.shape != (n_classes,) or (share <= 0.0).any() or abs(share.sum() - 1.0) > 1e-9:
            raise ValueError(f"`weights` must be {n_classes} positive numbers that sum to 1, got {share.tolist()}")
        names = tuple(range(n_classes)) if classes is None else tuple(classes)
        if len(names) != n_classes:
            raise ValueError(f"`classes` must name {n_classes} classes, got {len(names)}")
        products = (
            _trace_products(cov, p) if trace_products is None else check_array(trace_products, "trace_products", 2)
        )
        if products.shape != (n_classes, n_classes):
            raise ValueError(f"`trace_products` must have shape ({n_classes}, {n_classes}), got {products.shape}")
        values = {
            "means": mu,
            "covariances": cov,
            "weights": share,
            "classes": names,
            "trace_products": products,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """Dimension p."""
        return self.means.shape[1]

    @property
    def traces(self) -> FloatArray:
        """Tr C_a / p, shape (K,)."""
        if self.covariances.ndim == 1:
            return self.covariances.copy()
        if self.covariances.ndim == 2:
            return self.covariances.mean(axis=1)
        return np.trace(self.covariances, axis1=1, axis2=2) / self.n_features

    @property
    def tau0(self) -> float:
        """τ_0 = sqrt(tr C°/p), C° = Σ weights_a C_a: the typical norm of a sample as p grows."""
        return float(np.sqrt(self.weights @ self.traces))

    @property
    def trace_deviations(self) -> FloatArray:
        """t_a = tr(C_a − C°)/√p, shape (K,)."""
        traces = self.traces
        return np.asarray((traces - self.weights @ traces) * np.sqrt(self.n_features))

    def sample(self, n: int, rng: Seed, *, stratified: bool = False) -> tuple[FloatArray, IntArray]:
        """Draw samples.

        Parameters
        ----------
        n : int
            Number of samples.
        rng : Generator or int
            Source of randomness.
        stratified : bool
            Give every class n·weight samples, rounded, in class order, instead of drawing the classes.

        Returns
        -------
        x : ndarray, shape (n, p)
            Rows ~ N(μ_a/√p, C_a/p).
        labels : ndarray of int, shape (n,)
            Index a of each row's class.
        """
        n = check_integer(n, "n", low=1)
        generator = as_generator(rng)
        if stratified:
            bounds = np.rint(np.concatenate([[0.0], np.cumsum(self.weights)]) * n).astype(np.int64)
            labels = np.repeat(np.arange(self.n_classes), np.diff(bounds))
        else:
            labels = generator.choice(self.n_classes, size=n, p=self.weights / self.weights.sum())
        x = generator.standard_normal((n, self.n_features))
        for a in range(self.n_classes):
            rows = labels == a
            x[rows] = self._coloured(x[rows], a) + self.means[a]
        x /= np.sqrt(self.n_features)
        return x, labels.astype(np.int64)

    def _coloured(self, noise: FloatArray, a: int) -> FloatArray:
        """Multiply white rows by C_a^{1/2}."""
        if self.covariances.ndim <= 2:
            return np.asarray(noise * np.sqrt(self.covariances[a]))
        values, vectors = np.linalg.eigh(self.covariances[a])
        # Rounding may leave a singular covariance with eigenvalues a few eps below 0.
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(noise @ root.T)

    @classmethod
    def from_data(cls, x: ArrayLike, labels: Any, *, covariance: str = "full") -> "GaussianMixture":
        """Estimate the mixture from labelled samples.

        Parameters
        ----------
        x : array_like, shape (n, p)
            Samples, on the scale the network will see.
        labels : sequence of hashable, shape (n,)
            Class of every row; each class needs at least four samples.
        covariance : {"full", "diagonal", "scalar"}
            Structure of the estimated covariances.

        Returns
        -------
        GaussianMixture
            With `trace_products` estimated without bias: the plain tr(Ĉ_a²)/p of a full estimate is too
            large by about (tr C_a)²/(n_a p).

        References
        ----------
        Bai and Saranadasa (1996), "Effect of high dimension", eq. (3.3), for the unbiased tr(C²) of Gaussian data.
        """
        data = check_data(x, "x")
        names, index = check_labels(labels, len(data))
        if covariance not in ("full", "diagonal", "scalar"):
            raise ValueError(f"`covariance` must be one of 'full', 'diagonal', 'scalar', got {covariance!r}")
        counts = np.bincount(index, minlength=len(names))
        if counts.min() < 4:
            a = int(counts.argmin())
            raise ValueError(
                f"`labels` must give every class at least 4 samples to estimate its covariance, "
                f"got {counts[a]} of class {names[a]!r}"
            )
        p = data.shape[1]
        means = np.stack([data[index == a].mean(axis=0) for a in range(len(names))])
        centred = [(data[index == a] - means[a]) for a in range(len(names))]
        diagonals = np.stack([(rows**2).sum(axis=0) / (len(rows) - 1) * p for rows in centred])
        if covariance == "full":
            covariances = np.stack([rows.T @ rows / (len(rows) - 1) * p for rows in centred])
            products = _unbiased_trace_products(covariances, counts, p)
        elif covariance == "diagonal":
            covariances, products = diagonals, _trace_products(diagonals, p)
        else:
            covariances = diagonals.mean(axis=1)
            products = _trace_products(covariances, p)
        return cls(
            means * np.sqrt(p),
            covariances,
            counts / counts.sum(),
            classes=tuple(names),
            trace_products=products,
        )


def _check_covariances(cov: FloatArray) -> None:
    if cov.ndim <= 2:
        if (cov < 0.0).any():
            raise ValueError(f"`covariances` must be non-negative variances, got a smallest value of {cov.min():.6g}")
    else:
        for a, matrix in enumerate(cov):
            scale = float(np.abs(matrix).max())
            if scale == 0.0:
                continue
            if np.abs(matrix - matrix.T).max() > 1e-10 * scale:
                raise ValueError(f"`covariances[{a}]` must be symmetric")
            tolerance = 1e-9 * scale * len(matrix)  # rounding of a singular covariance
            try:
                np.linalg.cholesky(matrix + tolerance * np.eye(len(matrix)))
            except np.linalg.LinAlgError:
                smallest = float(np.linalg.eigvalsh(matrix)[0])
                raise ValueError(
                    f"`covariances[{a}]` must be positive semi-definite, got a smallest eigenvalue of {smallest:.6g}"
                ) from None
    if not cov.any():
        raise ValueError("`covariances` must not all be zero: the theory needs noise in the data (tau0 > 0)")


def _trace_products(cov: FloatArray, p: int) -> FloatArray:
    if cov.ndim == 1:
        return np.outer(cov, cov)
    flat = cov.reshape(len(cov), -1)
    return np.asarray(flat @ flat.T / p)


def _unbiased_trace_products(cov: FloatArray, counts: IntArray, p: int) -> FloatArray:
    products = _trace_products(cov, p)
    for a, n in enumerate(counts):
        trace = float(np.trace(cov[a]))
        square = products[a, a] * p
        factor = (n - 1) ** 2 / ((n - 2) * (n + 1))
        products[a, a] = max(0.0, factor * (square - trace**2 / (n - 1))) / p
    return products
