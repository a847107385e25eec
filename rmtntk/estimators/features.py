"""Features of a random ternary network as a scikit-learn transformer."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from rmtntk._typing import FloatArray
from rmtntk._validation import check_choice, check_integer, to_host
from rmtntk.estimators.base import check_standardize
from rmtntk.estimators.networks import build_layers
from rmtntk.estimators.scaling import fit_map
from rmtntk.network import Network
from rmtntk.ternary import compress, input_quantiser

__all__ = ["TernaryFeatures"]


class TernaryFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # no types
    """Features of a random network with weights in {−1, 0, 1} whose Gram matrix approaches a conjugate kernel.

    For data too long for kernel matrices: memory grows with n · widths[-1], and a linear model follows.

    Parameters
    ----------
    activations : str, Activation or list of these
        Of the network that is compressed; as in :class:`rmtntk.estimators.NTKClassifier`.
    depth : int
        Number of layers, if `activations` is one.
    widths : int or sequence of int
        Width of all layers, or of every layer.
    sparsity : float
        Probability in [0, 1) that a weight is 0.
    quantize : {"all", "weights"}
        "all": activations too take `levels` values, matched so that the kernel keeps its linear and quadratic part, at
        the price of noise. "weights" keeps the network's activations, and its accuracy.
    method : {"tight", "data", "layerwise", "paper"}
        How step activations are matched (:func:`rmtntk.match`).
    levels : int, optional
        Values an activation takes, 2 to 8; 3 if not given.
    input_bits : int, optional
        Round inputs to integers of so many bits.
    standardize : {"common"} or None
        Subtract the mean and divide all features by one number, so that the mean squared norm is 1. Where features have
        different units put a StandardScaler first.
    random_state : int, RandomState or None
        Of the weights.

    Attributes
    ----------
    network_ : TernaryNetwork
        Takes raw rows; can be saved and exported.
    n_features_in_ : int

    Raises
    ------
    InfeasibleError
        In fit, if no step activations match; the message says why.
    TypeError, ValueError
        In fit, if a parameter is outside its domain.

    Notes
    -----
    Transforming costs O(Σ d_l d_{l−1}) a row. Features are not centred on the data: let the linear model have
    an intercept.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from rmtntk.estimators import TernaryFeatures
    >>> x = np.random.default_rng(0).standard_normal((100, 20))
    >>> TernaryFeatures(depth=1, widths=50, random_state=0).fit_transform(x).shape
    (100, 50)
    """

    def __init__(
        self,
        activations: Any = "relu",
        depth: int = 3,
        *,
        widths: int | Sequence[int] = 1000,
        sparsity: float = 0.9,
        quantize: Literal["all", "weights"] = "all",
        method: Literal["tight", "data", "layerwise", "paper"] = "tight",
        levels: int | None = None,
        input_bits: int | None = None,
        standardize: Literal["common"] | None = "common",
        random_state: Any = None,
    ) -> None:
        self.activations = activations
        self.depth = depth
        self.widths = widths
        self.sparsity = sparsity
        self.quantize = quantize
        self.method = method
        self.levels = levels
        self.input_bits = input_bits
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> "TernaryFeatures":
        """Learn the scale of the rows X (n, p), match the activations, draw the weights."""
        net = Network(build_layers(self.activations, self.depth))
        check_choice(self.quantize, "quantize", ("all", "weights"))
        kind = check_standardize(self.standardize, ("common",))
        widths: Any = self.widths
        if not isinstance(widths, Sequence | np.ndarray):
            widths = (check_integer(widths, "widths", low=1),) * net.depth
        data = validate_data(self, to_host(X, "X"), dtype=np.float64, ensure_min_samples=2)
        found = fit_map(data, None, kind)
        rows = np.ascontiguousarray(found(data))
        model = compress(
            net.with_tau0(found.tau0),
            rows,
            widths=widths,
            sparsity=self.sparsity,
            rng=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
            method=self.method,
            levels=self.levels,
            activations="ternary" if self.quantize == "all" else "dense",
            input_bits=self.input_bits,
        )
        if kind is not None:
            quantiser = None
            if self.input_bits is not None:
                quantiser = input_quantiser(data, self.input_bits)
            model = model.with_preprocessing(found.mean, float(found.scale[0]), quantiser=quantiser)
        self.network_ = model
        self._n_features_out = model.widths[-1]
        return self

    def transform(self, X: ArrayLike) -> FloatArray:
        """Return the features of rows X (m, p), (m, widths[-1])."""
        check_is_fitted(self)
        data = validate_data(self, to_host(X, "X"), dtype=np.float64, reset=False)
        return self.network_.features(data)

    def __sklearn_tags__(self) -> Any:
        """Return the tags: features are float64."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
