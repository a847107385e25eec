"""Transformers: the inputs' scale, and kernels as features for ``kernel="precomputed"``."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from rmtntk._memory import check_memory
from rmtntk._typing import FloatArray
from rmtntk._validation import to_host
from rmtntk.estimators.base import check_standardize
from rmtntk.estimators.networks import KernelKind, build_network, check_fit_memory, evaluate
from rmtntk.estimators.scaling import InputMap, check_weights, fit_map

__all__ = ["InputScaler", "KernelFeatures"]


class InputScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # no types
    """Scale inputs to mean 0 and mean squared norm 1, where the theory and ``tau0=1`` have them.

    Parameters
    ----------
    standardize : {"common", "features"}
        Divide all features by one number, or every feature by its standard deviation and √p.

    Attributes
    ----------
    mean_, scale_ : ndarray, shape (p,)
    n_features_in_ : int

    Raises
    ------
    ValueError
        In fit, if all rows are the same.

    Examples
    --------
    >>> import numpy as np
    >>> from rmtntk.estimators import InputScaler
    >>> x = InputScaler().fit_transform(np.array([[0.0, 1.0], [4.0, 1.0], [2.0, 7.0]]))
    >>> bool(np.isclose((x**2).sum(axis=1).mean(), 1.0))
    True
    """

    def __init__(self, standardize: Literal["common", "features"] = "common") -> None:
        self.standardize = standardize

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: Any = None) -> "InputScaler":
        """Learn mean and scale from rows X (n, p)."""
        kind = check_standardize(self.standardize, ("common", "features"))
        data = validate_data(self, to_host(X, "X"), dtype=np.float64, ensure_min_samples=2)
        weights = check_weights(sample_weight, len(data))
        found = fit_map(data[weights > 0.0], weights[weights > 0.0], kind)
        self.mean_, self.scale_ = found.mean, found.scale
        return self

    def transform(self, X: ArrayLike) -> FloatArray:
        """Return (X − mean) / scale, (m, p)."""
        check_is_fitted(self)
        data = validate_data(self, to_host(X, "X"), dtype=np.float64, reset=False)
        return InputMap(self.mean_, self.scale_, 1.0)(data)

    def __sklearn_tags__(self) -> Any:
        """Return the tags: float32 becomes float64."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class KernelFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # no types
    """Rows of the kernel matrix against the training rows, for estimators with ``kernel="precomputed"``.

    In a pipeline before ``SVC(kernel="precomputed")``, KernelRidge or KernelPCA, the kernel is that of the training
    rows in fit and the cross kernel in predict; cross-validation and grid search see samples in rows and need no care.

    Parameters
    ----------
    activations, depth, kernel, weight_std, bias_std, centered
        As in :class:`rmtntk.estimators.NTKClassifier`.
    standardize : {"common", "features"} or None
        As there, without "auto", which needs targets.

    Attributes
    ----------
    network_ : Network
        With its τ_0.
    X_fit_ : ndarray, shape (n, p)
        Mapped training rows.
    mean_, scale_ : ndarray, shape (p,)
    n_features_in_ : int

    Raises
    ------
    MemoryLimitError
        If the kernel does not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from rmtntk.estimators import KernelFeatures
    >>> x = np.random.default_rng(0).standard_normal((100, 3))
    >>> model = make_pipeline(KernelFeatures("erf", depth=2), SVC(kernel="precomputed", C=100.0))
    >>> model.fit(x, x[:, 0] > 0).score(x, x[:, 0] > 0)
    1.0
    """

    def __init__(
        self,
        activations: Any = "relu",
        depth: int = 3,
        *,
        kernel: KernelKind = "ntk",
        weight_std: float = 1.0,
        bias_std: float = 0.0,
        centered: bool = True,
        standardize: Literal["common", "features"] | None = "common",
    ) -> None:
        self.activations = activations
        self.depth = depth
        self.kernel = kernel
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.centered = centered
        self.standardize = standardize

    def fit(self, X: ArrayLike, y: Any = None) -> "KernelFeatures":
        """Keep the rows X (n, p) and learn their scale."""
        net = build_network(self, self.kernel)
        kind = check_standardize(self.standardize, ("common", "features"))
        data = validate_data(self, to_host(X, "X"), dtype=np.float64, ensure_min_samples=2)
        found = fit_map(data, None, kind)
        self.mean_, self.scale_ = found.mean, found.scale
        self.network_ = net.with_tau0(found.tau0)
        self.X_fit_ = np.ascontiguousarray(found(data))
        self._n_features_out = len(data)
        return self

    def fit_transform(self, X: ArrayLike, y: Any = None) -> FloatArray:
        """Fit and return the kernel of the rows, (n, n), exactly symmetric."""
        self.fit(X, y)
        check_fit_memory(len(self.X_fit_), 1)
        return evaluate(self.network_, self.kernel, self.X_fit_)

    def transform(self, X: ArrayLike) -> FloatArray:
        """Return the kernel of rows X (m, p) against the training rows, (m, n)."""
        check_is_fitted(self)
        data = validate_data(self, to_host(X, "X"), dtype=np.float64, reset=False)
        check_memory(8 * len(data) * len(self.X_fit_), f"a kernel of {len(data)} rows", "take rows in parts")
        rows = np.ascontiguousarray(InputMap(self.mean_, self.scale_, 1.0)(data))
        return evaluate(self.network_, self.kernel, rows, self.X_fit_)

    def __sklearn_tags__(self) -> Any:
        """Return the tags: the kernel is float64."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
