r"""Which pairs are computed when, and by which thread.

A kernel is made tile by tile. A thread takes the next tile, forms its part of K_0 with NumPy's BLAS in a buffer of its
own, and while that is still in cache takes its blocks through all layers and writes them, mirrored if the kernel is
symmetric, to the outputs. So the only memory beyond the outputs is a buffer and a few planes per thread, and K_0 never
exists as a whole. BLAS is held to one thread meanwhile: which thread makes a tile then changes no bit of it.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rmtntk._jit import block, closed, erf, errors, homogeneous, layout, series, step
from rmtntk._threads import get_num_threads, run
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.dual import LayerData, Plan

__all__ = ["TILE_COLUMNS", "TILE_ROWS", "fill"]

TILE_ROWS = 512
TILE_COLUMNS = 1024
ONE_THREAD = 1 << 15  # fewer pairs than this are not worth a second thread

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
    steps = _steps(first, second, want_ntk=ntk is not None, track=track)
    direct = layout.DIRECT_SINGLE if x.dtype == np.float32 else layout.DIRECT
    close = block.close_symmetric if symmetric else block.close_rectangle
    count = 1 if n * m < ONE_THREAD else get_num_threads()
    jobs = list(_tiles(n, m, symmetric, *_tile_shape(n, m, count)))
    bounds = np.zeros((count, 2))

    def task(thread: int) -> None:
        state = np.empty((layout.N_PLANES_WITH_ERRORS if track else layout.N_PLANES) * layout.PLANE)
        buffer = np.empty((max(job.m for job in jobs), max(job.w for job in jobs)), dtype=x.dtype)
        while (number := next(counter)) < len(jobs):
            tile = jobs[number]
            i0, rows, j0, width = tile
            np.matmul(x[i0 : i0 + rows], columns[j0 : j0 + width].T, out=buffer[:rows, :width])
            for part in _blocks(tile, symmetric):
                block.open_block(
                    buffer, part.i0 - i0, part.j0 - j0, direct, x, columns, first.rows, second.rows,
                    first.constants, state, *part,
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
                    for kind, plane in enumerate((layout.ERROR_CK, layout.ERROR_NTK)):
                        largest = errors.largest(state, plane, *part, symmetric)
                        bounds[thread, kind] = max(bounds[thread, kind], largest)

    counter = itertools.count()
    run(task, count)
    if symmetric:
        if ck is not None:
            np.fill_diagonal(ck, first.ck_diagonal)
        if ntk is not None:
            np.fill_diagonal(ntk, first.ntk_diagonal)
    return bounds.max(axis=0)


def _tile_shape(n: int, m: int, threads: int) -> tuple[int, int]:
    """Rows and columns of a tile: whole blocks, small enough for the caches and for all threads to have some."""
    share = math.sqrt(n * m / (8.0 * threads))
    rows = min(TILE_ROWS, max(layout.ROWS, int(share) // layout.ROWS * layout.ROWS))
    columns = min(TILE_COLUMNS, max(layout.WIDTH, int(2.0 * share) // layout.WIDTH * layout.WIDTH))
    return rows, columns


def _tiles(n: int, m: int, symmetric: bool, rows: int, columns: int) -> Iterator[Block]:
    """Cut the kernel into tiles, the largest first; of a symmetric one those with an entry below the diagonal."""
    for i in range((n - 1) // rows * rows, -1, -rows):
        top = min(rows, n - i)
        for j in range(0, i + top if symmetric else m, columns):
            yield Block(i, top, j, min(columns, (i + top if symmetric else m) - j))


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
