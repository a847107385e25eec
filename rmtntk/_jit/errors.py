r"""How far truncated series can be off, pair by pair, carried through the layers to first order.

Planes: ERROR_C, ERROR_CK, ERROR_NTK bound the errors of Λ_ij, K_ij and NTK_ij. Wherever ρ^K is wanted its bound
e^{−K(1−|ρ|)} is taken.
"""

import math

from rmtntk._jit._options import njit
from rmtntk._jit.elementary import INV_2PI, exponential
from rmtntk._jit.layout import (
    ERROR_C,
    ERROR_CK,
    ERROR_NTK,
    FIELDS,
    HEAD,
    INVERSE,
    LAST,
    NEAR,
    NEXT,
    NORM,
    NTK,
    OLD,
    SCALE,
    SLOPE,
    SLOPE_SQUARED,
    STRIDE,
    W2,
    WORK,
    Q,
)  # fmt: skip
from rmtntk._jit.series import FLOOR, LIMIT, SLOPE_FLOOR

SMOOTH = 0  # |∂E[σ'σ']/∂c| ≤ C_u C_v, with C = sqrt(E[σ''²])
KINK = 1  # (Δσ')²/(2π λ_u λ_v sin t)
JUMP = 2
ROUNDING = 2.0**-52  # of the features whose difference is taken


@njit()
def clear(state, m, w):
    """No errors at the input."""
    for i in range(m):
        for k in range(w):
            state[ERROR_C + i * STRIDE + k] = 0.0
            state[ERROR_CK + i * STRIDE + k] = 0.0
            state[ERROR_NTK + i * STRIDE + k] = 0.0


@njit(fma=True)
def carry(rows, columns, constants, number, kind, size, order, left_u, left_v, state, i0, m, j0, w):
    """Bound this layer's errors, between `hand_on` (without NTK) and the NTK's step.

    kind, size: how E[σ'σ'] depends on c, with size the squared jump of σ' or the squared sum of jumps of σ; order: the
    first one that the series leaves out; left (3, n): Σ c_k² and Σ k c_k² left out, and C.
    """
    line = HEAD + FIELDS * number
    w2 = constants[number, W2]
    last = constants[number, LAST] != 0.0
    limit = constants[number, LIMIT] if order > 0.0 else 0.0
    floor = constants[number, FLOOR] if order > 0.0 else 0.0
    slope_floor = constants[number, SLOPE_FLOOR] if order > 0.0 else 0.0
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        inverse_u = rows[line + INVERSE, i0 + i]
        tu = rows[line + NEXT, i0 + i]
        root_u = math.sqrt(left_u[0, i0 + i])
        weighted_u = math.sqrt(left_u[1, i0 + i])
        bend_u = left_u[2, i0 + i]
        norm_u = rows[line + NORM, i0 + i]
        steepness_u = math.sqrt(rows[line + SLOPE_SQUARED, i0 + i]) if slope_floor > 0.0 else 0.0
        for k in range(w):
            g = abs(state[OLD + base + k])
            scale = inverse_u * columns[line + INVERSE, j0 + k]
            slope = abs(state[SLOPE + base + k])
            error_c = state[ERROR_C + base + k]
            root_v = math.sqrt(left_v[0, j0 + k])
            cut = root_u * root_v
            weighted = weighted_u * math.sqrt(left_v[1, j0 + k])
            power = exponential(-g * order)
            through = slope * error_c if error_c > 0.0 else 0.0
            near = g < limit
            if near:
                cut = 0.0
            base_error = floor * norm_u * columns[line + NORM, j0 + k]
            error_ck = through + cut * power + base_error
            error_slope = 0.0
            if error_c > 0.0:
                bend = bend_u * left_v[2, j0 + k]
                if kind != SMOOTH:
                    sine_sq = g * (2.0 - g)
                    kinked = size * INV_2PI * scale / math.sqrt(sine_sq) if g > 0.0 else math.inf
                    if kind == JUMP and g > 0.0:
                        kinked *= ((1.0 - g) / sine_sq + 0.3678794411714423 / g) * scale
                    bend += kinked
                error_slope = bend * error_c
            if cut > 0.0:
                # sup of k ρ^{k−1} over the orders left out
                steep = order * exponential(-g * (order - 1.0))
                if g * order < 1.0:
                    steep = math.exp(g - 1.0) / g if g > 0.0 else math.inf
                error_slope += min(weighted * exponential(-g * (order - 1.0)), cut * steep) * scale
            if slope_floor > 0.0:
                error_slope += slope_floor * steepness_u * math.sqrt(columns[line + SLOPE_SQUARED, j0 + k])
            ntk = abs(state[NTK + base + k])
            error_ntk = state[ERROR_NTK + base + k]
            # the product rule; nothing times infinity is nothing
            total = error_ck
            if error_ntk > 0.0:
                total += error_ntk * slope
            if ntk > 0.0 and error_slope > 0.0:
                total += ntk * error_slope
            state[ERROR_NTK + base + k] = w2 * total
            state[ERROR_CK + base + k] = error_ck
            if not last:
                tv = columns[line + NEXT, j0 + k]
                if abs(state[Q + base + k]) < NEAR and abs(tu - tv) < 0.5 * min(tu, tv):
                    # The next gap comes from the features' distance: ½ Σ (u − v)² + Σ u v (1 − ρ^k) over what is left.
                    if limit == 0.0:
                        spread = 0.0
                        if su != columns[line + SCALE, j0 + k]:
                            spread = 0.5 * (root_u + root_v) * (root_u + root_v)
                        # ½ Σ 2 |u_k − v_k| |δ_k| from coefficients that are themselves off
                        own = floor * math.sqrt(norm_u * columns[line + NORM, j0 + k] * state[WORK + base + k])
                        error_ck = through + spread + min(cut, g * weighted) + min(base_error, own)
                    elif near:  # the distance itself is a sum without cancellation
                        apart = state[WORK + base + k]
                        rounding = ROUNDING * math.sqrt(norm_u * columns[line + NORM, j0 + k] * apart)
                        error_ck = through + floor * apart + rounding
                state[ERROR_C + base + k] = w2 * error_ck


@njit()
def largest(state, plane, i0, m, j0, w, symmetric):
    """Return the largest entry of a plane, below the diagonal if the kernel is symmetric; NaN counts as infinite."""
    top = 0.0
    for i in range(m):
        for k in range(min(w, i0 + i - j0) if symmetric else w):
            value = state[plane + i * STRIDE + k]
            if not value <= top:
                top = value if value == value else math.inf
    return top
