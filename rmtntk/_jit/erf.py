r"""Layers σ(t) = o erf(a t) + z (Williams 1997), scaled so that no norm can overflow.

With q = 2a²λ² per row, S² = q/(1 + q) and T² = 1/(1 + q): E[erf erf] = (2/π) asin(S_u S_v ρ) and
1 − (S_u S_v ρ)² = T_u² + S_u² T_v² + (S_u S_v)² (1 − ρ²), a sum of positive terms.
"""

import math

from rmtntk._jit._options import njit
from rmtntk._jit.elementary import HALF_PI, arcsine_on_circle
from rmtntk._jit.layout import (
    CK,
    EXTRA,
    FAMILY,
    FIELDS,
    HEAD,
    NEAR,
    OLD,
    OUTER2,
    SCALE,
    SLOPE,
    STRIDE,
    WORK,
    Q,
)  # fmt: skip

RATE = FAMILY  # a
# Four-point Gauss–Legendre on [−1, 1], as tuples: compiled in as constants.
NODES = (-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526)
WEIGHTS = (0.34785484513745385, 0.6521451548625461, 0.6521451548625461, 0.34785484513745385)


@njit()
def spread(s, t):
    """E[(erf(sξ/√2) − erf(tξ/√2))²] = (2/π) ∬ (1 + x² + y²)^{-3/2} over [t, s]², without cancellation."""
    if abs(s - t) > 0.01 * math.sqrt(1.0 + s * t):
        asin_s = math.atan2(s * s, math.sqrt(1.0 + 2.0 * s * s))
        asin_t = math.atan2(t * t, math.sqrt(1.0 + 2.0 * t * t))
        both = math.atan2(s * t, math.sqrt(1.0 + s * s + t * t))
        return max(0.0, 2.0 / math.pi * (asin_s + asin_t - 2.0 * both))
    half = 0.5 * (s - t)
    middle = 0.5 * (s + t)
    total = 0.0
    for a in range(4):
        x = middle + half * NODES[a]
        for b in range(4):
            y = middle + half * NODES[b]
            total += WEIGHTS[a] * WEIGHTS[b] / (1.0 + x * x + y * y) ** 1.5
    return 2.0 / math.pi * half * half * total


@njit(fma=True)
def covariances(rows, columns, constants, number, state, i0, m, j0, w):
    """Fill CK and SLOPE."""
    line = HEAD + FIELDS * number
    outer2 = constants[number, OUTER2]
    rate2 = constants[number, RATE] * constants[number, RATE]
    bent_v = columns[line + EXTRA, j0 : j0 + w]
    rest_v = columns[line + EXTRA + 1, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        s_u = rows[line + EXTRA, i0 + i]
        t_u = rows[line + EXTRA + 1, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            t_v = rest_v[k]
            product = s_u * bent_v[k]
            root = math.sqrt(t_u * t_u + s_u * s_u * (t_v * t_v) + product * product * (g * (2.0 - g)))
            z = math.copysign(product * (1.0 - g), q)
            state[CK + base + k] = outer2 / HALF_PI * arcsine_on_circle(z, root)
            state[SLOPE + base + k] = outer2 * rate2 * 2.0 / HALF_PI * (t_u * t_v) / root


@njit(fma=True)
def distances(rows, columns, constants, number, state, i0, m, j0, w):
    """Fill WORK with E[(f_u ∓ f_v)²] where the next gap is small."""
    line = HEAD + FIELDS * number
    outer2 = constants[number, OUTER2]
    rate = math.sqrt(2.0) * constants[number, RATE]
    for i in range(m):
        base = i * STRIDE
        s_u = rows[line + EXTRA, i0 + i]
        t_u = rows[line + EXTRA + 1, i0 + i]
        su = rows[line + SCALE, i0 + i]
        for k in range(w):
            if abs(state[Q + base + k]) >= NEAR:
                continue
            g = abs(state[OLD + base + k])
            s_v = columns[line + EXTRA, j0 + k]
            t_v = columns[line + EXTRA + 1, j0 + k]
            product = s_u * s_v
            top_sq = t_u * t_u + s_u * s_u * (t_v * t_v)
            root = math.sqrt(top_sq + product * product * (g * (2.0 - g)))
            # sine of the difference of the arcsines at |ρ| and at 1, whose numerator factors
            sine = product * (g * (2.0 - g)) / (root + math.sqrt(top_sq) * (1.0 - g))
            drop = math.asin(min(1.0, sine)) / HALF_PI
            if math.copysign(1.0, state[OLD + base + k]) * math.copysign(1.0, state[Q + base + k]) < 0.0:
                drop = (
                    2.0 * math.atan2(product, math.sqrt(top_sq)) / HALF_PI - drop
                )  # a bias has turned the pair around
            sv = columns[line + SCALE, j0 + k]
            apart = spread(rate * su, rate * sv) if su != sv else 0.0
            state[WORK + base + k] = outer2 * (apart + 2.0 * drop)
