"""Loops behind `rmtntk.integer`: products of ternary weights with bit planes of inputs, by AND, XOR and popcount.

For a plane y of bits, weights T in {−1, 0, 1} held as *nonzero* and *negative*, and N the number of negative ones,

    Σ_j T_j y_j = popcount(nonzero & (negative ^ y)) − N,

since a positive weight is counted where y = 1 and a negative one where y = 0, which is one too many for each y = 1.
So a plane costs one popcount per 64 weights, whatever their signs and zeros. All arithmetic is on integers and exact.

The innermost loops are in `bitwords`. Callers pass C-contiguous arrays and sizes that fit: these loops check nothing.
"""

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.bitwords import GROUP, LANES, add_bits, at_least, churn, count_ones, gather_bit, row_sum, tile

ROWS = 8  # padding of the number of rows


@njit()
def fill_panel(nonzero, negative, first, panel):
    """Interleave the words of 16 neurons, zeros beyond the last, so that a vector holds one word of eight of them."""
    neurons, words = nonzero.shape
    lanes = min(LANES, neurons - first)
    if lanes < LANES:
        panel[:] = 0
    for w in range(words):
        start = 2 * LANES * w
        for lane in range(lanes):
            panel[start + lane] = nonzero[first + lane, w]
            panel[start + LANES + lane] = negative[first + lane, w]


@njit()
def sums_of_rows(panel, words, planes, row, n_planes, coefficients, sums):
    """Sums of a few rows against a panel; rows in sums are `rows_at_once` of min(planes, 8)."""
    rows = rows_at_once_jit(n_planes)
    for group in range(0, n_planes, GROUP):
        count = min(GROUP, n_planes - group)
        first = (row * n_planes + group) * words
        tile(panel, words, planes, first, n_planes, rows, count, coefficients, group, sums)


@njit()
def layer(nonzero, negative, planes, n_rows, coefficients, thresholds, panel, sums, out):
    """Thermometer planes of a layer's codes for many rows.

    planes : uint64, flat (n_rows, P, words), rows padded to a multiple of 8
    thresholds : int64, flat (K, padded neurons), already moved by what the counts leave out
    out : uint16, flat (n_rows, K, 4 · words of the output); bit i of plane j: threshold j of neuron i is reached
    """
    neurons, words = nonzero.shape
    n_planes = coefficients.shape[0]
    blocks = (neurons + LANES - 1) // LANES
    n_thresholds = thresholds.shape[0] // (blocks * LANES)
    width = 4 * ((neurons + 63) // 64)
    step = rows_at_once_jit(n_planes)
    for block in range(blocks):
        fill_panel(nonzero, negative, block * LANES, panel)
        for row in range(0, n_rows, step):
            sums_of_rows(panel, words, planes, row, n_planes, coefficients, sums)
            for r in range(step):
                for j in range(n_thresholds):
                    reached = at_least(sums, r * LANES, thresholds, (j * blocks + block) * LANES)
                    out[((row + r) * n_thresholds + j) * width + block] = reached


@njit()
def rows_at_once_jit(planes):
    """`rows_at_once` for the loops; more than eight planes go one row at a time."""
    if planes == 1:
        return 8
    if planes == 2:
        return 4
    return 2 if planes <= 4 else 1


@njit()
def layer_few(nonzero, negative, planes, n_rows, coefficients, thresholds, out):
    """As `layer`, for so few rows that interleaving weights would cost more than it saves."""
    neurons, words = nonzero.shape
    n_planes = coefficients.shape[0]
    padded = LANES * ((neurons + LANES - 1) // LANES)
    n_thresholds = thresholds.shape[0] // padded
    width = (neurons + 63) // 64
    flat_nonzero, flat_negative = nonzero.reshape(-1), negative.reshape(-1)
    for row in range(n_rows):
        for block in range(width):
            last = min(64, neurons - 64 * block)
            for j in range(n_thresholds):
                out[(row * n_thresholds + j) * width + block] = 0
            for b in range(last):
                i = 64 * block + b
                total = np.int64(0)
                for group in range(0, n_planes, GROUP):
                    count = min(GROUP, n_planes - group)
                    first = (row * n_planes + group) * words
                    factors = coefficients[group : group + count]
                    total += row_sum(flat_nonzero, flat_negative, i * words, words, planes, first, count, factors)
                for j in range(n_thresholds):
                    if total >= thresholds[j * padded + i]:
                        out[(row * n_thresholds + j) * width + block] |= np.uint64(1) << np.uint64(b)


@njit()
def product(nonzero, negative, planes, coefficients, offsets, first_row, last_row, panel, sums, out):
    """out[row, i] = sums − offsets[i] for rows from first_row up to last_row, which is not padded."""
    neurons, words = nonzero.shape
    n_planes = coefficients.shape[0]
    step = rows_at_once_jit(n_planes)
    for block in range((neurons + LANES - 1) // LANES):
        fill_panel(nonzero, negative, block * LANES, panel)
        lanes = min(LANES, neurons - block * LANES)
        for row in range(first_row, last_row, step):
            sums_of_rows(panel, words, planes, row, n_planes, coefficients, sums)
            for r in range(min(step, last_row - row)):
                for lane in range(lanes):
                    i = block * LANES + lane
                    out[row + r, i] = sums[r * LANES + lane] - offsets[i]


@njit()
def slice_codes(masks, n_rows, words, n_bits, n_planes, first_plane, planes):
    """Planes of bytes: bit b of masks[row, j] goes to bit j of plane first_plane + b of the row."""
    for row in range(n_rows):
        for b in range(n_bits):
            for w in range(words):
                planes[(row * n_planes + first_plane + b) * words + w] = gather_bit(masks, (row * words + w) * 64, b)


@njit()
def convert(thermometer, n_rows, words, flips, planes):
    """Planes of functions of the code from its thermometer planes, as f(0) ⊕ the jumps of f where the code is larger.

    flips : uint64 (P, K + 1), all ones where f_p(0) = 1 (column 0) or f_p(j) ≠ f_p(j − 1)
    """
    n_planes, n_levels = flips.shape
    below = n_levels - 1
    for row in range(n_rows):
        for p in range(n_planes):
            for w in range(words):
                value = flips[p, 0]
                for j in range(below):
                    value ^= flips[p, j + 1] & thermometer[(row * below + j) * words + w]
                planes[(row * n_planes + p) * words + w] = value


@njit()
def read_row(thermometer, row, words, below, buffer):
    """Codes of a row, 64 for every word, from its thermometer planes."""
    buffer[:] = 0
    for j in range(below):
        for w in range(words):
            add_bits(thermometer[(row * below + j) * words + w], buffer, 64 * w)


@njit()
def read_codes(thermometer, n_rows, words, below, buffer, codes):
    """Codes (n, d) of thermometer planes; buffer has 64 bytes for every word."""
    for row in range(n_rows):
        read_row(thermometer, row, words, below, buffer)
        for i in range(codes.shape[1]):
            codes[row, i] = buffer[i]


@njit()
def read_values(thermometer, n_rows, words, below, buffer, table, out):
    """table[code] (n, d) of thermometer planes."""
    for row in range(n_rows):
        read_row(thermometer, row, words, below, buffer)
        for i in range(out.shape[1]):
            out[row, i] = table[np.int64(buffer[i])]


@njit()
def quantise(x, low, step, largest, codes):
    """codes[i, j] = rint((x[i, j] − low)/step) cut to [0, largest]; return how many were outside."""
    outside = 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = np.rint((x[i, j] - low) / step)
            inside = min(max(value, 0.0), largest)
            outside += 1 if inside != value else 0
            codes[i, j] = np.uint8(inside)
    return outside


@njit()
def count_rows(plane, out):
    """Number of ones in every row."""
    for i in range(plane.shape[0]):
        total = np.int64(0)
        for w in range(plane.shape[1]):
            total += count_ones(plane[i, w])
        out[i] = total


@njit()
def popcounts(times, full):
    """As `bitwords.churn`: the floor of the benchmark."""
    return churn(times, full)
