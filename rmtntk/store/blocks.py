r"""Rectangles of exact kernels, computed one at a time with the tables of the whole data.

The rows are followed through the layers once; every block then takes its part of these tables, so that a kernel put
together from blocks is the one computed at once, up to the order in which BLAS sums up a product. Where the tables of
all rows do not fit they are made for the rows of each block.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._blas import one_blas_thread
from rmtntk._jit import layout
from rmtntk._threads import get_num_threads
from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_choice, check_dtype, check_pair, check_squares
from rmtntk.certificate import Certificate, certify, check_accuracy
from rmtntk.dual import Plan, plan
from rmtntk.errors import InfiniteDiagonalError
from rmtntk.kernels import Diagonal, check_diagonal, check_network, check_range
from rmtntk.moments import has_jump
from rmtntk.network import Network, layer_scales, tau0_of
from rmtntk.store.grid import Grid
from rmtntk.tiles import TILE, fill, squares

__all__ = ["KINDS", "Blocks", "check_kinds"]

KINDS = ("ck", "nngp", "ntk")
_CHUNK = 8192  # rows whose squared norms are taken together
_SAMPLE = 256  # rows whose tables are weighed
_WORK = 5  # peak while tables are made, in units of the tables: 1.5 for ReLU, 2.3 for ELU, 4.5 for custom, measured


def check_kinds(kind: Any) -> tuple[tuple[str, ...], bool]:
    """Return the kinds, and whether there was one outside of a sequence."""
    if isinstance(kind, str):
        return (check_choice(kind, "kind", KINDS),), True
    if not isinstance(kind, list | tuple) or not kind:
        raise TypeError(f"`kind` must be one of 'ck', 'nngp', 'ntk' or a tuple of them, got {kind!r}")
    kinds = tuple(check_choice(name, f"kind[{k}]", KINDS) for k, name in enumerate(kind))
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"`kind` must name each kernel once, got {kind!r}")
    return kinds, False


class Blocks:
    """Blocks of the kernels of one network on one data set.

    Parameters
    ----------
    net : Network
        Where its `tau0` is None, that of `x` is set.
    x, y : array_like, shape (n, p), (m, p)
        Samples; y None for the symmetric kernel. A memory map of the result's type is read block by block.
    kinds : tuple of str
        Kernels, each of "ck", "nngp", "ntk".
    dtype : {float64, float32}
        Of the results.
    diagonal : "nan", float or ndarray, optional
        As for :func:`rmtntk.ntk`.

    Attributes
    ----------
    whole : bool
        Whether the tables are those of all rows, after :meth:`prepare`.
    """

    def __init__(
        self,
        net: Network,
        x: ArrayLike,
        y: ArrayLike | None,
        kinds: tuple[str, ...],
        dtype: Any,
        diagonal: Diagonal,
    ) -> None:
        check_network(net)
        self.kinds = kinds
        self.dtype = check_dtype(dtype)
        rows, others = check_pair(x, y, keep_float32=self.dtype == np.float32, finite=False)
        self.x, self.y = _aligned(rows), None if others is None else _aligned(others)
        columns = self.x if self.y is None else self.y
        self.shape = (len(self.x), len(columns))
        self.symmetric = self.y is None
        self.want_ck, self.want_ntk = "ck" in kinds or "nngp" in kinds, "ntk" in kinds
        self.jumps = self.want_ntk and any(has_jump(act) for act in net.activations)
        self.infinite = check_diagonal(diagonal, len(self.x), symmetric=self.symmetric)
        if self.jumps and self.symmetric and diagonal is None:
            raise InfiniteDiagonalError(
                "the NTK of a network with jumps (steps, sign, heaviside) is infinite on the diagonal: pass "
                "diagonal='nan', a number or an array of shape (n,), or kind='ck'"
            )
        self._factor = net.input_factor(self.x.shape[1])
        self._squares = self._factor * _squares(self.x, "x")
        self._other_squares = self._squares if self.y is None else self._factor * _squares(self.y, "y")
        self.net = net if net.tau0 is not None else net.with_tau0(tau0_of(net, self._squares))
        self.scales = layer_scales(self.net, tau0_of(self.net, self._squares))
        self.whole = False
        self._plans: tuple[Plan, Plan] | None = None
        self._table: Plan | None = None
        self._track = False

    def table_bytes(self, rows: int) -> int:
        """Estimate the memory that tables of so many rows need while they are made."""
        norms = np.sqrt(self._all_squares())
        order = np.argsort(norms)[:: max(1, len(norms) // _SAMPLE)]
        table = plan(self.net, self.scales, np.append(norms[order], norms.max()), self._factor)
        return int(_WORK * _nbytes(table) / (len(order) + 1) * rows)

    def work_bytes(self, tile: int) -> int:
        """Estimate what a block of tile × tile takes: results, the engine's buffers, and tables of its rows."""
        side_rows, side_columns = min(tile, self.shape[0]), min(tile, self.shape[1])
        planes = layout.N_PLANES_WITH_ERRORS * layout.PLANE * 8
        buffers = get_num_threads() * (planes + min(TILE, side_rows) * min(TILE, side_columns) * 8)
        results = len(self.kinds) * side_rows * side_columns * self.dtype.itemsize
        rows = (side_rows + side_columns) * self.x.shape[1] * self.x.itemsize
        return results + buffers + rows + self.table_bytes(side_rows + side_columns)

    def prepare(self, *, whole: bool) -> None:
        """Make the tables of all rows, or leave them to every block."""
        self.whole = whole
        if not whole:
            self._plans = self._table = None
            return
        with one_blas_thread():
            both = plan(self.net, self.scales, np.sqrt(self._all_squares()), self._factor)
            certificate = certify(self.net, both, want_ntk=self.want_ntk)
        n = self.shape[0]
        first, second = (both, both) if self.symmetric else (both[:n], both[n:])
        self._check(both, first, second, certificate)
        self._plans, self._table, self._track = (first, second), both, certificate.track

    def _all_squares(self) -> FloatArray:
        return self._squares if self.symmetric else np.concatenate([self._squares, self._other_squares])

    def _check(self, both: Plan, first: Plan, second: Plan, certificate: Certificate) -> None:
        """Raise if the type cannot hold the kernels, or if they are known less well than they should be."""
        check_range(first, second, self.dtype, want_ck=self.want_ck, want_ntk=self.want_ntk and not self.jumps)
        if "nngp" in self.kinds:
            top = float(np.sqrt(first.ck_diagonal.max()) * np.sqrt(second.ck_diagonal.max()))
            if not top * self.net.weight_std**2 + self.net.bias_std**2 <= float(np.finfo(self.dtype).max):
                raise ValueError(f"`dtype` {self.dtype} cannot hold entries times weight_std²: rescale the data")
        if not certificate.track:
            check_accuracy(self.net, both, certificate.bounds, want_ck=self.want_ck, want_ntk=self.want_ntk)

    def _tables(self, rows: slice, columns: slice, *, square: bool) -> tuple[Plan, Plan, Plan, bool]:
        """Return tables of some rows and columns, those that set the scale, and whether bounds must be followed."""
        if self._plans is not None and self._table is not None:
            first = self._plans[0][rows]
            return first, first if square else self._plans[1][columns], self._table, self._track
        norms = self._squares[rows] if square else np.concatenate([self._squares[rows], self._other_squares[columns]])
        both = plan(self.net, self.scales, np.sqrt(norms), self._factor)
        certificate = certify(self.net, both, want_ntk=self.want_ntk)
        count = rows.stop - rows.start
        first, second = (both, both) if square else (both[:count], both[count:])
        self._check(both, first, second, certificate)
        return first, second, both, certificate.track

    @one_blas_thread()
    def block(self, rows: slice, columns: slice) -> dict[str, AnyArray]:
        """Return the kernels of some rows and columns; on the diagonal of a symmetric one, exactly symmetric."""
        square = self.symmetric and rows == columns
        first, second, table, track = self._tables(rows, columns, square=square)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        ck = np.empty(shape, dtype=self.dtype) if self.want_ck else None
        ntk = np.empty(shape, dtype=self.dtype) if self.want_ntk else None
        own = _part(self.x, rows)
        others = None if square else _part(self.x if self.y is None else self.y, columns)
        with np.errstate(over="ignore"):
            tracked = fill(own, others, first, second, ck, ntk, track=track)
        if track:
            check_accuracy(self.net, table, tracked, want_ck=self.want_ck, want_ntk=self.want_ntk)
        if self.jumps and ntk is not None:
            self._replace_infinite(ntk, rows, columns, square=square)
        found: dict[str, AnyArray] = {}
        for kind in self.kinds:
            if kind == "ntk" and ntk is not None:
                found[kind] = ntk
            elif kind == "ck" and ck is not None:
                found[kind] = ck
            elif ck is not None:
                kernel = ck.copy() if "ck" in self.kinds else ck
                kernel *= self.net.weight_std**2
                kernel += self.net.bias_std**2
                found[kind] = kernel
        return found

    def tile(self, grid: Grid, i: int, j: int) -> dict[str, AnyArray]:
        """Return one tile of every kernel."""
        return self.block(*grid.bounds(i, j))

    def diagonal(self, kind: str) -> AnyArray:
        """Return the diagonal of a symmetric kernel in closed form."""
        if self._plans is not None:
            table = self._plans[0]
            ck, ntk = table.ck_diagonal, table.ntk_diagonal
        else:
            parts = [
                plan(self.net, self.scales, np.sqrt(self._squares[k : k + _CHUNK]), self._factor)
                for k in range(0, self.shape[0], _CHUNK)
            ]
            ck, ntk = (np.concatenate([getattr(part, f"{name}_diagonal") for part in parts]) for name in ("ck", "ntk"))
        if kind == "ck":
            return ck.astype(self.dtype)
        if kind == "ntk":
            values = ntk if self.infinite is None or not self.jumps else np.where(np.isfinite(ntk), ntk, self.infinite)
            if self.jumps and isinstance(self.infinite, np.ndarray):
                values = self.infinite
            return values.astype(self.dtype)
        values = ck.astype(self.dtype)
        values *= self.net.weight_std**2
        values += self.net.bias_std**2
        return values

    def _replace_infinite(self, kernel: AnyArray, rows: slice, columns: slice, *, square: bool) -> None:
        """Put the wanted values where the NTK of a jump is infinite, or say where that is."""
        value = self.infinite
        if square and isinstance(value, np.ndarray):
            np.fill_diagonal(kernel, value[rows])
        bad = ~np.isfinite(kernel)
        if square and isinstance(value, np.ndarray):
            np.fill_diagonal(bad, False)
        if not bad.any():
            return
        if isinstance(value, float):
            kernel[bad] = value
            return
        i, j = (int(k) for k in np.argwhere(bad)[0])
        raise InfiniteDiagonalError(
            f"the NTK of a network with jumps is infinite where inputs coincide or are opposite, as rows "
            f"{rows.start + i} and {columns.start + j} are ({int(bad.sum())} entries of this tile): pass "
            "diagonal='nan' or a number, or remove such rows"
        )


def _aligned(data: AnyArray) -> AnyArray:
    """Return the rows at addresses of whole numbers, which those out of a message need not have.

    NumPy copies others for every product, x twice in x xᵀ, and then no longer sees that this is symmetric.
    """
    return data if data.flags.aligned else data.copy()


def _part(data: AnyArray, rows: slice) -> AnyArray:
    part = data[rows]
    return part if part.flags.writeable else part.copy()  # Numba would compile every loop again for read-only rows


def _squares(data: AnyArray, name: str) -> FloatArray:
    found = np.concatenate([squares(_part(data, slice(k, k + _CHUNK))) for k in range(0, len(data), _CHUNK)])
    check_squares(found, data, name)
    return found


def _nbytes(table: Plan) -> int:
    arrays = [table.rows, table.ck_diagonal, table.ntk_diagonal, table.left, table.row_slope, table.row_ntk]
    for layer in table.layers:
        arrays += [layer.terms, layer.thresholds, layer.upper]
    return sum(array.nbytes for array in arrays)
