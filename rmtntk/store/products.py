"""Products of a tiled kernel with blocks of vectors: every tile is visited once, for both its sides if symmetric."""

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from rmtntk._typing import AnyArray
from rmtntk.store.sources import Cache, stream

__all__ = ["TiledOperator", "multiply"]

_STRIP = 256


def multiply(cache: Cache, block: AnyArray, *, transpose: bool = False) -> AnyArray:
    """Return K B or Kᵀ B, shape (n, k) or (m, k).

    Parameters
    ----------
    cache : Cache
        The tiles.
    block : ndarray, shape (m, k) or (n, k)
        B, of a float type. Sums are in the wider of its type and the tiles', in the order of the tiles, so that the
        result does not depend on the number of threads that read.
    transpose : bool
        Whether to take Kᵀ.

    Returns
    -------
    ndarray
    """
    source = cache.source
    grid = source.grid
    size = grid.m if transpose and not grid.symmetric else grid.n
    out = np.zeros((size, block.shape[1]), dtype=np.result_type(block.dtype, source.dtype))
    if not block.shape[1]:
        return out
    kind = out.dtype

    def work(place: tuple[int, int], tile: AnyArray) -> tuple[AnyArray | None, AnyArray | None]:
        """Return what the tile adds to its rows, and to its columns."""
        rows, columns = grid.bounds(*place)
        down = not transpose or grid.symmetric
        across = transpose if not grid.symmetric else place[0] != place[1]
        above = np.empty((len(tile), block.shape[1]), dtype=kind) if down else None
        below = np.zeros((tile.shape[1], block.shape[1]), dtype=kind) if across else None
        for k in range(0, len(tile), _STRIP):  # another type is made a few rows at a time
            part = tile[k : k + _STRIP].astype(kind, copy=False)
            if above is not None:
                above[k : k + _STRIP] = part @ block[columns]
            if below is not None:
                below += part.T @ block[rows][k : k + _STRIP]
        return above, below

    for (i, j), (above, below) in stream(cache, list(grid.tiles()), work):
        rows, columns = grid.bounds(i, j)
        if above is not None:
            out[rows] += above
        if below is not None:
            out[columns] += below
    return out


class TiledOperator(LinearOperator):  # type: ignore[misc]  # SciPy has no types: its class counts as Any
    """A tiled kernel as SciPy's LinearOperator, in float64; a product with a block of vectors visits each tile once."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(dtype=np.dtype(np.float64), shape=cache.source.grid.shape)
        self._cache = cache

    def _matmat(self, block: Any) -> AnyArray:
        return multiply(self._cache, np.asarray(block, dtype=np.float64))

    def _matvec(self, vector: Any) -> AnyArray:
        return self._matmat(np.asarray(vector).reshape(-1, 1))

    def _rmatmat(self, block: Any) -> AnyArray:
        return multiply(self._cache, np.asarray(block, dtype=np.float64), transpose=True)

    def _rmatvec(self, vector: Any) -> AnyArray:
        return self._rmatmat(np.asarray(vector).reshape(-1, 1))

    def _adjoint(self) -> LinearOperator:
        return self if self._cache.source.grid.symmetric else super()._adjoint()
