r"""Products with powers of a Gram matrix, every tile formed once for both its sides.

A symmetric kernel's tile (i, j) serves rows i and, transposed, rows j: n² p operations a product instead of 2 n² p.
Rows are brought to unit norm, so that entries of X Xᵀ are correlations and every power fits float32.
"""

import numpy as np

from rmtntk._threads import Numbers, get_num_threads, run
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.operator import Equivalent

__all__ = ["Product"]

_SIDE = 1024  # of a tile: 4 MiB in float32
_GROUPS = 8  # sums kept apart: their order, hence the result, does not depend on the number of threads


class Product:
    """B ↦ K̃ B for a symmetric operator, in the cheapest way.

    Parameters
    ----------
    operator : Equivalent
        Symmetric.
    dtype : type
        Of the tiles: float64, or float32 for products to about 1e-6 of ‖K̃‖ ‖B‖ at half the time. Sums over tiles
        are in float64, and the linear terms and the low rank are as well where no tiles are formed.

    Attributes
    ----------
    calls : int
        Products so far.
    """

    def __init__(self, operator: Equivalent, dtype: type = np.float64) -> None:
        self.operator = operator
        self.dtype = np.dtype(dtype)
        self.calls = 0
        self.tiled = False
        squares = sum(term.left.shape[1] for term in operator.terms if term.power == 2)
        self._through_square = 4.0 * operator.shape[0] * operator.rows.shape[1] ** 2 * squares
        if operator.degree < 2:
            return
        self.tiled = True
        used = operator.rows.any(axis=0)  # pixels that are always 0
        rows = operator.rows if used.all() else operator.rows[:, used]
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        safe = np.where(norms > 0.0, norms, 1.0)
        self._rows = np.empty(rows.shape, dtype=self.dtype)
        np.divide(rows, safe[:, None], out=self._rows, casting="same_kind")
        self._factors: list[tuple[int, AnyArray, AnyArray]] = []
        for term in operator.terms:
            lift = safe[:, None] ** float(term.power)
            self._factors.append(
                (term.power, (term.left * lift).astype(self.dtype), (term.right * lift).astype(self.dtype))
            )

    def __call__(self, block: FloatArray) -> FloatArray:
        """Return K̃ B, shape (n, k)."""
        self.calls += 1
        operator = self.operator
        n, p = operator.rows.shape
        by_squares = operator.degree == 2 and self._through_square * block.shape[1] < n * n * float(p)
        if not self.tiled or (by_squares and not operator.streamed):
            return np.asarray(operator @ block)
        out = np.asarray(operator.factor @ (operator.core @ (operator.factor_right.T @ block)))
        if operator.shift is not None:
            out += operator.shift[:, None] * block
        scale = float(np.abs(block).max(initial=0.0))
        if scale > 0.0:
            out += scale * self._tiles(np.ascontiguousarray(block / scale, dtype=self.dtype))
        return out

    def _tiles(self, block: AnyArray) -> FloatArray:
        """Sum over the tiles on and above the diagonal."""
        n = len(block)
        strips = -(-n // _SIDE)
        groups = min(_GROUPS, strips)
        sums = np.zeros((groups, *block.shape))
        # strip i has strips − i tiles: to and fro over the groups evens them out
        turn = np.arange(strips) % (2 * groups)
        owner = np.where(turn < groups, turn, 2 * groups - 1 - turn)
        numbers = Numbers(groups)

        def work(_: int) -> None:
            tile = np.empty((_SIDE, _SIDE), dtype=self.dtype)
            spare, gram = np.empty_like(tile), np.empty_like(tile)
            for group in numbers:
                for strip in np.flatnonzero(owner == group):
                    if numbers.stopped:
                        return
                    self._strip(int(strip) * _SIDE, block, sums[group], (gram, tile, spare))

        run(work, min(get_num_threads(), groups), numbers)
        out = sums[0]
        for other in sums[1:]:
            out += other
        return out

    def _strip(self, start: int, block: AnyArray, out: FloatArray, buffers: tuple[AnyArray, ...]) -> None:
        """Add one strip of tiles, from the diagonal on; Horner's rule over the powers."""
        n = len(block)
        stop = min(start + _SIDE, n)
        for first in range(start, n, _SIDE):
            last = min(first + _SIDE, n)
            gram, tile, spare = (buffer.ravel()[: (stop - start) * (last - first)] for buffer in buffers)
            shape = (stop - start, last - first)
            gram, tile, spare = gram.reshape(shape), tile.reshape(shape), spare.reshape(shape)
            np.matmul(self._rows[start:stop], self._rows[first:last].T, out=gram)
            fresh = True
            for power in range(self.operator.degree, 0, -1):
                for own, left, right in self._factors:
                    if own == power:
                        np.matmul(left[start:stop], right[first:last].T, out=tile if fresh else spare)
                        if not fresh:
                            tile += spare
                        fresh = False
                if not fresh:
                    tile *= gram
            out[start:stop] += tile @ block[first:last]
            if first > start:
                out[first:last] += tile.T @ block[start:stop]
