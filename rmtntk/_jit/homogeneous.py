r"""Layers σ(t) = α max(t, 0) + β max(−t, 0): any run of them in one pass (Cho and Saul 2009, order 1).

With t the angle to the nearer of ρ = ±1, s = sin t, g = 1 − |ρ| and a = s − t cos t = s g (1 − P(g) cos t), where
t = s (1 + g P(g)): nothing cancels as g → 0, and a root and one polynomial are all a pair costs.
"""

import math

from rmtntk._jit._options import njit
from rmtntk._jit.elementary import INV_2PI, angle_and_rest
from rmtntk._jit.layout import (
    B2,
    CK,
    EXACT,
    FAMILY,
    FIELDS,
    HEAD,
    INVERSE_NEXT,
    LAST,
    NEAR,
    NTK,
    OLD,
    OUTER2,
    SCALE,
    SHIFT,
    SLOPE,
    STRIDE,
    W2,
    WORK,
    Q,
)  # fmt: skip

ALPHA = FAMILY
BETA = FAMILY + 1
CROSS = FAMILY + 2  # area spanned by the features' two directions, see `near_gap`


@njit(fma=True)
def layers(rows, columns, constants, first, last, state, i0, m, j0, w):
    """Take the block through layers first … last − 1."""
    for i in range(m):
        base = i * STRIDE
        for layer in range(first, last):
            line = HEAD + FIELDS * layer
            w2 = constants[layer, W2]
            b2 = constants[layer, B2]
            outer2 = constants[layer, OUTER2]
            alpha = constants[layer, ALPHA]
            beta = constants[layer, BETA]
            square = alpha * alpha + beta * beta
            plus = (alpha + beta) * (alpha + beta)
            half = 0.5 * square
            bent = plus * INV_2PI  # squared mean at unit scale
            same = half - bent  # covariance at ρ = 1, and its slope there
            opposite = alpha * beta - bent
            su = rows[line + SCALE, i0 + i] * outer2
            shift_u = rows[line + SHIFT, i0 + i]
            inverse_u = rows[line + INVERSE_NEXT, i0 + i]
            # slices: indices that start at 0 are known not to be negative, and loads stay vector loads
            scale_v = columns[line + SCALE, j0 : j0 + w]
            shift_v = columns[line + SHIFT, j0 : j0 + w]
            inverse_v = columns[line + INVERSE_NEXT, j0 : j0 + w]
            if constants[layer, LAST] != 0.0:
                for k in range(w):
                    q = state[Q + base + k]
                    g = abs(q)
                    t, a = angle_and_rest(g)
                    down = math.copysign(1.0, q) < 0.0
                    covariance = (opposite + alpha * beta * -g if down else same - half * g) + bent * a
                    slope = (bent * t - alpha * beta) if down else (half - bent * t)
                    scale = su * scale_v[k]
                    ck = scale * covariance + shift_u * shift_v[k]
                    state[CK + base + k] = ck
                    state[NTK + base + k] = w2 * ck + b2 + w2 * outer2 * slope * state[NTK + base + k]
            elif constants[layer, EXACT] != 0.0:
                # no centring, no bias: the next correlation is that of the features
                gamma = w2 * outer2
                inverse_half = 1.0 / half
                for k in range(w):
                    q = state[Q + base + k]
                    g = abs(q)
                    t, a = angle_and_rest(g)
                    down = math.copysign(1.0, q) < 0.0
                    drop = half * g - bent * a
                    rise = bent * a - alpha * beta * g
                    value = alpha * beta + rise if down else half - drop
                    slope = (bent * t - alpha * beta) if down else (half - bent * t)
                    scale = su * scale_v[k]
                    state[NTK + base + k] = gamma * slope * state[NTK + base + k] + w2 * scale * value
                    below = ((0.5 * (alpha - beta) * (alpha - beta)) - rise) * inverse_half
                    turned = (0.5 * plus + rise) * inverse_half
                    gap = drop * inverse_half
                    if down:
                        gap = below if value >= 0.0 else turned
                    state[Q + base + k] = math.copysign(max(0.0, gap), value)
            else:
                near = 0
                for k in range(w):
                    q = state[Q + base + k]
                    g = abs(q)
                    t, a = angle_and_rest(g)
                    down = math.copysign(1.0, q) < 0.0
                    covariance = (opposite + alpha * beta * -g if down else same - half * g) + bent * a
                    slope = (bent * t - alpha * beta) if down else (half - bent * t)
                    scale = su * scale_v[k]
                    c = w2 * (scale * covariance + shift_u * shift_v[k]) + b2
                    state[NTK + base + k] = c + w2 * outer2 * slope * state[NTK + base + k]
                    r = c * inverse_u * inverse_v[k]
                    gap = max(0.0, 1.0 - abs(r))
                    near += 1 if gap < NEAR else 0
                    state[OLD + base + k] = q
                    state[Q + base + k] = math.copysign(gap, r)
                if near > 0:
                    near_gap(rows, columns, constants, layer, state, i0, i, j0, w)


@njit(fma=True)
def near_gap(rows, columns, constants, layer, state, i0, i, j0, w):
    r"""Recompute small gaps of one row from angles instead of 1 − ρ.

    At ρ = 1 features (with centre and bias) are λ e + k, with fixed vectors e, k: their angle ψ has
    sin ψ = |e × k| |λ_u − λ_v| / (|f_u||f_v|), and the gap is 1 − cos ψ plus what the covariance loses from ρ = 1 on.
    """
    base = i * STRIDE
    line = HEAD + FIELDS * layer
    w2 = constants[layer, W2]
    alpha = constants[layer, ALPHA]
    beta = constants[layer, BETA]
    half = 0.5 * (alpha * alpha + beta * beta)
    bent = (alpha + beta) * (alpha + beta) * INV_2PI
    cross = constants[layer, CROSS]
    su = rows[line + SCALE, i0 + i]
    inverse_u = rows[line + INVERSE_NEXT, i0 + i]
    for k in range(w):
        q = state[Q + base + k]
        if q < NEAR and math.copysign(1.0, q) > 0.0:
            before = state[OLD + base + k]
            g = abs(before)
            _, a = angle_and_rest(g)
            drop = half * g - bent * a
            if math.copysign(1.0, before) < 0.0:
                drop = 0.5 * (alpha - beta) * (alpha - beta) - (bent * a - alpha * beta * g)
            sv = columns[line + SCALE, j0 + k]
            scale = inverse_u * columns[line + INVERSE_NEXT, j0 + k]
            fall = w2 * constants[layer, OUTER2] * su * sv * scale * drop
            sine = cross * (su - sv) * scale
            state[Q + base + k] = fall + sine * sine / (2.0 - q + fall)


@njit(fma=True)
def covariances(rows, columns, constants, number, state, i0, m, j0, w):
    """Fill CK and SLOPE: one layer on its own, for networks whose errors are followed layer by layer."""
    line = HEAD + FIELDS * number
    alpha = constants[number, ALPHA]
    beta = constants[number, BETA]
    half = 0.5 * (alpha * alpha + beta * beta)
    bent = (alpha + beta) * (alpha + beta) * INV_2PI
    scale_v = columns[line + SCALE, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            t, a = angle_and_rest(g)
            down = math.copysign(1.0, q) < 0.0
            top = alpha * beta * (1.0 - g) if down else half * (1.0 - g)
            state[CK + base + k] = su * scale_v[k] * (top - bent + bent * a)
            state[SLOPE + base + k] = (bent * t - alpha * beta) if down else (half - bent * t)


@njit(fma=True)
def distances(rows, columns, constants, number, state, i0, m, j0, w):
    """Fill WORK with E[(f_u ∓ f_v)²] where the next gap is small."""
    line = HEAD + FIELDS * number
    alpha = constants[number, ALPHA]
    beta = constants[number, BETA]
    half = 0.5 * (alpha * alpha + beta * beta)
    bent = (alpha + beta) * (alpha + beta) * INV_2PI
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            if abs(q) >= NEAR:
                continue
            before = state[OLD + base + k]
            g = abs(before)
            _, a = angle_and_rest(g)
            drop = half * g - bent * a
            if math.copysign(1.0, before) < 0.0:
                side = 0.5 * (alpha - beta) * (alpha - beta)  # from ρ = −1 to features that agree
                if math.copysign(1.0, q) < 0.0:
                    drop = 0.5 * (alpha + beta) * (alpha + beta) + bent * a - alpha * beta * g
                else:
                    drop = side - (bent * a - alpha * beta * g)
            sv = columns[line + SCALE, j0 + k]
            state[WORK + base + k] = half * (su - sv) * (su - sv) + 2.0 * su * sv * drop
