r"""Networks of homogeneous layers in float32 throughout: data, state and results, twice as many pairs per instruction.

The same formulas as in `homogeneous` and `block`, where they are explained; tables of rows and constants come as
float32, and so do all literals, since one float64 among the operands would widen the loop. The gap as the state keeps
angles to float32 rounding even at ρ → ±1.
"""

import math

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.block import ROUNDING_GAP, unit_distance
from rmtntk._jit.elementary import INV_2PI
from rmtntk._jit.homogeneous import ALPHA, BETA, CROSS
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
    NORM0,
    NTK,
    OLD,
    SCALE,
    SHIFT,
    STRIDE,
    W2,
    Q,
)  # fmt: skip

ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
TWO = np.float32(2.0)
NEAR_SINGLE = np.float32(NEAR)
TURN = np.float32(INV_2PI)
# Chebyshev truncation of (t / sin t − 1) / g, degree 8: off by 5e-8
P0 = np.float32(0.3333333730697632)
P1 = np.float32(0.1333276480436325)
P2 = np.float32(0.057288430631160736)
P3 = np.float32(0.023975467309355736)
P4 = np.float32(0.01839575730264187)
P5 = np.float32(-0.012814554385840893)
P6 = np.float32(0.029655124992132187)
P7 = np.float32(-0.020842956379055977)
P8 = np.float32(0.008477984927594662)


@njit(fma=True, forceinline=True)
def angle_and_rest(gap):
    """As in `elementary`, to float32 rounding."""
    z = gap * gap
    even = P0 + z * (P2 + z * (P4 + z * (P6 + z * P8)))
    odd = P1 + z * (P3 + z * (P5 + z * P7))
    excess = even + gap * odd
    sine = math.sqrt(gap * (TWO - gap))
    return sine + sine * gap * excess, sine * gap * (ONE - excess * (ONE - gap))


@njit(fma=True)
def open_block(tile, row, column, direct, x, y, rows, columns, constants, state, i0, m, j0, w):
    """Fill Q and NTK, as `block.open_block` does."""
    factor = constants[0, INPUT]
    root = math.sqrt(factor)
    w2 = constants[0, W2]
    b2 = constants[0, B2]
    wide = np.float64(root)
    for i in range(m):
        base = i * STRIDE
        inverse_u = rows[INVERSE0, i0 + i]
        inverse_v = columns[INVERSE0, j0 : j0 + w]
        products = tile[row + i, column : column + w]
        near = 0
        for k in range(w):
            c0 = factor * products[k]
            r = c0 * inverse_u * inverse_v[k]
            gap = max(ZERO, ONE - abs(r))
            near += 1 if gap < direct else 0
            state[Q + base + k] = math.copysign(gap, r)
            state[NTK + base + k] = w2 * c0 + b2
        if near > 0:
            for k in range(w):
                q = state[Q + base + k]
                if abs(q) < direct:
                    sign = math.copysign(1.0, q)
                    u = wide * np.float64(inverse_u)
                    v = wide * np.float64(columns[INVERSE0, j0 + k])
                    total = unit_distance(x, y, i0 + i, j0 + k, u, v, sign)
                    # inverse norms are float32 here: parallel rows come out up to (4 eps)² apart
                    gap_out = np.float32(0.5 * total if total > ROUNDING_GAP * 2.0**58 else 0.0)
                    state[Q + base + k] = math.copysign(gap_out, q)
                    c0 = math.copysign(ONE - gap_out, q) * rows[NORM0, i0 + i] * columns[NORM0, j0 + k]
                    state[NTK + base + k] = w2 * c0 + b2
        if b2 > ZERO:
            inverse_su = rows[HEAD + INVERSE, i0 + i]
            norm_u = rows[NORM0, i0 + i]
            norm_v = columns[NORM0, j0 : j0 + w]
            inverse_sv = columns[HEAD + INVERSE, j0 : j0 + w]
            for k in range(w):
                q = state[Q + base + k]
                v = norm_v[k]
                scale = inverse_su * inverse_sv[k]
                r = state[NTK + base + k] * scale
                side = ONE if r >= ZERO else -ONE
                cosine = (w2 * norm_u * v + side * b2) * scale
                sine_sq = w2 * b2 * ((norm_u - side * v) * scale) * ((norm_u - side * v) * scale)
                gap_in = abs(q) if math.copysign(ONE, q) * side > ZERO else TWO - abs(q)
                gap = w2 * norm_u * v * scale * gap_in + sine_sq / (ONE + cosine)
                state[Q + base + k] = math.copysign(max(ZERO, gap), r)


@njit(fma=True)
def layers(rows, columns, constants, state, i0, m, j0, w):
    """Take the block through all layers, as `homogeneous.layers` does."""
    for i in range(m):
        base = i * STRIDE
        for layer in range(constants.shape[0]):
            line = HEAD + FIELDS * layer
            w2 = constants[layer, W2]
            b2 = constants[layer, B2]
            alpha = constants[layer, ALPHA]
            beta = constants[layer, BETA]
            both = alpha * beta
            half = HALF * (alpha * alpha + beta * beta)
            bent = (alpha + beta) * (alpha + beta) * TURN
            su = rows[line + SCALE, i0 + i]
            shift_u = rows[line + SHIFT, i0 + i]
            inverse_u = rows[line + INVERSE_NEXT, i0 + i]
            scale_v = columns[line + SCALE, j0 : j0 + w]
            shift_v = columns[line + SHIFT, j0 : j0 + w]
            inverse_v = columns[line + INVERSE_NEXT, j0 : j0 + w]
            if constants[layer, LAST] != ZERO:
                for k in range(w):
                    q = state[Q + base + k]
                    g = abs(q)
                    t, a = angle_and_rest(g)
                    down = math.copysign(ONE, q) < ZERO
                    top = both * (ONE - g) if down else half * (ONE - g)
                    slope = (bent * t - both) if down else (half - bent * t)
                    ck = su * scale_v[k] * (top - bent + bent * a) + shift_u * shift_v[k]
                    state[CK + base + k] = ck
                    state[NTK + base + k] = w2 * ck + b2 + w2 * slope * state[NTK + base + k]
            elif constants[layer, EXACT] != ZERO:
                inverse_half = ONE / half
                for k in range(w):
                    q = state[Q + base + k]
                    g = abs(q)
                    t, a = angle_and_rest(g)
                    down = math.copysign(ONE, q) < ZERO
                    drop = half * g - bent * a
                    rise = bent * a - both * g
                    value = both + rise if down else half - drop
                    slope = (bent * t - both) if down else (half - bent * t)
                    state[NTK + base + k] = w2 * (slope * state[NTK + base + k] + su * scale_v[k] * value)
                    below = (HALF * (alpha - beta) * (alpha - beta) - rise) * inverse_half
                    turned = (HALF * (alpha + beta) * (alpha + beta) + rise) * inverse_half
                    gap = drop * inverse_half
                    if down:
                        gap = below if value >= ZERO else turned
                    state[Q + base + k] = math.copysign(max(ZERO, gap), value)
            else:
                near = 0
                for k in range(w):
                    q = state[Q + base + k]
                    g = abs(q)
                    t, a = angle_and_rest(g)
                    down = math.copysign(ONE, q) < ZERO
                    top = both * (ONE - g) if down else half * (ONE - g)
                    slope = (bent * t - both) if down else (half - bent * t)
                    c = w2 * (su * scale_v[k] * (top - bent + bent * a) + shift_u * shift_v[k]) + b2
                    state[NTK + base + k] = c + w2 * slope * state[NTK + base + k]
                    r = c * inverse_u * inverse_v[k]
                    gap = max(ZERO, ONE - abs(r))
                    near += 1 if gap < NEAR_SINGLE else 0
                    state[OLD + base + k] = q
                    state[Q + base + k] = math.copysign(gap, r)
                if near > 0:
                    near_gap(rows, columns, constants, layer, state, i0, i, j0, w)


@njit(fma=True)
def near_gap(rows, columns, constants, layer, state, i0, i, j0, w):
    """Recompute small gaps of one row, as `homogeneous.near_gap` does."""
    base = i * STRIDE
    line = HEAD + FIELDS * layer
    w2 = constants[layer, W2]
    alpha = constants[layer, ALPHA]
    beta = constants[layer, BETA]
    half = HALF * (alpha * alpha + beta * beta)
    bent = (alpha + beta) * (alpha + beta) * TURN
    su = rows[line + SCALE, i0 + i]
    inverse_u = rows[line + INVERSE_NEXT, i0 + i]
    for k in range(w):
        q = state[Q + base + k]
        if q < NEAR_SINGLE and math.copysign(ONE, q) > ZERO:
            before = state[OLD + base + k]
            g = abs(before)
            _, a = angle_and_rest(g)
            drop = half * g - bent * a
            if math.copysign(ONE, before) < ZERO:
                drop = HALF * (alpha - beta) * (alpha - beta) - (bent * a - alpha * beta * g)
            sv = columns[line + SCALE, j0 + k]
            scale = inverse_u * columns[line + INVERSE_NEXT, j0 + k]
            fall = w2 * su * sv * scale * drop
            sine = constants[layer, CROSS] * (su - sv) * scale
            state[Q + base + k] = fall + sine * sine / (TWO - q + fall)
