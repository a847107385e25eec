"""Integer layers by bit planes: rows in chunks, each taken through all layers by one of our threads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtntk._jit import bitplane, bitwords, bytedot
from rmtntk._threads import Numbers, get_num_threads, run
from rmtntk._typing import FloatArray
from rmtntk.integer.layer import LARGEST_CODE, IntegerLayer, Prepared, prepare_sums, row_sums
from rmtntk.packing import PackedTernary

__all__ = ["accumulate", "multiply", "propagate", "propagate_values"]

WORD = 64
_ROWS = 512  # rows a thread takes at a time: their planes stay in its cache
_FEW = 2  # up to so many rows, weights are used as they are stored
_PLANES_OR_BYTES = 4  # from so many bit planes on, products of bytes are faster where there are any
_ONE_THREAD = 1 << 22  # fewer weights × rows are not worth a second thread


def _threads(work: int, jobs: int) -> int:
    return 1 if work < _ONE_THREAD else min(get_num_threads(), jobs)


def _words(columns: int) -> int:
    return -(-columns // WORD)


def _scratch(words: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A panel of weights and the sums of a tile, both at the beginning of a cache line."""
    panel, sums = 2 * bitwords.LANES * words, bitplane.ROWS * bitwords.LANES
    memory = np.zeros(panel + sums + 8, dtype=np.uint64)
    start = (-memory.ctypes.data // 8) % 8
    return memory[start : start + panel], memory[start + panel : start + panel + sums].view(np.int64)


def _slice(codes: NDArray[np.uint8], prepared: Prepared, columns: int) -> NDArray[np.uint64]:
    """Planes of codes (n, columns), flat (padded n, P, words)."""
    n, words = len(codes), _words(columns)
    n_planes = len(prepared.coefficients)
    planes = np.zeros(-(-n // bitplane.ROWS) * bitplane.ROWS * n_planes * words, dtype=np.uint64)
    buffer = np.zeros((n, words * WORD), dtype=np.uint8)
    for group in range(0, n_planes, 8):
        some = prepared.functions[group : group + 8]
        table = np.zeros(LARGEST_CODE + 1, dtype=np.uint8)
        table[: some.shape[1]] = (some << np.arange(len(some), dtype=np.uint8)[:, None]).sum(axis=0, dtype=np.uint8)
        if (table == np.arange(LARGEST_CODE + 1))[: some.shape[1]].all():
            buffer[:, :columns] = codes
        else:
            np.take(table, codes, out=buffer[:, :columns])
        bitplane.slice_codes(buffer.reshape(-1), n, words, len(some), n_planes, group, planes)
    return planes


def _layer(layer: IntegerLayer, planes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Thermometer planes of the layer's codes, flat (padded n, k − 1, words)."""
    d, below = layer.thresholds.shape
    weights, found = layer.weights, layer.prepared
    padded = -(-n // bitplane.ROWS) * bitplane.ROWS
    out = np.zeros(padded * below * _words(d), dtype=np.uint64)
    if n <= _FEW:
        bitplane.layer_few(
            weights.nonzero, weights.negative, planes, n, found.coefficients, found.thresholds, out
        )  # fmt: skip
    else:
        panel, sums = _scratch(_words(weights.columns))
        bitplane.layer(
            weights.nonzero, weights.negative, planes, padded, found.coefficients, found.thresholds, panel, sums,
            out.view(np.uint16),
        )  # fmt: skip
    return out


def _flips(functions: NDArray[np.uint8]) -> NDArray[np.uint64] | None:
    """f_p(0) and the jumps f_p(j) ⊕ f_p(j − 1) as words of ones or zeros, (P, k); None if the f_p are thermometers."""
    jumps = np.diff(functions, axis=1, prepend=np.uint8(0)) & 1
    if np.array_equal(jumps, np.eye(len(functions), functions.shape[1], k=1)):
        return None
    return np.where(jumps != 0, ~np.uint64(0), np.uint64(0))


def _chunk(layers: Sequence[IntegerLayer], codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Take some rows through all layers; return the thermometer planes of the last codes."""
    n = len(codes)
    if n > _FEW and _takes_bytes(layers[0]):
        planes = _layer_of_bytes(layers[0], codes)
    else:
        planes = _layer(layers[0], _slice(codes, layers[0].prepared, layers[0].weights.columns), n)
    for layer in layers[1:]:
        flips = _flips(layer.prepared.functions)
        if flips is not None:
            fresh = np.zeros(len(planes) // (flips.shape[1] - 1) * len(flips), dtype=np.uint64)
            bitplane.convert(planes, n, _words(layer.weights.columns), flips, fresh)
            planes = fresh
        planes = _layer(layer, planes, n)
    return planes


def _takes_bytes(layer: IntegerLayer) -> bool:
    """Whether products of bytes are possible and faster than so many bit planes."""
    many = len(layer.prepared.coefficients) >= _PLANES_OR_BYTES
    return many and bytedot.available() and layer.values.min() == 0 and layer.values.max() <= LARGEST_CODE


def _layer_of_bytes(layer: IntegerLayer, codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """As `_layer`, of codes."""
    (d, below), words, n = layer.thresholds.shape, _words(layer.weights.columns), len(codes)
    padded = -(-n // bytedot.ROWS) * bytedot.ROWS
    rows = np.zeros((padded, words * WORD), dtype=np.uint8)
    if np.array_equal(layer.values, np.arange(len(layer.values))):
        rows[:n, : layer.weights.columns] = codes
    else:
        rows[:n, : layer.weights.columns] = layer.values.astype(np.uint8)[codes]
    out = np.zeros(padded * below * _words(d), dtype=np.uint64)
    buffer = np.zeros(WORD, dtype=np.int8)
    panel = np.zeros(bytedot.NEURONS * (16 * words + 1), dtype=np.int32)
    panel = panel[(-panel.ctypes.data // 4) % 16 :][: bytedot.NEURONS * 16 * words]
    start, sums = np.zeros(bytedot.NEURONS, dtype=np.int32), np.zeros(bytedot.ROWS * bytedot.NEURONS, dtype=np.int64)
    found = layer.prepared
    bytedot.layer(
        layer.weights.nonzero, layer.weights.negative, rows.reshape(-1).view(np.int32), padded, found.offsets,
        found.thresholds, buffer, buffer.view(np.int32), panel, start, sums, out.view(np.uint16),
    )  # fmt: skip
    return out


def _by_chunks(layers: Sequence[IntegerLayer], codes: NDArray[np.uint8], read: Any, out: NDArray[Any]) -> None:
    """Rows are independent: threads take chunks of them through all layers."""
    work = sum(layer.weights.size for layer in layers) * len(codes)
    threads = _threads(work, len(codes))
    size = min(_ROWS, -(-len(codes) // (threads * bitplane.ROWS)) * bitplane.ROWS)
    starts = range(0, len(codes), size)
    for layer in layers:
        _ = layer.prepared  # by one thread
    d, below = layers[-1].thresholds.shape

    def task(_: int) -> None:
        for number in numbers:
            part = slice(starts[number], starts[number] + size)
            planes = _chunk(layers, codes[part])
            buffer = np.empty(_words(d) * WORD, dtype=np.uint8)
            read(planes, len(out[part]), _words(d), below, buffer, out[part])

    numbers = Numbers(len(starts))
    _run(task, min(threads, len(starts)), numbers)


def _run(task: Any, threads: int, numbers: Numbers) -> None:
    """As `run`, for tasks without BLAS: alone, they need none of its preparations."""
    if threads == 1:
        task(0)
    else:
        run(task, threads, numbers)


def propagate(layers: Sequence[IntegerLayer], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the codes of the last layer, (n, d), of valid input codes (n, d_in)."""
    out = np.empty((len(codes), layers[-1].weights.shape[0]), dtype=np.uint8)
    _by_chunks(layers, codes, bitplane.read_codes, out)
    return out


def propagate_values(layers: Sequence[IntegerLayer], codes: NDArray[np.uint8], table: FloatArray) -> FloatArray:
    """Return table[code] of the last layer's codes."""
    out = np.empty((len(codes), layers[-1].weights.shape[0]))

    def read(
        planes: NDArray[np.uint64], n: int, words: int, below: int, buffer: NDArray[np.uint8], part: FloatArray
    ) -> None:
        bitplane.read_values(planes, n, words, below, buffer, table, part)

    _by_chunks(layers, codes, read, out)
    return out


def accumulate(
    weights: PackedTernary, values: NDArray[np.int32], codes: NDArray[np.uint8], dtype: Any = np.int64
) -> NDArray[Any]:
    """Return Σ_j T_ij values[code_j], (n, d), exactly, of valid codes (n, d_in)."""
    out = np.empty((len(codes), weights.shape[0]), dtype=dtype)
    prepared = prepare_sums(weights, values)
    planes = _slice(codes, prepared, weights.columns)
    _products(weights, planes, prepared.coefficients, prepared.offsets, out)
    return out


def _products(
    weights: PackedTernary,
    planes: NDArray[np.uint64],
    coefficients: NDArray[np.int64],
    offsets: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    n, work = len(out), weights.size * len(out)
    threads = _threads(work, n)
    size = min(2 * _ROWS, -(-n // (threads * bitplane.ROWS)) * bitplane.ROWS)
    starts = range(0, n, size)

    def task(_: int) -> None:
        panel, sums = _scratch(_words(weights.columns))
        for number in numbers:
            start = starts[number]
            bitplane.product(
                weights.nonzero, weights.negative, planes, coefficients, offsets, start, min(n, start + size), panel,
                sums, out,
            )  # fmt: skip

    numbers = Numbers(len(starts))
    _run(task, min(threads, len(starts)), numbers)


def multiply(weights: PackedTernary, inputs: PackedTernary) -> NDArray[np.int32]:
    """Return the product of ternary matrices inputs · weightsᵀ, (n, d), exactly.

    Parameters
    ----------
    weights : PackedTernary, shape (d, m)
        One matrix.
    inputs : PackedTernary, shape (n, m)
        The other.

    Raises
    ------
    ValueError
        If the numbers of columns differ.

    Notes
    -----
    Costs two popcounts per 64 products. y = 1[y ≥ 0] + 1[y > 0] − 1, two planes of inputs.
    """
    if inputs.columns != weights.columns:
        raise ValueError(f"`inputs` must have the weights' {weights.columns} columns, got {inputs.columns}")
    n, words = inputs.nonzero.shape
    planes = np.zeros((-(-n // bitplane.ROWS) * bitplane.ROWS, 2, words), dtype=np.uint64)
    planes[:n, 0] = ~inputs.negative
    planes[:n, 1] = inputs.nonzero & ~inputs.negative
    out = np.empty((n, weights.shape[0]), dtype=np.int32)
    negative = np.empty(weights.shape[0], dtype=np.int64)
    bitplane.count_rows(weights.negative, negative)
    ones = np.ones(2, dtype=np.int64)
    _products(weights, planes.reshape(-1), ones, 2 * negative + row_sums(weights), out)
    return out
