"""Kernel ridge regression and Gaussian processes with the kernel of a wide network."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_real, to_host
from rmtntk.errors import AccuracyError
from rmtntk.estimators.base import KernelRidgeBase
from rmtntk.estimators.networks import KernelKind, diagonal, evaluate, row_blocks
from rmtntk.estimators.penalty import check_alpha
from rmtntk.estimators.scaling import check_weights
from rmtntk.estimators.spectral import Problem

__all__ = ["NTKRegressor", "RidgePath"]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class RidgePath:
    """Criteria along penalties, every array of shape (k,).

    Attributes
    ----------
    alphas : ndarray
    gcv, loo : ndarray
        Generalised cross-validation and mean squared leave-one-out residual, per target.
    log_likelihood : ndarray
        Log marginal likelihood, summed over targets.
    degrees_of_freedom : ndarray
    """

    alphas: FloatArray
    gcv: FloatArray
    loo: FloatArray
    log_likelihood: FloatArray
    degrees_of_freedom: FloatArray


class NTKRegressor(MultiOutputMixin, RegressorMixin, KernelRidgeBase):  # type: ignore[misc]  # no types
    r"""Ridge regression with the neural tangent or conjugate kernel of an infinitely wide network.

    .. math:: \min_{f, b} \sum_i s_i (y_i - b - f(x_i))^2 + \alpha \|f\|^2 ,

    which is the posterior mean of y_i = b + f(x_i) + ε_i with f ~ GP(0, σ² K), ε_i ~ N(0, σ² α / s_i) and a flat prior
    of b.

    Parameters
    ----------
    activations : str, Activation or list of these
        One for all `depth` layers, or a list with one a layer, whose length is the depth. Names may have parameters,
        ``"leaky_relu(0.1)"``, and be joined by commas, ``"relu,erf"``.
    depth : int
        Number of layers, if `activations` is one.
    kernel : {"ntk", "ck", "nngp"}
        Activations that jump have no NTK. "ck" and "nngp" are covariances of random networks (of the last features, and
        of the outputs).
    alpha : float, {"gcv", "loo", "lml"} or array_like of float
        Penalty α in units of the kernel, (K + αI)⁻¹, not multiplied by n. A name searches 1e-12 to 1e3 times the
        largest eigenvalue by that criterion; an array is tried by `criterion`. Either costs no second decomposition.
    criterion : {"gcv", "loo", "lml"}
        Generalised cross-validation, leave-one-out squared error, or marginal likelihood. For lists in `alpha` only.
    weight_std, bias_std : float
        Standard deviations of weights and biases.
        Odd activations without biases have odd kernels, and so do the fits.
    centered : bool
        Whether the activations' mean is subtracted, as the theory has it.
    standardize : {"auto", "common", "features"} or None
        As in :class:`NTKClassifier`. Targets are not scaled: σ² takes their scale.
    fit_intercept : bool
        Whether b is fitted, without penalty; otherwise it is 0.
    keep_spectrum : bool
        Keep the eigenvectors, n² numbers, which `return_std`, `path` and `predict_path` need.

    Attributes
    ----------
    alpha_, alphas_, criterion_values_, standardize_, degrees_of_freedom_, network_, mean_, scale_, n_features_in_
        As in :class:`NTKClassifier`.
    X_fit_ : ndarray, shape (n, p)
        Mapped rows of positive weight.
    dual_coef_ : ndarray, shape (n, C)
    intercept_ : ndarray, shape (C,)
    signal_variance_ : ndarray, shape (C,)
        σ² of every target by restricted maximum likelihood.
    noise_variance_ : ndarray, shape (C,)
        σ² α, of a row of weight 1.
    loo_score_ : float
        R² of the leave-one-out predictions, averaged over targets.

    Raises
    ------
    InfiniteDiagonalError
        In fit, for the NTK of an activation that jumps.
    MemoryLimitError
        In fit, if three n × n matrices do not fit into memory; the message has alternatives.
    TypeError, ValueError
        In fit, if a parameter is outside its domain.

    Notes
    -----
    A fit costs O(n² p + n³), a prediction O(n p) a row, with its standard deviation O(n² + n p).

    With "ck" or "nngp" the posterior is that of a Bayesian network of infinite width. With "ntk" it is that of the
    Gaussian process whose covariance is the NTK. Its standard deviation is not the spread of trained networks (Lee et
    al. 2019, eq. 16, which needs both kernels).

    References
    ----------
    Rasmussen and Williams (2006), sections 2.2, 2.7 (flat prior of the mean), 5.4.2 (leave-one-out); Golub, Heath and
    Wahba (1979); Lee et al. (2018), "Deep neural networks as Gaussian processes".

    Examples
    --------
    >>> import numpy as np
    >>> from rmtntk.estimators import NTKRegressor
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> model = NTKRegressor("erf", depth=1, bias_std=0.5, alpha="lml").fit(x, np.sin(3 * x[:, 0]))
    >>> mean, std = model.predict(np.array([[0.3], [3.0]]), return_std=True)
    >>> bool(abs(mean[0] - np.sin(0.9)) < 1e-3), bool(std[1] > 10 * std[0])
    (True, True)
    """

    def __init__(
        self,
        activations: Any = "relu",
        depth: int = 3,
        *,
        kernel: KernelKind = "ntk",
        alpha: Any = "gcv",
        criterion: Literal["gcv", "loo", "lml"] = "gcv",
        weight_std: float = 1.0,
        bias_std: float = 0.0,
        centered: bool = True,
        standardize: Literal["auto", "common", "features"] | None = "auto",
        fit_intercept: bool = True,
        keep_spectrum: bool = True,
    ) -> None:
        self.activations = activations
        self.depth = depth
        self.kernel = kernel
        self.alpha = alpha
        self.criterion = criterion
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.centered = centered
        self.standardize = standardize
        self.fit_intercept = fit_intercept
        self.keep_spectrum = keep_spectrum

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: Any = None) -> "NTKRegressor":
        """Fit to rows X (n, p) and targets y, (n,) or (n, C); rows of weight 0 are left out.

        Raises
        ------
        TypeError, ValueError
            If the data are not finite dense numbers.
        """
        given = to_host(y, "y")
        data, targets = validate_data(
            self, to_host(X, "X"), given, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        targets = np.asarray(targets, dtype=np.float64)
        if not np.isfinite(targets).all():  # arrays of objects pass scikit-learn's own check
            raise ValueError("`y` must be finite numbers, got NaN, None or infinity")
        weights = check_weights(sample_weight, len(data))
        used = weights > 0.0
        if used.sum() < 2:
            raise ValueError("`sample_weight` must leave at least two rows, got positive weight for one sample")
        data, targets, weights = data[used], targets[used], weights[used]
        self._one_output = targets.ndim == 1
        columns = targets.reshape(len(targets), -1)
        found = self._fit(np.ascontiguousarray(data), columns, weights, weights)
        self._store(found)
        problem = found.problem
        self._problem = problem if self.keep_spectrum else None
        self.signal_variance_ = problem.signal_variance(self.alpha_)
        self.noise_variance_ = self.alpha_ * self.signal_variance_
        self.loo_score_ = self._leave_one_out_score(problem, columns, weights)
        return self

    def _leave_one_out_score(self, problem: Problem, columns: FloatArray, weights: FloatArray) -> float:
        mean = weights @ columns / weights.sum()
        spread = weights @ (columns - mean) ** 2
        misfit = weights @ problem.leave_one_out(self.alpha_) ** 2
        return float(np.mean(1.0 - misfit[spread > 0.0] / spread[spread > 0.0])) if (spread > 0.0).any() else 1.0

    def score(self, X: ArrayLike, y: Any, sample_weight: Any = None) -> float:
        """Return R²; labels and weights may be tensors, as in :meth:`fit`."""
        weights = to_host(sample_weight, "sample_weight")
        return float(super().score(X, to_host(y, "y"), None if weights is None else np.asarray(weights)))

    def predict(
        self, X: ArrayLike, return_std: bool = False, return_cov: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Return the posterior mean, (m,) or (m, C), and its standard deviation or covariance if wanted.

        Parameters
        ----------
        X : array_like, shape (m, p)
        return_std : bool
            Also return the standard deviation of b + f, shaped as the mean. That of an observation is
            sqrt(std² + noise_variance_).
        return_cov : bool
            Instead, return the covariance of b + f, (m, m) or (m, m, C).

        Raises
        ------
        ValueError
            If both are asked for, or the eigenvectors were not kept.
        AccuracyError
            If a variance is negative by more than rounding, n eps of the prior variance; within that it is 0.
        """
        if return_std and return_cov:
            raise ValueError("`return_std` and `return_cov` must not both be True: take the diagonal of the covariance")
        if not return_std and not return_cov:
            return self._shape(self._scores(X))
        problem = self._kept("`return_std` and `return_cov`")
        mean, rows = self._scores(X), self._rows(X)
        if return_cov:
            check_memory(24 * len(rows) ** 2, f"the covariance of {len(rows)} rows", "take return_std or fewer rows")
            cov = self._covariance(problem, rows)[:, :, None] * self.signal_variance_
            return self._shape(mean), cov[:, :, 0] if self._one_output else cov
        variance = self._variance(problem, rows)
        return self._shape(mean), self._shape(np.sqrt(variance[:, None] * self.signal_variance_))

    def path(self, alphas: ArrayLike) -> RidgePath:
        """Return the criteria at positive penalties, each in O(n² C).

        Raises
        ------
        TypeError, ValueError
            If a penalty is not positive, or the eigenvectors were not kept.
        """
        problem = self._kept("`path`")
        values = np.atleast_1d(np.asarray(check_alpha(np.atleast_1d(np.asarray(alphas)), "gcv")))
        return RidgePath(
            values,
            np.array([problem.gcv(float(a)) for a in values]),
            np.array([problem.loo(float(a)) for a in values]),
            np.array([float(problem.log_likelihood(float(a)).sum()) for a in values]),
            np.array([problem.freedom(float(a)) for a in values]),
        )

    def predict_path(self, X: ArrayLike, alphas: ArrayLike) -> FloatArray:
        """Return predictions for k penalties, (k, m) or (k, m, C), from one kernel matrix and no further fit.

        Raises
        ------
        TypeError, ValueError
            If a penalty is not positive, or the eigenvectors were not kept.
        """
        problem = self._kept("`predict_path`")
        values = np.atleast_1d(np.asarray(check_alpha(np.atleast_1d(np.asarray(alphas)), "gcv")))
        solutions = [problem.solve(float(alpha)) for alpha in values]
        coefficients = np.hstack([dual for dual, _ in solutions])
        rows = self._rows(X)
        out = np.empty((len(rows), coefficients.shape[1]))
        for part in row_blocks(len(rows), len(self.X_fit_)):
            out[part] = evaluate(self.network_, self.kernel, rows[part], self.X_fit_) @ coefficients
        out += np.concatenate([intercept for _, intercept in solutions])
        grid = np.moveaxis(out.reshape(len(rows), len(values), -1), 1, 0)
        return np.ascontiguousarray(grid[:, :, 0] if self._one_output else grid)

    def log_marginal_likelihood(self, alpha: float | None = None) -> float:
        """Return the log marginal likelihood at a penalty, the fitted one if None, summed over targets.

        σ² is the best for that penalty; with an intercept the likelihood is the restricted one, prior density 1 of b.

        Raises
        ------
        TypeError, ValueError
            If the penalty is not positive, a target is constant, or the eigenvectors were not kept.
        """
        problem = self._kept("`log_marginal_likelihood`")
        value = self.alpha_ if alpha is None else check_real(alpha, "alpha", low=0.0, open_low=True)
        return float(problem.log_likelihood(value).sum())

    def _kept(self, what: str) -> Problem:
        check_is_fitted(self)
        if self._problem is None:
            raise ValueError(f"{what} must have the eigenvectors of the fit: set keep_spectrum=True and fit again")
        return self._problem

    def _shape(self, columns: FloatArray) -> FloatArray:
        return columns[:, 0] if self._one_output else columns

    def _variance(self, problem: Problem, rows: FloatArray) -> FloatArray:
        """Return the posterior variance over σ², (m,)."""
        s = problem.spectrum
        prior = diagonal(self.network_, self.kernel, rows)
        out = np.empty(len(rows))
        for part in row_blocks(len(rows), s.n_samples):
            cross = evaluate(self.network_, self.kernel, rows[part], self.X_fit_)
            whitened, own = self._centre(problem, cross)
            out[part] = prior[part] + own - whitened**2 @ (1.0 / (s.values + self.alpha_))
        _check_variance(out, prior, s.n_samples)
        return np.where(out > 0.0, out, 0.0) + (self.alpha_ / s.weight_sum if s.intercept else 0.0)

    def _covariance(self, problem: Problem, rows: FloatArray) -> FloatArray:
        s = problem.spectrum
        prior = evaluate(self.network_, self.kernel, rows)
        cross = evaluate(self.network_, self.kernel, rows, self.X_fit_)
        if s.intercept:
            shift = cross @ (s.root**2 / s.weight_sum)
            prior = prior - shift - shift[:, None] + s.total
        whitened, _ = self._centre(problem, cross)
        whitened /= np.sqrt(s.values + self.alpha_)
        cov = prior - whitened @ whitened.T + (self.alpha_ / s.weight_sum if s.intercept else 0.0)
        return np.asarray(0.5 * (cov + cov.T))

    def _centre(self, problem: Problem, cross: FloatArray) -> tuple[FloatArray, AnyArray | float]:
        """Return k_c(x)ᵀ R V, (m, r), and k_c(x, x) − k(x, x), (m,)."""
        s = problem.spectrum
        own: AnyArray | float = 0.0
        if s.intercept:
            shift = cross @ (s.root**2 / s.weight_sum)
            own = s.total - 2.0 * shift
            cross = cross - s.column - shift[:, None] + s.total
        return (cross * s.root) @ s.kept, own


def _check_variance(variance: FloatArray, prior: FloatArray, n: int) -> None:
    worst = float((variance / np.where(prior > 0.0, prior, 1.0)).min())
    bound = 10.0 * n * _EPS
    if worst < -bound:
        raise AccuracyError(f"a posterior variance is {worst:.1e} of the prior one: take a larger `alpha`", -worst)
