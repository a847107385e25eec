"""Affine maps of the inputs to mean 0 and mean squared norm 1, where the theory has them."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk._validation import to_host

__all__ = ["InputMap", "Standardize", "check_weights", "fit_map"]

Standardize = Literal["common", "features"]
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class InputMap:
    """(x − mean) / scale, with one number for every feature.

    Attributes
    ----------
    mean, scale : ndarray, shape (p,)
        Scale is the same everywhere under "common".
    tau0 : float
        sqrt of the weighted mean of ‖(x_i − mean) / scale‖².
    """

    mean: FloatArray
    scale: FloatArray
    tau0: float

    def __call__(self, x: FloatArray) -> FloatArray:
        """Map rows (n, p)."""
        return np.asarray((x - self.mean) / self.scale)


def fit_map(x: FloatArray, weights: FloatArray | None, kind: Standardize | None) -> InputMap:
    """Fit the map to rows (n, p) with positive weights (n,); None leaves them as they are.

    Raises
    ------
    ValueError
        If all rows are the same, or none has a positive norm, or float64 cannot hold the squares.
    """
    n, p = x.shape
    share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    if kind is None:
        tau0 = math.sqrt(float(share @ np.einsum("ij,ij->i", x, x)))
        _check_scale(tau0, "must have a row that is not zero")
        return InputMap(np.zeros(p), np.ones(p), tau0)
    mean = share @ x
    with np.errstate(over="ignore"):
        variance = share @ (x - mean) ** 2
    # what rounding of the mean leaves of a constant feature
    constant = variance <= (n * _EPS * np.abs(mean)) ** 2
    total = math.sqrt(float(variance[~constant].sum()))
    _check_scale(total, "must have rows that differ")
    if kind == "common":
        return InputMap(mean, np.full(p, total), 1.0)
    scale = np.sqrt(np.where(constant, 1.0, variance) * (~constant).sum())
    return InputMap(mean, scale, 1.0)


def _check_scale(value: float, what: str) -> None:
    if not 1e-150 < value < math.inf:
        raise ValueError(f"`X` {what}, on a scale that float64 can square, got the scale {value:.3g}: rescale the data")


def check_weights(sample_weight: Any, n_rows: int) -> FloatArray:
    """Return one weight a row, finite and not negative; None and a number stand for equal ones.

    Raises
    ------
    ValueError
        If the shape is another, an entry is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return np.ones(n_rows)
    weights = np.asarray(to_host(sample_weight, "sample_weight"), dtype=np.float64)
    if weights.ndim == 0:
        weights = np.full(n_rows, float(weights))
    if weights.shape != (n_rows,):
        raise ValueError(f"`sample_weight` must have shape ({n_rows},), got {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0.0).any():
        raise ValueError("`sample_weight` must be finite and not negative")
    if not weights.any():
        raise ValueError("`sample_weight` must have a positive entry, got zeros only")
    return weights
