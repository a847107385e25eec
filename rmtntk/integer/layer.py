"""One layer of integers, and what the loops need of it beside the weights."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmtntk._jit import bitplane, bitwords
from rmtntk.packing import PackedTernary

__all__ = ["LARGEST_CODE", "IntegerLayer", "Prepared", "prepare_sums", "row_sums"]

LARGEST_CODE = 255  # codes are bytes


class Prepared(NamedTuple):
    """Planes y_p = f_p(code) with values[code] = constant + Σ_p coefficients[p] f_p(code), thresholds for their counts.

    functions are f, (P, k); offsets are what the sums of counts are larger by than Σ_j T_j v_j; thresholds are moved by
    as much, (k − 1, padded neurons), flat.
    """

    functions: NDArray[np.uint8]
    coefficients: NDArray[np.int64]
    offsets: NDArray[np.int64]
    thresholds: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One layer: the code of neuron i is how many of thresholds[i] are ≤ Σ_j T_ij values[code_j].

    Attributes
    ----------
    weights : PackedTernary
        T, shape (d, d_in).
    values : ndarray of int32, shape (k_in,)
        Integer of every input code; 0, 1, …, 2^bits − 1 in a first layer.
    thresholds : ndarray of int64, shape (d, k − 1)
        Ascending in every row.
    """

    weights: PackedTernary
    values: NDArray[np.int32]
    thresholds: NDArray[np.int64]

    @cached_property
    def prepared(self) -> Prepared:
        """What the loops need beside the weights, made at first use."""
        return _prepare(self)

    @property
    def nbytes(self) -> int:
        """Bytes held: both planes of the weights (not copied), thresholds twice, values and tables of the loops."""
        own = self.weights.nbytes + self.values.nbytes + self.thresholds.nbytes
        return own + sum(part.nbytes for part in self.prepared if isinstance(part, np.ndarray))


def row_sums(weights: PackedTernary) -> NDArray[np.int64]:
    """Σ_j T_ij of every neuron, from the bits."""
    counts = np.empty((2, weights.shape[0]), dtype=np.int64)
    bitplane.count_rows(weights.nonzero, counts[0])
    bitplane.count_rows(weights.negative, counts[1])
    return np.asarray(counts[0] - 2 * counts[1])


def _functions(values: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Binary digits of the values in their common unit, or one plane per distinct value, whichever is fewer."""
    wide = values.astype(np.int64)
    distinct = np.unique(wide)
    low = int(distinct[0])
    unit = math.gcd(*(int(value) - low for value in distinct)) or 1
    digits = (int(distinct[-1] - low) // unit).bit_length()
    if len(distinct) == 1:
        return np.zeros((1, len(values)), dtype=np.uint8), np.zeros(1, dtype=np.int64), low
    if digits < len(distinct) - 1:
        ranks = (wide - low) // unit
        planes = np.array([(ranks >> p) & 1 for p in range(digits)], dtype=np.uint8)
        return planes, unit << np.arange(digits, dtype=np.int64), low
    return (wide >= distinct[1:, None]).astype(np.uint8), np.diff(distinct), low


def prepare_sums(weights: PackedTernary, values: NDArray[np.int32]) -> Prepared:
    """Planes, factors and offsets for sums of any values; no thresholds."""
    functions, coefficients, constant = _functions(values)
    negative = np.empty(weights.shape[0], dtype=np.int64)
    bitplane.count_rows(weights.negative, negative)
    offsets = negative * int(coefficients.sum()) - constant * row_sums(weights)
    return Prepared(functions, coefficients, offsets, np.zeros(0, dtype=np.int64))


def _prepare(layer: IntegerLayer) -> Prepared:
    found = prepare_sums(layer.weights, layer.values)
    d, below = layer.thresholds.shape
    bound = int(np.abs(layer.values.astype(np.int64)).max()) * layer.weights.columns
    padded = np.full((below, -(-d // bitwords.LANES) * bitwords.LANES), np.iinfo(np.int64).max)
    padded[:, :d] = np.clip(layer.thresholds.T, -bound, bound + 1) + found.offsets
    return found._replace(thresholds=padded.reshape(-1))
