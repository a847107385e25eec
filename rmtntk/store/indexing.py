"""NumPy's indexing of a matrix that exists in tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmtntk._typing import AnyArray, IntArray
from rmtntk.store.grid import Grid

__all__ = ["Selection", "gather", "gather_points", "select"]

Tile = Callable[[int, int], AnyArray]


@dataclass(frozen=True, eq=False)
class Selection:
    """What an index asks for: every row with every column, or single entries.

    Attributes
    ----------
    rows, columns : ndarray of int
        1-D for `outer`; otherwise of the result's size each.
    outer : bool
        Whether every row goes with every column.
    shape : tuple of int
        Of the result.
    """

    rows: IntArray
    columns: IntArray
    outer: bool
    shape: tuple[int, ...]


def _expand(key: Any) -> tuple[Any, Any]:
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(part is None for part in parts):
        raise IndexError("a kernel takes no np.newaxis in an index: index it first, then add axes to the result")
    dots = [k for k, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if dots:
        parts[dots[0] : dots[0] + 1] = [slice(None)] * max(0, 3 - len(parts))
    if len(parts) == 1 and np.asarray(parts[0]).dtype == bool and np.ndim(parts[0]) == 2:
        return parts[0], None
    if len(parts) > 2:
        raise IndexError(f"too many indices for a kernel: it has 2 dimensions, but {len(parts)} were indexed")
    return (*parts, slice(None), slice(None))[0], (*parts, slice(None), slice(None))[1]


def _axis(part: Any, size: int, axis: int) -> tuple[IntArray, tuple[int, ...] | None]:
    """Return positions of one axis, and their shape, or None for a slice."""
    if isinstance(part, slice):
        return np.arange(size)[part], None
    array = np.asarray(part)
    if array.size == 0 and array.dtype.kind == "f" and not isinstance(part, np.ndarray):
        array = array.astype(np.int64)  # an empty list
    if array.dtype == bool:
        if array.ndim != 1 or len(array) != size:
            raise IndexError(f"a boolean index of axis {axis} must have shape ({size},), got {array.shape}")
        array = np.flatnonzero(array)
    if array.dtype.kind not in "iu":
        raise IndexError(f"an index must be an integer, a slice or an array of integers or booleans, got {part!r}")
    wanted = array.astype(np.int64)
    bad = (wanted < -size) | (wanted >= size)
    if bad.any():
        raise IndexError(f"index {int(wanted[bad].flat[0])} is out of bounds for axis {axis} with size {size}")
    return np.where(wanted < 0, wanted + size, wanted), array.shape


def select(key: Any, shape: tuple[int, int]) -> Selection:
    """Understand an index as NumPy does."""
    first, second = _expand(key)
    if second is None:
        mask = np.asarray(first)
        if mask.shape != shape:
            raise IndexError(f"a boolean index must have shape {shape}, got {mask.shape}")
        rows, columns = np.nonzero(mask)
        return Selection(rows, columns, False, rows.shape)
    rows, row_shape = _axis(first, shape[0], 0)
    columns, column_shape = _axis(second, shape[1], 1)
    if row_shape is None or column_shape is None or row_shape == () or column_shape == ():
        sizes = ((len(rows),) if row_shape is None else row_shape) + (
            (len(columns),) if column_shape is None else column_shape
        )
        return Selection(rows.ravel(), columns.ravel(), True, sizes)
    together = np.broadcast_shapes(row_shape, column_shape)
    if len(row_shape) == 2 == len(column_shape) and row_shape[1] == 1 == column_shape[0]:  # np.ix_
        return Selection(rows.ravel(), columns.ravel(), True, together)
    return Selection(
        np.broadcast_to(rows, together).ravel(), np.broadcast_to(columns, together).ravel(), False, together
    )


def _groups(positions: IntArray, tile: int) -> list[tuple[int, Any, Any]]:
    """Return for every tile met: its number, places in the result, and places in the tile; slices where they are."""
    number = positions // tile
    found = []
    for k in np.unique(number):
        into = np.flatnonzero(number == k)
        local = positions[into] - k * tile
        found.append((int(k), _compact(into), _compact(local)))
    return found


def _compact(places: IntArray) -> Any:
    start, stop = int(places[0]), int(places[-1]) + 1
    return slice(start, stop) if stop - start == len(places) and (np.diff(places) == 1).all() else places


def _cut(block: AnyArray, rows: Any, columns: Any) -> AnyArray:
    return block[rows][:, columns]


def gather(grid: Grid, tile: Tile, rows: IntArray, columns: IntArray, out: AnyArray) -> None:
    """Fill out, (len(rows), len(columns)), with every row at every column; each tile is asked for once."""
    if not rows.size or not columns.size:
        return
    down, across = _groups(rows, grid.tile), _groups(columns, grid.tile)
    row_groups = {number: (into, local) for number, into, local in down}
    column_groups = {number: (into, local) for number, into, local in across}
    for i, into, local in down:
        for j, into_columns, local_columns in across:
            if grid.symmetric and i > j:
                if j in row_groups and i in column_groups:
                    continue  # filled together with tile (j, i)
                _put(out, into, into_columns, _cut(tile(j, i), local_columns, local).T)
                continue
            block = tile(i, j)
            _put(out, into, into_columns, _cut(block, local, local_columns))
            if grid.symmetric and i < j and j in row_groups and i in column_groups:
                mirror_rows, mirror_columns = row_groups[j], column_groups[i]
                _put(out, mirror_rows[0], mirror_columns[0], _cut(block, mirror_columns[1], mirror_rows[1]).T)


def _put(out: AnyArray, rows: Any, columns: Any, values: AnyArray) -> None:
    if isinstance(rows, slice) or isinstance(columns, slice):
        out[rows, columns] = values
    else:
        out[np.ix_(rows, columns)] = values


def gather_points(grid: Grid, tile: Tile, rows: IntArray, columns: IntArray, out: AnyArray) -> None:
    """Fill out with the entries (rows[k], columns[k]); each tile is asked for once."""
    if grid.symmetric:
        swap = rows // grid.tile > columns // grid.tile
        rows, columns = np.where(swap, columns, rows), np.where(swap, rows, columns)
    number = (rows // grid.tile) * grid.counts[1] + columns // grid.tile
    order = np.argsort(number, kind="stable")
    edges = np.flatnonzero(np.diff(number[order])) + 1
    for part in np.split(order, edges):
        if part.size:
            i, j = int(rows[part[0]]) // grid.tile, int(columns[part[0]]) // grid.tile
            out[part] = tile(i, j)[rows[part] - i * grid.tile, columns[part] - j * grid.tile]
