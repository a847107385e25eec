r"""Ternary weights in memory: two bit planes a matrix.

Weights in {−1, 0, 1} are held as two planes of 64-bit words, one bit a weight each: *nonzero* and *negative*.
Row k of a matrix occupies whole words; bits past its end are zero.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["WORD", "Masks", "PackedTernary", "assemble", "block_rows", "masks", "pack", "require_weights"]

WORD = 64  # bits
BLOCK = 1 << 22  # weights in work at a time
ALIGNED = 40  # a multiple of 8 bits and of 5 trits, so that blocks of rows end at whole bytes
_LITTLE = np.dtype("<u8")  # the same bits in the same order on every platform, also in files

Masks: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Where weights are nonzero, and where negative."""


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

    @property
    def n_empty_rows(self) -> int:
        """Number of rows without any weight: neurons whose value does not depend on the input."""
        return self.shape[0] - int(np.count_nonzero(self.nonzero.any(axis=1)))

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


def block_rows(columns: int) -> int:
    """Return how many rows are in work at a time: a multiple of 40, about four million weights."""
    return ALIGNED * max(1, BLOCK // (ALIGNED * columns))


def masks(packed: PackedTernary) -> Iterator[Masks]:
    """Yield where weights are nonzero and where negative, flat in row-major order, a block of rows at a time."""
    step = block_rows(packed.columns)
    for start in range(0, packed.shape[0], step):
        part = slice(start, start + step)
        yield (
            _bits(packed.nonzero[part], packed.columns).view(np.bool_).ravel(),
            _bits(packed.negative[part], packed.columns).view(np.bool_).ravel(),
        )


def assemble(rows: int, columns: int, blocks: Iterable[Masks]) -> PackedTernary:
    """Invert :func:`masks`: pack blocks of rows, given in order, into a matrix."""
    words = math.ceil(columns / WORD)
    nonzero, negative = (np.empty((rows, words), dtype=np.uint64) for _ in range(2))
    start = 0
    for at, below in blocks:
        part = slice(start, start + len(at) // columns)
        nonzero[part], negative[part] = _plane(at.reshape(-1, columns)), _plane(below.reshape(-1, columns))
        start = part.stop
    return PackedTernary(nonzero, negative, columns)


def require_weights(packed: PackedTernary, name: str, sparsity: float) -> int:
    """Return the number of neurons without a weight; raise if no neuron has one.

    A neuron without weights is a constant. It stays, so that widths are what was asked for, and is to be counted
    in reports; a layer of such neurons passes nothing on.

    Raises
    ------
    ValueError
        If every weight is zero.
    """
    empty = packed.n_empty_rows
    if empty == packed.shape[0]:
        raise ValueError(
            f"`sparsity` must leave every layer some weight, got {sparsity:g}, under which {name} of shape "
            f"{packed.shape} has none: lower it, or widen the layer"
        )
    return empty
