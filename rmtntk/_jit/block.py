r"""The first and the last step of a block of pairs: from a tile of K_0 to the state, and from the state to the kernels.

Between them each layer's loop (`homogeneous`, `erf`, `series`, …) turns the state into that of the next layer.
Blocks take rows i0 … i0 + m − 1 of `rows` against columns j0 … j0 + w − 1 of `columns`.
"""

import math

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.layout import (
    B2,
    CK,
    EXACT,
    FIELDS,
    HEAD,
    INPUT,
    INVERSE,
    INVERSE0,
    INVERSE_NEXT,
    LAST,
    NEAR,
    NEXT,
    NORM0,
    NTK,
    ODD,
    OLD,
    SHIFT,
    SLOPE,
    STRIDE,
    W2,
    WORK,
    Q,
)  # fmt: skip

ROUNDING_GAP = 16.0 * 2.0**-104  # (4 eps)²: squared distance of two roundings of one unit vector


@njit(fma=True, reassoc=True)
def unit_distance(x, y, i, j, inverse_u, inverse_v, sign):
    """Squared distance of the unit vectors of two rows, the second turned around if sign < 0."""
    total = 0.0
    for k in range(x.shape[1]):
        difference = x[i, k] * inverse_u - sign * (y[j, k] * inverse_v)
        total += difference * difference
    return total


@njit(fma=True, reassoc=True)
def squared_norms(x, start, stop, out):
    """Fill out[start : stop] with ‖x_i‖²; float64 sums, of terms that do not cancel."""
    for i in range(start, stop):
        row = x[i]
        total = 0.0
        for k in range(len(row)):
            value = np.float64(row[k])
            total += value * value
        out[i] = total


@njit(fma=True)
def open_block(tile, row, column, direct, x, y, rows, columns, constants, state, i0, m, j0, w):
    """Fill Q and NTK from tile[row : row + m, column : column + w], the block's part of X Yᵀ.

    Gaps below `direct` are recomputed from the rows x, y.
    """
    factor = constants[0, INPUT]
    root = math.sqrt(factor)
    w2 = constants[0, W2]
    b2 = constants[0, B2]
    for i in range(m):
        base = i * STRIDE
        u = rows[NORM0, i0 + i]
        inverse_u = rows[INVERSE0, i0 + i]
        inverse_v = columns[INVERSE0, j0 : j0 + w]
        products = tile[row + i, column : column + w]
        near = 0
        for k in range(w):
            c0 = factor * products[k]
            r = c0 * inverse_u * inverse_v[k]
            gap = max(0.0, 1.0 - abs(r))  # below 0 by rounding only
            near += 1 if gap < direct else 0
            state[Q + base + k] = math.copysign(gap, r)
            state[NTK + base + k] = w2 * c0 + b2
        if near > 0:
            for k in range(w):
                q = state[Q + base + k]
                if abs(q) < direct:
                    sign = math.copysign(1.0, q)
                    total = unit_distance(
                        x, y, i0 + i, j0 + k, root * inverse_u, root * columns[INVERSE0, j0 + k], sign
                    )
                    # Unit vectors are rounded: parallel rows come out up to this far apart, and count as parallel.
                    gap = 0.5 * total if total > ROUNDING_GAP else 0.0
                    state[Q + base + k] = math.copysign(gap, q)
                    c0 = sign * (1.0 - gap) * u * columns[NORM0, j0 + k]
                    state[NTK + base + k] = w2 * c0 + b2
        if b2 > 0.0:
            inverse_su = rows[HEAD + INVERSE, i0 + i]
            norm_v = columns[NORM0, j0 : j0 + w]
            inverse_sv = columns[HEAD + INVERSE, j0 : j0 + w]
            for k in range(w):
                q = state[Q + base + k]
                v = norm_v[k]
                scale = inverse_su * inverse_sv[k]
                r = state[NTK + base + k] * scale
                # (w u, b) and (w v, ±b) have the angle φ between them: 1 − cos φ = sin² φ / (1 + cos φ)
                side = 1.0 if r >= 0.0 else -1.0
                cosine = (w2 * u * v + side * b2) * scale
                sine_sq = w2 * b2 * ((u - side * v) * scale) * ((u - side * v) * scale)
                gap_in = abs(q) if math.copysign(1.0, q) * side > 0.0 else 2.0 - abs(q)
                gap = w2 * u * v * scale * gap_in + sine_sq / (1.0 + cosine)
                state[Q + base + k] = math.copysign(max(0.0, gap), r)


@njit(fma=True)
def hand_on(rows, columns, constants, number, state, i0, m, j0, w):
    """Take the block to the next layer, with the layer's covariances in CK and its E[σ'σ'] in SLOPE.

    CK ← covariance + product of the shifts, OLD ← Q, Q ← correlation of the next pre-activations. Returns how many
    pairs are so near to ρ = ±1 that `from_distance` should follow.
    """
    line = HEAD + FIELDS * number
    w2 = constants[number, W2]
    b2 = constants[number, B2]
    shift_v = columns[line + SHIFT, j0 : j0 + w]
    inverse_v = columns[line + INVERSE_NEXT, j0 : j0 + w]
    total = 0
    for i in range(m):
        base = i * STRIDE
        shift_u = rows[line + SHIFT, i0 + i]
        inverse_u = rows[line + INVERSE_NEXT, i0 + i]
        near = 0
        for k in range(w):
            ck = state[CK + base + k] + shift_u * shift_v[k]
            state[CK + base + k] = ck
            r = (w2 * ck + b2) * (inverse_u * inverse_v[k])
            gap = max(0.0, 1.0 - abs(r))
            near += 1 if gap < NEAR else 0
            state[OLD + base + k] = state[Q + base + k]
            state[Q + base + k] = math.copysign(gap, r)
        total += near
    return 0 if constants[number, LAST] != 0.0 else total


@njit(fma=True)
def advance(constants, number, state, m, w):
    """NTK ← Λ + w² NTK ∘ E[σ'σ'], with CK and SLOPE of this layer in the state."""
    w2 = constants[number, W2]
    b2 = constants[number, B2]
    for i in range(m):
        base = i * STRIDE
        for k in range(w):
            ntk = state[NTK + base + k]
            product = ntk * state[SLOPE + base + k] if ntk != 0.0 else 0.0  # not 0 · ∞
            state[NTK + base + k] = w2 * state[CK + base + k] + b2 + w2 * product


@njit(fma=True)
def from_distance(rows, columns, constants, number, state, i0, m, j0, w):
    """Recompute small gaps from WORK, E[(f_u − f_v)²] (or + where Q < 0 and the features are odd).

    That distance does not change with what is added to both features. Where the two norms differ so much that
    (|f_u| − |f_v|)² would cancel it, the plain gap is the more accurate one and stays.
    """
    line = HEAD + FIELDS * number
    w2 = constants[number, W2]
    both_sides = constants[number, EXACT] != 0.0 and constants[number, ODD] != 0.0
    next_v = columns[line + NEXT, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        tu = rows[line + NEXT, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            if abs(q) < NEAR and (both_sides or math.copysign(1.0, q) > 0.0):
                tv = next_v[k]
                if abs(tu - tv) < 0.5 * min(tu, tv):
                    gap = (w2 * state[WORK + base + k] - (tu - tv) * (tu - tv)) / (2.0 * tu * tv)
                    state[Q + base + k] = math.copysign(max(0.0, gap), q)


@njit()
def close_symmetric(state, plane, out, i0, m, j0, w):
    """Write one plane's entries below the diagonal, and their mirror images."""
    for i in range(m):
        base = plane + i * STRIDE
        stop = min(w, i0 + i - j0)
        target = out[i0 + i, j0 : j0 + stop]
        for k in range(stop):
            target[k] = state[base + k]
    for k in range(w):
        start = max(0, j0 + k + 1 - i0)
        target = out[j0 + k, i0 + start : i0 + m]
        source = state[plane + start * STRIDE + k :: STRIDE]
        for i in range(m - start):
            target[i] = source[i]


@njit()
def close_rectangle(state, plane, out, i0, m, j0, w):
    """Write one plane."""
    for i in range(m):
        base = plane + i * STRIDE
        target = out[i0 + i, j0 : j0 + w]
        for k in range(w):
            target[k] = state[base + k]
