"""Classification by ridge regression on the classes with the kernel of a wide network."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from rmtntk._typing import AnyArray, FloatArray, IntArray
from rmtntk._validation import to_host
from rmtntk.estimators.base import KernelRidgeBase
from rmtntk.estimators.networks import KernelKind
from rmtntk.estimators.scaling import check_weights

__all__ = ["NTKClassifier"]

_LOG_INVERSE = (-15.0, 15.0)  # of 1/T, beyond which probabilities are equal or certain


class NTKClassifier(ClassifierMixin, KernelRidgeBase):  # type: ignore[misc]  # scikit-learn has no types
    r"""Least-squares classifier with the neural tangent or conjugate kernel of an infinitely wide network.

    Every class has a target, 1 on its rows and −1 elsewhere (two classes share one), fitted by

    .. math:: \min_{f, b} \sum_i s_i (y_i - b - f(x_i))^2 + \alpha \|f\|^2 .

    Parameters
    ----------
    activations : str, Activation or list of these
        One for all `depth` layers, or a list with one a layer, whose length is the depth. Names may have parameters,
        ``"leaky_relu(0.1)"``, and be joined by commas, ``"relu,erf"``.
    depth : int
        Number of layers, if `activations` is one.
    kernel : {"ntk", "ck", "nngp"}
        Activations that jump have no NTK.
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
        "common" subtracts the mean and divides all features by one number, so that the mean squared norm is 1. That is
        right where features have one unit, as pixels do. "features" divides every feature by its own standard
        deviation, as tables need it. "auto" takes the one with the smaller GCV, on at most 1000 evenly spaced rows.
        None leaves the data as they are; the theory then wants them centred with mean squared norm about 1.
    class_weight : dict, "balanced" or None
        Weights of classes, multiplied with `sample_weight`. "balanced" gives all classes the same sum.
    fit_intercept : bool
        Whether b is fitted, without penalty; otherwise it is 0.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
    alpha_ : float
        The penalty.
    alphas_, criterion_values_ : ndarray
        Penalties tried (before the minimum was polished) and the criterion there; smaller is better ("lml" has its sign
        changed).
    standardize_ : str or None
        What "auto" chose.
    loo_score_ : float
        Weighted accuracy of the leave-one-out predictions.
    temperature_ : float
        Divides the scores in :meth:`predict_proba`.
    degrees_of_freedom_ : float
    network_ : Network
        With its τ_0.
    mean_, scale_ : ndarray, shape (p,)
    X_fit_, dual_coef_, intercept_ : ndarray, shapes (n, p), (n, C), (C,)
        Mapped rows of positive weight, coefficients and intercepts; C is 1 for two classes.
    n_features_in_ : int
    feature_names_in_ : ndarray
        If X had names, all strings.

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
    A fit costs O(n² p + n³), prediction O(n p) a row. Weights count as repetitions: a row of weight 2 is the row twice
    (leaving one out leaves one of them); "lml" takes them as precisions, noise of variance
    α/s. "auto" depends on the order of the rows above 1000.

    `predict_proba` is softmax(scores / T). T minimises the log loss of the leave-one-out scores against the classes,
    smoothed as Platt (1999) does so that separable data do not give certainty. Its argmax is that of the scores. It is
    a calibration by one number, which does not undo `class_weight`.

    References
    ----------
    Arora et al. (2020), "Harnessing the power of infinitely wide deep nets on small-data tasks"; Golub, Heath and Wahba
    (1979) for the criterion; Platt (1999); Guo et al. (2017), "On calibration of modern neural networks".

    Examples
    --------
    >>> import numpy as np
    >>> from rmtntk.estimators import NTKClassifier
    >>> x = np.random.default_rng(0).standard_normal((200, 2))
    >>> inside = (x**2).sum(axis=1) < 1.4
    >>> NTKClassifier("relu", depth=2).fit(x[:150], inside[:150]).score(x[150:], inside[150:]) > 0.9
    True
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
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        fit_intercept: bool = True,
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
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept

    def fit(self, X: ArrayLike, y: Any, sample_weight: Any = None) -> "NTKClassifier":
        """Fit to rows X (n, p) and their classes y (n,); rows of weight 0 are left out.

        Raises
        ------
        TypeError, ValueError
            If the data are not finite dense numbers, or there are fewer than two classes.
        """
        data, labels = validate_data(self, to_host(X, "X"), to_host(y, "y"), dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(labels)
        self.classes_, index = np.unique(labels, return_inverse=True)
        given = check_weights(sample_weight, len(data))
        used = given > 0.0
        if len(np.unique(index[used])) < 2:
            raise ValueError("`y` must have at least two classes (of rows with positive weight), got 1 class")
        weights = given * self._class_weights(index, given)[index]
        if not (weights[used] > 0.0).all():
            raise ValueError("`class_weight` must be positive: leave rows out by `sample_weight` 0")
        data, index, given, weights = data[used], index[used], given[used], weights[used]
        targets = 2.0 * (index[:, None] == np.arange(len(self.classes_))) - 1.0
        if len(self.classes_) == 2:
            targets = targets[:, 1:]
        found = self._fit(np.ascontiguousarray(data), targets, weights, given)
        self._store(found)
        left_out = targets - found.problem.leave_one_out(self.alpha_)
        self.loo_score_ = float(given @ (_argmax(left_out) == index) / given.sum())
        self.temperature_ = _temperature(_logits(left_out), index, given)
        return self

    def _class_weights(self, index: IntArray, given: FloatArray) -> FloatArray:
        n_classes = len(self.classes_)
        if self.class_weight is None:
            return np.ones(n_classes)
        if isinstance(self.class_weight, str):
            if self.class_weight != "balanced":
                raise ValueError(f"`class_weight` must be a dict, 'balanced' or None, got {self.class_weight!r}")
            sums = np.bincount(index, given, n_classes)
            present = sums > 0.0
            return np.where(present, given.sum() / (present.sum() * np.where(present, sums, 1.0)), 1.0)
        if not isinstance(self.class_weight, Mapping):
            raise ValueError(f"`class_weight` must be a dict, 'balanced' or None, got {self.class_weight!r}")
        known = self.classes_.tolist()
        strange = [key for key in self.class_weight if key not in known]
        if strange:
            raise ValueError(f"`class_weight` must have classes of `y` for keys, got {strange!r}, not among {known!r}")
        weights = np.array([float(self.class_weight.get(label, 1.0)) for label in known])
        if not (np.isfinite(weights) & (weights > 0.0)).all():
            raise ValueError(f"`class_weight` must hold positive finite numbers, got {dict(self.class_weight)!r}")
        return weights

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return the scores of rows: (m,), positive for ``classes_[1]``, or (m, C) for more than two classes.

        They estimate 2 P(class) − 1 in least squares and are not confined to [−1, 1].
        """
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def score(self, X: ArrayLike, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose class is right; labels and weights may be tensors, as in :meth:`fit`."""
        weights = to_host(sample_weight, "sample_weight")
        return float(super().score(X, to_host(y, "y"), None if weights is None else np.asarray(weights)))

    def predict(self, X: ArrayLike) -> AnyArray:
        """Return the class of every row, (m,)."""
        scores = self._scores(X)
        return np.asarray(self.classes_[_argmax(scores)])

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return probabilities (m, C) calibrated by leaving one out (see Notes)."""
        return np.asarray(scipy.special.softmax(self._scaled(X), axis=1))

    def _scaled(self, X: ArrayLike) -> FloatArray:
        scores = self._scores(X)
        return np.asarray(_logits(scores) / self.temperature_)

    def predict_log_proba(self, X: ArrayLike) -> FloatArray:
        """Return the logarithm of :meth:`predict_proba`."""
        return np.asarray(scipy.special.log_softmax(self._scaled(X), axis=1))


def _logits(scores: FloatArray) -> FloatArray:
    return np.hstack([-0.5 * scores, 0.5 * scores]) if scores.shape[1] == 1 else scores


def _argmax(scores: FloatArray) -> IntArray:
    return np.asarray((scores[:, 0] > 0.0).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(axis=1))


def _temperature(logits: FloatArray, index: IntArray, weights: FloatArray) -> float:
    """Minimise the log loss of softmax(logits / T) against smoothed classes over T; convex in 1/T."""
    n, n_classes = logits.shape
    counts = np.bincount(index, weights, n_classes)
    wanted = np.repeat(1.0 / (counts[index] + n_classes)[:, None], n_classes, axis=1)
    wanted[np.arange(n), index] = (counts[index] + 1.0) / (counts[index] + n_classes)
    wanted *= weights[:, None]

    def slope(log_inverse: float) -> float:
        """Derivative of the log loss by 1/T, which increases."""
        return float(((scipy.special.softmax(logits * np.exp(log_inverse), axis=1) * mass - wanted) * logits).sum())

    mass = wanted.sum(axis=1, keepdims=True)
    low, high = _LOG_INVERSE
    if slope(low) >= 0.0:  # scores worse than none
        return float(np.exp(-low))
    if slope(high) <= 0.0:
        return float(np.exp(-high))
    return float(np.exp(-scipy.optimize.brentq(slope, low, high, xtol=1e-13)))
