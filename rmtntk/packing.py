r"""Ternary weights in bits: two bit planes a matrix, and what other packings would cost.

Weights in {−1, 0, 1} are held as two planes of 64-bit words, one bit a weight each: *nonzero* and *negative*.
Row k of a matrix occupies whole words; bits past its end are zero.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtntk._typing import Seed
from rmtntk._validation import as_generator, check_integer, check_real

__all__ = ["PackedTernary", "bits_per_weight", "pack", "sample_ternary"]

WORD = 64
_LITTLE = np.dtype("<u8")  # the same bits in the same order on every platform, also in files


@dataclass(frozen=True, eq=False)
class PackedTernary:
    """A matrix with entries in {−1, 0, 1}, two bits a weight.

    Attributes
    ----------
    nonzero, negative : ndarray of uint64, shape (rows, ceil(columns / 64))
        Bit planes; bit b of word w belongs to column 64 w + b.
    columns : int
        Number of columns.
    """

    nonzero: NDArray[np.uint64]
    negative: NDArray[np.uint64]
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.nonzero.shape[0], self.columns

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.columns

    @property
    def nbytes(self) -> int:
        """Bytes of both planes."""
        return self.nonzero.nbytes + self.negative.nbytes

    @property
    def n_nonzero(self) -> int:
        """Number of weights that are not zero."""
        return (
            int(np.bitwise_count(self.nonzero).sum())
            if hasattr(np, "bitwise_count")
            else int(np.abs(self.unpack()).sum())
        )

    def unpack(self, rows: slice = slice(None)) -> NDArray[np.int8]:
        """Return (a slice of) the rows as int8."""
        return _bits(self.nonzero[rows], self.columns) - 2 * _bits(self.negative[rows], self.columns)


def _bits(plane: NDArray[np.uint64], columns: int) -> NDArray[np.int8]:
    as_bytes = np.ascontiguousarray(plane.astype(_LITTLE, copy=False)).view(np.uint8)
    return np.unpackbits(as_bytes, axis=1, count=columns, bitorder="little").view(np.int8)


def _plane(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    rows, columns = mask.shape
    padded = np.zeros((rows, WORD * math.ceil(columns / WORD)), dtype=np.bool_)
    padded[:, :columns] = mask
    words = np.packbits(padded, axis=1, bitorder="little").view(_LITTLE)
    return words.astype(np.uint64, copy=False)


def pack(weights: ArrayLike) -> PackedTernary:
    """Pack a matrix of {−1, 0, 1}; ``pack(w).unpack()`` is `w` again.

    Raises
    ------
    ValueError
        If `weights` is not a non-empty matrix with entries −1, 0, 1.
    """
    array = np.asarray(weights)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"`weights` must be a non-empty matrix, got shape {array.shape}")
    if array.dtype.kind not in "iuf" or not np.isin(array, (-1, 0, 1)).all():
        raise ValueError("`weights` must have entries -1, 0 and 1 only")
    return PackedTernary(_plane(array != 0), _plane(array < 0), array.shape[1])


def sample_ternary(rows: int, columns: int, sparsity: float, rng: Seed) -> NDArray[np.int8]:
    """Draw independent weights: 0 with probability `sparsity`, else ±1 with equal probability."""
    rows = check_integer(rows, "rows", low=1)
    columns = check_integer(columns, "columns", low=1)
    sparsity = check_real(sparsity, "sparsity", low=0.0, high=1.0, open_high=True)
    generator = as_generator(rng)
    signs = 2 * generator.integers(0, 2, size=(rows, columns), dtype=np.int8) - 1
    if sparsity > 0.0:
        signs *= generator.random((rows, columns), dtype=np.float32) >= sparsity
    return signs.astype(np.int8, copy=False)


def bits_per_weight(sparsity: float) -> dict[str, float]:
    """Bits a weight takes in each packing, for a share `sparsity` of zeros.

    ``2bit``: two planes; ``trit``: five weights a byte; ``bitmap``: one bit a weight and one a sign;
    ``entropy``: the Shannon bound no lossless code of independent weights beats.
    """
    e = check_real(sparsity, "sparsity", low=0.0, high=1.0)
    entropy = sum(-q * math.log2(q) for q in (e, 1.0 - e) if q > 0.0) + (1.0 - e)
    return {"float32": 32.0, "2bit": 2.0, "trit": 1.6, "bitmap": 1.0 + (1.0 - e), "entropy": entropy}
