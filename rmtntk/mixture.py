r"""K-class Gaussian mixtures x_i ~ N(μ_a/√p, C_a/p), the data model of the theory."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import eigsh

from rmtntk._covariance import check_counts, check_covariances, estimates, trace_products_of
from rmtntk._memory import check_memory
from rmtntk._typing import FloatArray, IntArray, Seed
from rmtntk._validation import (
    as_generator,
    check_array,
    check_choice,
    check_data,
    check_integer,
    check_labels,
    check_real,
)
from rmtntk.errors import AssumptionWarning

__all__ = ["GaussianMixture", "Violation", "toeplitz_covariance"]

# Where a quantity's share of the error reaches that of the fluctuations; see GaussianMixture.check_assumptions.
_MEAN_LIMIT, _TRACE_LIMIT, _NORM_LIMIT = 1.7, 4.0, 2.5
_CHUNK = 1 << 20  # entries that are coloured at a time


@dataclass(frozen=True)
class Violation:
    """One assumption that a mixture breaks.

    Attributes
    ----------
    name : {"mean", "trace", "operator_norm", "weight"}
        Which: ‖μ_a‖/τ_0, |tr(C_a − C°)|/(√p τ_0²), ‖C_a‖/τ_0², or the expected number of samples n w_a.
    label : hashable
        The class a.
    value, limit : float
        What it is, and where it begins to matter; "weight" must not be below its limit, the others not above.
    message : str
        The same in words.
    """

    name: str
    label: Hashable
    value: float
    limit: float
    message: str


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
    classes : sequence of hashable, length K, optional
        Labels of the classes, all different; 0 … K − 1 if not given.
    trace_products : array_like, shape (K, K), optional
        tr(C_a C_b)/p where it is known better than from `covariances`.

    Attributes
    ----------
    means, covariances, weights, classes
        As given; arrays are copies.
    traces : ndarray, shape (K,)
        tr C_a / p.
    trace_products : ndarray, shape (K, K)
        T_ab = tr(C_a C_b)/p (unbiased estimates after :meth:`from_data`).

    Raises
    ------
    ValueError
        If shapes do not fit, a covariance is not symmetric positive semi-definite, weights do not sum to 1, or two
        classes have one name.
    TypeError
        If an argument is no array of numbers, or a class's name is not hashable.

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
        classes: Sequence[Hashable] | None = None,
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
        check_covariances(cov)
        share = np.full(n_classes, 1.0 / n_classes) if weights is None else check_array(weights, "weights", 1)
        if share.shape != (n_classes,) or (share <= 0.0).any() or abs(share.sum() - 1.0) > 1e-9:
            raise ValueError(f"`weights` must be {n_classes} positive numbers that sum to 1, got {share.tolist()}")
        names = tuple(range(n_classes)) if classes is None else _check_names(classes, n_classes)
        products = (
            trace_products_of(cov, p) if trace_products is None else check_array(trace_products, "trace_products", 2)
        )
        if products.shape != (n_classes, n_classes):
            raise ValueError(f"`trace_products` must have shape ({n_classes}, {n_classes}), got {products.shape}")
        values = {
            "means": _own(mu),
            "covariances": _own(cov),
            "weights": _own(share),
            "classes": names,
            "trace_products": _own(products),
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
            Give every class n·weight samples, rounded, in class order, instead of drawing the classes. A class
            whose share is below half a sample may stay empty, as it may when classes are drawn.

        Returns
        -------
        x : ndarray, shape (n, p)
            Rows ~ N(μ_a/√p, C_a/p). Beside it no more than 32 MiB and one p×p matrix are needed.
        labels : ndarray of int, shape (n,)
            Index a of each row's class.

        Raises
        ------
        MemoryLimitError
            If n p numbers do not fit into memory.
        """
        n = check_integer(n, "n", low=1)
        generator = as_generator(rng)
        p = self.n_features
        check_memory(8 * n * p, f"a sample of {n} rows of {p} features", "draw it in parts with one Generator")
        if stratified:
            bounds = np.rint(np.concatenate([[0.0], np.cumsum(self.weights)]) * n).astype(np.int64)
            labels = np.repeat(np.arange(self.n_classes), np.diff(bounds))
        else:
            labels = generator.choice(self.n_classes, size=n, p=self.weights / self.weights.sum())
        x = generator.standard_normal((n, p))
        step = max(1, _CHUNK // p)
        for a in range(self.n_classes):
            rows = np.flatnonzero(labels == a)
            if not len(rows):
                continue
            root = self._root(a)
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                noise = x[part]
                noise = noise @ root.T if root.ndim == 2 else np.multiply(noise, root, out=noise)
                noise += self.means[a]
                x[part] = noise
        x /= np.sqrt(p)
        return x, labels.astype(np.int64)

    def _root(self, a: int) -> FloatArray:
        """A square root of C_a: a number, a diagonal (p,), or R (p, p) with R Rᵀ = C_a."""
        if self.covariances.ndim <= 2:
            return np.asarray(np.sqrt(self.covariances[a]))
        values, vectors = np.linalg.eigh(self.covariances[a])
        # Rounding may leave a singular covariance with eigenvalues a few eps below 0.
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))

    def scaled(self, *, means: float = 1.0, deviations: float = 1.0) -> "GaussianMixture":
        r"""Return the mixture with means s μ_a and covariances C° + s' (C_a − C°).

        Parameters
        ----------
        means, deviations : float
            s and s'. tau0 does not change; (0, 0) leaves one class N(0, C°/p).

        Raises
        ------
        ValueError
            If a covariance ceases to be positive semi-definite, which cannot happen for 0 ≤ s' ≤ 1.
        """
        s = check_real(means, "means")
        r = check_real(deviations, "deviations")
        share = self.weights / self.weights.sum()
        mix = r * np.eye(self.n_classes) + (1.0 - r) * share[None, :]  # C'_a = Σ_b mix_ab C_b
        cov = self.covariances if r == 1.0 else np.tensordot(mix, self.covariances, axes=1)
        try:
            return GaussianMixture(
                s * self.means,
                cov,
                self.weights,
                classes=self.classes,
                trace_products=mix @ self.trace_products @ mix.T,
            )
        except ValueError as error:
            raise ValueError(
                f"`deviations` must leave every C° + s (C_a − C°) positive semi-definite, got {r:g} ({error}): "
                "take one between 0 and 1, or closer to it"
            ) from None

    def check_assumptions(
        self, n: int | None = None, *, warn: bool = True, stacklevel: int = 2
    ) -> tuple[Violation, ...]:
        r"""Return which assumptions of the asymptotic equivalents this mixture is too far from at its size.

        .. math:: \frac{\|\mu_a\|}{\tau_0} \le 1.7\, p^{1/4}, \qquad
                  \frac{|\mathrm{tr}(C_a - C^\circ)|}{\sqrt p\, \tau_0^2} \le 4, \qquad
                  \frac{\|C_a\|}{\tau_0^2} \le 2.5 \sqrt p

        Parameters
        ----------
        n : int, optional
            Number of samples; if given, a class of which less than one is expected (n w_a < 1) is named too. The ratio
            p/n needs no limit: the relative error is about C/√p for p/n from 1/50 to 50, C = .3 … 3.
        warn : bool
            Issue one :class:`~rmtntk.errors.AssumptionWarning` with the number that breaks each assumption.
        stacklevel : int
            As in :func:`warnings.warn`.

        Returns
        -------
        tuple of Violation
            Empty if there is none. All numbers are free of scale.

        Notes
        -----
        The theorem asks for bounded quantities in a limit; a mixture of one size can only be compared with what its
        error is anyway. In units of ‖K‖ that is C/√p, while the neglected terms are O(‖μ_a‖²/p),
        O(|tr(C_a − C°)|/p) and O(‖C_a‖/p), *without a further decrease in n and p*. The limits are where the two meet.
        Relative error ‖K − K̃‖/‖K‖ of the CK, p = n = 1000, for ReLU×1, ReLU×3, erf×2, GELU×2:

        ======================== ====== ====== ====== ======
        none                      .014   .046   .042   .037
        ‖μ_a‖ = .3 √p = 1.7 p^¼   .043   .129   .085   .085
        ‖μ_a‖ = √p                .27    .82    .82    .58
        t_a = ±4                  .021   .028   .089   .033
        tr C_a = (1 ± ½) p        .17    .065   .33    .051
        ‖C_a‖ = 50 = 1.6 √p       .034   .078   .094   .061
        ‖C_a‖ = 100 = 3.2 √p      .058   .132   .167   .107
        ======================== ====== ====== ====== ======

        That these do not fall is seen at n = p = 300: .047, .146, .098, .097 for .3 √p; .27, .81, .82, .58 for √p; and
        .15, .057, .35, .041 for (1 ± ½) p. At the limits of mean and norm the error of all four is 2.0 to 3.4 times the
        first row's. A difference of traces also enlarges ‖K‖ (ReLU×3, GELU×2), which may shrink the relative error.
        Activations with E[σ'] = 0 (abs, cos) suffer earlier: |t|×2 goes from .09 to .26 for ‖μ_a‖ = 4, p = 1000.
        ``correction="second_order"`` needs none of these assumptions.
        """
        if n is not None:
            n = check_integer(n, "n", low=1)
        p, square = self.n_features, self.tau0**2
        found = []
        size = np.linalg.norm(self.means, axis=1) / np.sqrt(square)
        t = self.trace_deviations / square
        limit = _NORM_LIMIT * np.sqrt(p)
        for a, name in enumerate(self.classes):
            if size[a] > (most := _MEAN_LIMIT * p**0.25):
                text = (
                    f"‖μ‖ = {size[a]:.3g} τ0 ({size[a] / np.sqrt(p):.2g} √p) exceeds 1.7 p^(1/4) = {most:.3g}: "
                    "the neglected ‖μ‖²/p outweighs the error of O(p^-1/2); remove the common mean of the data"
                )
                found.append(Violation("mean", name, float(size[a]), float(most), text))
            if abs(t[a]) > _TRACE_LIMIT:
                text = (
                    f"tr(C − C°) = {t[a]:.3g} √p τ0² ({abs(t[a]) / np.sqrt(p):.2g} tr C°) exceeds 4 √p τ0²: "
                    "the classes differ in norm by O(1); normalise the rows of the data"
                )
                found.append(Violation("trace", name, float(abs(t[a])), _TRACE_LIMIT, text))
            if (norm := self._norm_above(a, limit * square) / square) > limit:
                text = (
                    f"‖C‖ = {norm:.3g} tr C°/p exceeds 2.5 √p = {limit:.3g}: a few directions carry the variance, so "
                    "that samples are not nearly orthogonal; remove or shrink the leading components"
                )
                found.append(Violation("operator_norm", name, norm, float(limit), text))
            if n is not None and (count := n * float(self.weights[a])) < 1.0:
                text = f"n·weight = {count:.3g} is below 1: a sample of {n} will mostly lack the class"
                found.append(Violation("weight", name, count, 1.0, text))
        if warn and found:
            lines = "; ".join(f"class {v.label!r}: {v.message}" for v in found[:3])
            more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
            warnings.warn(
                f"the mixture is outside the assumptions of the asymptotic equivalent: {lines}{more}. "
                "correction='second_order' does not need them",
                AssumptionWarning,
                stacklevel=stacklevel,
            )
        return tuple(found)

    def _norm_above(self, a: int, limit: float) -> float:
        """‖C_a‖, to 1e-3 relative; or its bound by the Frobenius norm, if that settles the comparison."""
        cov = self.covariances[a]
        if cov.ndim <= 1:
            return float(cov.max())
        bound = float(np.linalg.norm(cov))
        if bound <= limit:
            return bound
        if len(cov) <= 64:
            return float(np.linalg.eigvalsh(cov)[-1])
        start = np.random.default_rng(0).standard_normal(len(cov))  # fixed: the result is deterministic
        return float(eigsh(cov, k=1, which="LA", tol=1e-3, v0=start, return_eigenvectors=False)[0])

    @classmethod
    def from_data(
        cls, x: ArrayLike, labels: Any, *, covariance: str = "full", pooled: bool = False
    ) -> "GaussianMixture":
        r"""Estimate the mixture from labelled samples.

        Parameters
        ----------
        x : array_like, shape (n, p)
            Samples, on the scale the network will see.
        labels : sequence of hashable, shape (n,)
            Class of every row.
        covariance : {"full", "diagonal", "scalar", "traces"}
            Structure of the estimated covariances. "traces" stores tr Ĉ_a/p as "scalar" does but has the
            `trace_products` of "full": all that ``equivalent`` uses, and no p×p matrix is formed if K p > n.
        pooled : bool
            One covariance for all classes, estimated from all n − K degrees of freedom.

        Returns
        -------
        GaussianMixture
            Means and covariances unbiased, and so are all `trace_products` (for "diagonal" and "scalar": if the
            covariances are so in truth). The plain tr(Ĉ_a²)/p would be too large by about (tr C_a)²/(n_a p).

        Raises
        ------
        ValueError
            If there are too few samples. With N_a = n_a − 1 (pooled: n − K) degrees of freedom, tr Ĉ_a and a diagonal
            exist from N_a = 1 on, the unbiased tr C_a² of a full covariance from N_a = 2 on. So a class needs 2 samples
            ("scalar", "diagonal") or 3 ("full", "traces"), or 1 if pooled and others have more.
        MemoryLimitError
            If K covariances of "full" do not fit into memory.

        Notes
        -----
        With Ĉ the usual unbiased covariance of N degrees of freedom, tr C² is estimated by

        .. math:: \frac{N^2}{(N-1)(N+2)} \Bigl(\mathrm{tr}\,\hat C^2 - \frac{(\mathrm{tr}\,\hat C)^2}{N}\Bigr)

        (never negative, since Ĉ has rank N at most), by N/(N+2) Σ_j ĉ_j² for a diagonal, and for a multiple of the
        identity by pN/(pN+2) p ĉ². Different classes are independent: tr(Ĉ_a Ĉ_b) needs no correction.

        References
        ----------
        Bai and Saranadasa (1996), "Effect of high dimension", eq. (3.3), for the unbiased tr(C²) of Gaussian data.
        """
        data = check_data(x, "x")
        names, index = check_labels(labels, len(data))
        check_choice(covariance, "covariance", ("full", "diagonal", "scalar", "traces"))
        if not isinstance(pooled, bool):
            raise TypeError(f"`pooled` must be True or False, got {pooled!r}")
        counts = np.bincount(index, minlength=len(names))
        n_classes, p = len(names), data.shape[1]
        check_counts(counts, names, covariance, pooled)
        if covariance == "full":
            advice = "take covariance='traces', which is enough for rn.equivalent, 'diagonal', 'scalar' or pooled=True"
            kept = 1 if pooled else n_classes
            check_memory(8 * (2 * kept + 2) * p * p, f"{kept} full covariance(s) of {p} features", advice)
        means = np.stack([data[index == a].mean(axis=0) for a in range(n_classes)])
        if pooled:
            groups, freedom = [data - means[index]], np.array([len(data) - n_classes])
        else:
            groups, freedom = [data[index == a] - means[a] for a in range(n_classes)], counts - 1
        covariances, products = estimates(groups, freedom, covariance)
        if pooled:  # K views of one covariance
            covariances = np.broadcast_to(covariances[0], (n_classes, *covariances.shape[1:]))
            products = np.full((n_classes, n_classes), products[0, 0])
        return cls(
            means * np.sqrt(p), covariances, counts / counts.sum(), classes=tuple(names), trace_products=products
        )


def _own(array: FloatArray) -> FloatArray:
    """Copy an array, of which classes may share one entry; it stays shared."""
    if array.ndim > 1 and array.strides[0] == 0:
        return np.broadcast_to(array[0].copy(), array.shape)
    return array.copy()


def _check_names(classes: Any, n_classes: int) -> tuple[Hashable, ...]:
    try:
        names = tuple(classes)
    except TypeError:
        raise TypeError(f"`classes` must be a sequence of {n_classes} labels, got {classes!r}") from None
    if len(names) != n_classes:
        raise ValueError(f"`classes` must name {n_classes} classes, got {len(names)}")
    try:
        distinct = set(names)
    except TypeError:
        raise TypeError("`classes` must hold hashable values (numbers, strings, tuples), got unhashable ones") from None
    if len(distinct) < len(names):
        again = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"`classes` must name every class differently, got {again!r} more than once")
    return names


def toeplitz_covariance(p: int, rho: float) -> FloatArray:
    """Return the covariance ρ^|i−j| of a stationary autoregressive sequence, shape (p, p); ‖C‖ < (1+|ρ|)/(1−|ρ|).

    Parameters
    ----------
    p : int
        Dimension.
    rho : float
        Correlation of neighbours, between −1 and 1, both excluded.
    """
    p = check_integer(p, "p", low=1)
    rho = check_real(rho, "rho", low=-1.0, high=1.0, open_low=True, open_high=True)
    check_memory(16 * p * p, f"a covariance of {p} features", "take fewer features")
    powers = rho ** np.arange(p)
    return np.asarray(powers[np.abs(np.arange(p)[:, None] - np.arange(p))])
