"""Checks of features and targets."""

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_data

__all__ = ["ROW_SUM", "check_fit", "check_probabilities", "refuse_constant"]

EPS = float(np.finfo(np.float64).eps)
ROW_SUM = 1e-5  # what a softmax in float32 may miss 1 by


def check_fit(features: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return features (n, d) and targets (n, C), finite, of one length."""
    f = np.asarray(check_data(features, "features"), dtype=np.float64)
    y = np.asarray(check_data(targets, "targets"), dtype=np.float64)
    if len(f) != len(y):
        raise ValueError(
            f"`targets` must have one row per row of `features`, {len(f)}, got shape {y.shape}: "
            "one column an output, one-hot for labels"
        )
    return f, y


def check_probabilities(targets: ArrayLike, name: str = "targets") -> FloatArray:
    """Return rows of at least two probabilities that sum to 1 within 1e-5; every column has some mass."""
    y = np.asarray(check_array(targets, name, 2), dtype=np.float64)
    if y.shape[1] < 2:
        raise ValueError(f"`{name}` must have a column for each of at least two classes, got shape {y.shape}")
    if (y < 0.0).any():
        i, j = (int(k) for k in np.argwhere(y < 0.0)[0])
        raise ValueError(
            f"`{name}` must hold probabilities for a logistic readout, got {y[i, j]:.6g} at index ({i}, {j}): "
            "pass the softmax of scores, or take a ridge readout"
        )
    sums = y.sum(axis=1)
    off = np.abs(sums - 1.0)
    if off.max() > ROW_SUM:
        k = int(off.argmax())
        raise ValueError(
            f"`{name}` must have rows that sum to 1 for a logistic readout, row {k} sums to {sums[k]:.6g}: "
            "pass the softmax of scores, or take a ridge readout"
        )
    empty = y.sum(axis=0) == 0.0
    if empty.any():
        k = int(empty.argmax())
        raise ValueError(
            f"`{name}` must give every class some probability for a logistic readout, column {k} is 0 throughout: "
            "its intercept would be minus infinity; leave the class out"
        )
    return y


def refuse_constant(top: float, n: int, squares: float) -> None:
    """Raise if the largest eigenvalue of the centred Gram matrix is but the rounding of features ‖F‖² = `squares`."""
    if top <= 16.0 * n * EPS**2 * squares:
        raise ValueError("the features are the same for every sample: there is nothing to fit a readout on")
