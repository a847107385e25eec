r"""Which pairs are computed when, and by which thread.

A kernel is made tile by tile. A thread takes the next tile, forms its part of K_0 with NumPy's BLAS in a buffer of its
own, and while that is still in cache takes its blocks through all layers and writes them, mirrored if the kernel is
symmetric, to the outputs. So the only memory beyond the outputs is a buffer and a few planes per thread, and K_0 never
exists as a whole. BLAS is held to one thread meanwhile: which thread makes a tile then changes no bit of it.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rmtntk._jit import block, closed, erf, errors, homogeneous, layout, series, single, step
from rmtntk._jit import near as pairs_near
from rmtntk._threads import Numbers, get_num_threads, run
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.dual import LayerData, Plan
from rmtntk.smooth import NEAR_RULE

__all__ = ["TILE", "fill", "squares"]

TILE = 768  # rows and columns: 4.5 MiB of float64, in the caches, and wide enough for BLAS to run at full speed
DIAGONAL = 256  # at most this much of a tile on the diagonal is made in vain
_PATIENCE = 20.0  # seconds
ONE_THREAD = 1 << 15  # fewer pairs than this are not worth a second thread
_CORES = os.cpu_count() or 1
_MANY = 1 << 20  # numbers to square before more threads help
_LARGE = 1e12  # of scales whose products and quotients float32 holds with ease

Layer = Callable[[FloatArray, int, int, int, int], None]


class Block(NamedTuple):
    """Rows i0 … i0 + m − 1 against columns j0 … j0 + w − 1."""

    i0: int
    m: int
    j0: int
    w: int


def fill(
    x: AnyArray,
    y: AnyArray | None,
    first: Plan,
    second: Plan,
    ck: AnyArray | None,
    ntk: AnyArray | None,
    *,
    track: bool = False,
) -> FloatArray:
    """Compute the kernels' entries off the diagonal into `ck` and `ntk`, (n, m), of which one may be None.

    Parameters
    ----------
    x, y : ndarray, shape (n, p), (m, p)
        Rows whose products are K_0, but for a factor; y is None for the symmetric kernel of x, whose diagonal is filled
        as well.
    first, second : Plan
        Plans of the rows of x and y.
    ck, ntk : ndarray, shape (n, m), or None
        Outputs, float64 or float32.
    track : bool
        Follow bounds of what truncated series leave out.

    Returns
    -------
    ndarray, shape (2,)
        Largest such bounds of any entry of CK and NTK; zeros without `track`.
    """
    symmetric = y is None
    columns = x if y is None else y
    n, m = len(x), len(columns)
    direct: Any = layout.DIRECT_SINGLE if x.dtype == np.float32 else layout.DIRECT
    opening, rows_of, columns_of, constants = block.open_block, first.rows, second.rows, first.constants
    steps = _steps(first, second, want_ntk=ntk is not None, track=track)
    kind: np.dtype[Any] = np.dtype(np.float64)
    if _all_single(x, ck, ntk, first, second):
        kind, direct, opening = np.dtype(np.float32), np.float32(direct), single.open_block
        rows_of, columns_of, constants = (table.astype(kind) for table in (rows_of, columns_of, constants))
        steps = [_all_layers(rows_of, columns_of, constants)]
    close = block.close_symmetric if symmetric else block.close_rectangle
    count = 1 if n * m < ONE_THREAD else get_num_threads()
    jobs = list(_tiles(n, m, symmetric, *_tile_shape(n, m)))
    bounds = np.zeros((count, 2))

    def task(thread: int) -> None:
        state = _take_state((layout.N_PLANES_WITH_ERRORS if track else layout.N_PLANES) * layout.PLANE, kind)
        buffer = np.empty((max(job.m for job in jobs), max(job.w for job in jobs)), dtype=x.dtype)
        for number in numbers:
            tile = jobs[number]
            i0, rows, j0, width = tile
            np.matmul(x[i0 : i0 + rows], columns[j0 : j0 + width].T, out=buffer[:rows, :width])
            for part in _blocks(tile, symmetric):
                if numbers.stopped:
                    return
                if thread == 0:
                    patience.look(number / len(jobs))
                opening(
                    buffer, part.i0 - i0, part.j0 - j0, direct, x, columns, rows_of, columns_of, constants, state, *part
                )  # fmt: skip
                if track:
                    errors.clear(state, part.m, part.w)
                for layer in steps:
                    layer(state, *part)
                if ck is not None:
                    close(state, layout.CK, ck, *part)
                if ntk is not None:
                    close(state, layout.NTK, ntk, *part)
                if track:
                    for which, plane in enumerate((layout.ERROR_CK, layout.ERROR_NTK)):
                        largest = errors.largest(state, plane, *part, symmetric)
                        bounds[thread, which] = max(bounds[thread, which], largest)

        _spare.append(state)

    patience = _Patience(any(layer.pieces is not None for layer in first.layers))
    numbers = Numbers(len(jobs))
    run(task, count, numbers)
    if symmetric:
        if ck is not None:
            np.fill_diagonal(ck, first.ck_diagonal)
        if ntk is not None:
            np.fill_diagonal(ntk, first.ntk_diagonal)
    return bounds.max(axis=0)


class _Patience:
    """Warn once, after a while, if a kernel will take minutes because its rows are nearly parallel."""

    def __init__(self, watch: bool) -> None:
        self._start = time.perf_counter() if watch else math.inf

    def look(self, done: float) -> None:
        """Take note of the share of tiles begun."""
        elapsed = time.perf_counter() - self._start
        if elapsed > _PATIENCE and done < 0.5:
            self._start = math.inf
            left = f"about {elapsed / done / 60.0:.0f} minutes" if done > 0.0 else "very long"
            warnings.warn(
                f"this kernel will take {left}: most of its rows are nearly parallel, where an activation without a "
                "closed dual kernel is integrated pair by pair. A larger `tolerance`, centered=True, or an activation "
                "with a closed form (docs/activations.md) is fast",
                RuntimeWarning,
                stacklevel=2,
            )


# States of finished computations, for the next: touching new memory costs more than a small kernel. Lists are safe to
# append to and pop from in several threads.
_spare: list[AnyArray] = []
_SPARE_COUNT = 4


def _take_state(size: int, kind: np.dtype[Any]) -> AnyArray:
    while _spare:
        try:
            state = _spare.pop()
        except IndexError:  # another thread was faster
            break
        if state.size >= size and state.dtype == kind:
            del _spare[_SPARE_COUNT:]
            return state
    return np.empty(size, dtype=kind)


def squares(rows: AnyArray) -> FloatArray:
    """Return ‖x_i‖², (n,), float64; inf or NaN where a row is not finite or too long."""
    out = np.empty(len(rows))
    if rows.size < _MANY:
        block.squared_norms(rows, 0, len(rows), out)
        return out
    count = get_num_threads()
    edges = np.linspace(0, len(rows), count + 1).astype(int)
    run(lambda k: block.squared_norms(rows, int(edges[k]), int(edges[k + 1]), out), count)
    return out


def _all_single(x: AnyArray, ck: AnyArray | None, ntk: AnyArray | None, first: Plan, second: Plan) -> bool:
    """Whether float32 data of a homogeneous network can go through the layers in float32, with room to its limits."""
    if x.dtype != np.float32 or any(layer.loop != "homogeneous" for layer in first.layers):
        return False
    if any(out is not None and out.dtype != np.float32 for out in (ck, ntk)):
        return False
    scales = [plan.rows[layout.HEAD + layout.SCALE :: layout.FIELDS] for plan in (first, second)]
    return all(float(scale.max()) < _LARGE and not ((scale > 0.0) & (scale < 1.0 / _LARGE)).any() for scale in scales)


def _tile_shape(n: int, m: int) -> tuple[int, int]:
    """Rows and columns of a tile: whole blocks, few enough for the caches and many enough for all cores.

    The number of threads must not enter: BLAS adds up an entry in an order that depends on the shape of the product.
    """
    if n * m < ONE_THREAD:
        return min(TILE, n), min(TILE, m)
    share = math.ceil(math.sqrt(n * m / (1.5 * _CORES)) / layout.ROWS) * layout.ROWS
    return min(TILE, share), min(TILE, share)


def _tiles(n: int, m: int, symmetric: bool, rows: int, columns: int) -> Iterator[Block]:
    """Cut the kernel into tiles, long rows of them first; of a symmetric one those with an entry below the diagonal."""
    for i in range((n - 1) // rows * rows, -1, -rows):
        top = min(rows, n - i)
        stop = i if symmetric else m
        for j in range(0, stop, columns):
            yield Block(i, top, j, min(columns, stop - j))
        if symmetric:
            yield from _triangle(i, top)


def _triangle(i: int, size: int) -> Iterator[Block]:
    """Cut a square on the diagonal in quarters, less the upper one, again and again: BLAS makes whole rectangles."""
    if size <= DIAGONAL:
        yield Block(i, size, i, size)
        return
    half = -(-size // 2 // layout.ROWS) * layout.ROWS
    yield from _triangle(i, half)
    yield Block(i + half, size - half, i, half)
    yield from _triangle(i + half, size - half)


def _blocks(tile: Block, symmetric: bool) -> Iterator[Block]:
    """Cut a tile into blocks; of a symmetric kernel only those with an entry below the diagonal."""
    j1 = tile.j0 + tile.w
    for i in range(tile.i0, tile.i0 + tile.m, layout.ROWS):
        m = min(layout.ROWS, tile.i0 + tile.m - i)
        for j in range(tile.j0, min(j1, i + m) if symmetric else j1, layout.WIDTH):
            stop = min(j + layout.WIDTH, j1, i + m) if symmetric else min(j + layout.WIDTH, j1)
            yield Block(i, m, j, stop - j)


def _steps(first: Plan, second: Plan, *, want_ntk: bool, track: bool) -> list[Layer]:
    """Return the loops that take a block from the first layer to the last; runs of homogeneous layers are one."""
    steps: list[Layer] = []
    k = 0
    while k < len(first.layers):
        stop = k + 1
        if first.layers[k].loop == "homogeneous" and not track:
            while stop < len(first.layers) and first.layers[stop].loop == "homogeneous":
                stop += 1
            steps.append(_homogeneous(first, second, k, stop))
        else:
            steps.append(_layer(first, second, k, want_ntk=want_ntk, track=track))
        k = stop
    return steps


def _all_layers(rows: AnyArray, columns: AnyArray, constants: AnyArray) -> Layer:
    def run(state: FloatArray, i0: int, m: int, j0: int, w: int) -> None:
        single.layers(rows, columns, constants, state, i0, m, j0, w)

    return run


def _homogeneous(first: Plan, second: Plan, k: int, stop: int) -> Layer:
    def run(state: FloatArray, i0: int, m: int, j0: int, w: int) -> None:
        homogeneous.layers(first.rows, second.rows, first.constants, k, stop, state, i0, m, j0, w)

    return run


def _layer(first: Plan, second: Plan, k: int, *, want_ntk: bool, track: bool) -> Layer:
    """One layer: covariances, the next correlation, and for pairs near ρ = ±1 that from the features' distance."""
    own, other = first.layers[k], second.layers[k]
    constants = first.constants
    head = (first.rows, second.rows, constants, k)
    covariances, distances = _loops(own, other)
    left = (own.bend.kind, own.bend.size, own.order, first.left[k], second.left[k])

    def run(state: FloatArray, i0: int, m: int, j0: int, w: int) -> None:
        place = (state, i0, m, j0, w)
        for loop, arrays in covariances:
            loop(*head, *arrays, *place)
        if block.hand_on(*head, *place) > 0:
            for loop, arrays in distances:
                loop(*head, *arrays, *place)
            block.from_distance(*head, *place)
        if track:
            errors.carry(*head, *left, *place)
        if want_ntk or track:
            block.advance(constants, k, state, m, w)

    return run


_Loops = list[tuple[Any, tuple[Any, ...]]]


def _loops(own: LayerData, other: LayerData) -> tuple[_Loops, _Loops]:
    """Return the loops that fill CK and SLOPE, and those that fill WORK with distances, with their arrays."""
    if own.loop in _PLAIN:
        first, second = _PLAIN[own.loop]
        return [(first, ())], [] if second is None else [(second, ())]
    if own.loop == "rectified":
        return [(closed.rectified, (own.terms,))], [(closed.rectified_distances, (own.terms,))]
    terms = (own.terms, other.terms)
    filling: _Loops = [(series.covariances, (*terms, own.tails))]
    if own.loop == "step":
        near = (own.jumps, own.thresholds, other.thresholds, own.upper, other.upper, step.RULES)
        filling.append((step.covariances, near))
    if own.pieces is not None:
        filling.append((pairs_near.covariances, (own.pieces, NEAR_RULE)))
        return filling, [(pairs_near.distances, ())]
    return filling, [(series.distances, terms)]


_PLAIN: dict[str, tuple[Any, Any]] = {
    "homogeneous": (homogeneous.covariances, homogeneous.distances),
    "erf": (erf.covariances, erf.distances),
    "jump": (step.jump_at_zero, None),
    "trig": (closed.trig, closed.trig_distances),
    "exponential": (closed.exponential_family, closed.exponential_distances),
    "gaussian": (closed.gaussian, closed.gaussian_distances),
    "gelu": (closed.gelu, closed.gelu_distances),
    "exp_normalized": (closed.exp_normalized, closed.exp_normalized_distances),
}
