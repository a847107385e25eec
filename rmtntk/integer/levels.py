"""Levels of step activations as integers in a common unit."""

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmtntk._activation import Activation

__all__ = ["UNITS", "IntegerLevels", "integer_levels"]

UNITS = 1 << 16  # more than the levels of an activation may span
_EXACT = (
    1e-13  # levels this close to multiples of a unit, relative to their range, are those multiples but for rounding
)


class IntegerLevels(NamedTuple):
    """Levels of a step activation as offset + unit · values, to within error.

    Attributes
    ----------
    values : ndarray of int32, shape (k,)
        Integer of every code.
    unit, offset : Fraction
        Exact.
    error : float
        Largest |level − (offset + unit · value)|; rounding only where the levels have a common unit.
    """

    values: NDArray[np.int32]
    unit: Fraction
    offset: Fraction
    error: float


def integer_levels(activation: Activation) -> IntegerLevels:
    """Write the levels of a step as offset + unit · integer.

    The range is divided into the smallest number of equal units, at most 2^16, of which all levels are multiples but
    for rounding: 2 for three equally spaced levels, 1 for {1, 0, 1}. Levels that have no such unit are taken to the
    nearest multiples of the one that fits best, which leaves at most 2^-17 of the range and usually far less.
    """
    return _integer_levels(tuple(activation.levels.tolist()))


@lru_cache(maxsize=256)
def _integer_levels(key: tuple[float, ...]) -> IntegerLevels:
    levels = np.array(key)
    low, high = float(levels.min()), float(levels.max())
    if low == high:
        return IntegerLevels(np.broadcast_to(np.int32(0), len(levels)), Fraction(1), Fraction(low), 0.0)
    share = (levels - low) / (high - low)
    counts = np.arange(1, UNITS)
    gaps = np.zeros(len(counts))
    for value in share:
        gaps = np.maximum(gaps, np.abs(value * counts - np.rint(value * counts)) / counts)
    fitting = gaps <= _EXACT
    n_units = int(counts[np.argmax(fitting)] if fitting.any() else counts[np.argmin(gaps)])
    values = np.rint(share * n_units).astype(np.int32) - n_units // 2
    unit = (Fraction(high) - Fraction(low)) / n_units
    offset = Fraction(low) + unit * (n_units // 2)
    values.setflags(write=False)
    errors = [abs(Fraction(float(level)) - offset - unit * int(v)) for level, v in zip(levels, values, strict=True)]
    return IntegerLevels(values, unit, offset, float(max(errors)))
