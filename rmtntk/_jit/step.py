r"""Layers that are piecewise constant, for pairs so close to ρ = ±1 that their Hermite series is of no use.

E[σ(u)σ(v)] − E[σ(u)]E[σ(v)] = Σ_ij Δ_i Δ_j ∫_0^ρ φ₂(r_i, r'_j; s) ds (Plackett), with thresholds r in units of the
row's scale; beyond |ρ| = .925 what is missing to ±1 is integrated instead (Drezner and Wesolowsky; Genz 2004).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.elementary import HALF_PI, INV_2PI, angle_excess
from rmtntk._jit.layout import (
    CK,
    EXACT,
    FAMILY,
    FIELDS,
    HEAD,
    INVERSE,
    MEAN,
    NORM,
    ODD,
    SCALE,
    SLOPE,
    STRIDE,
    WORK,
    Q,
)  # fmt: skip

LIMIT = FAMILY + 2  # as in `series`
SQUARED_JUMP = FAMILY  # of a single jump at 0


class Rules(NamedTuple):
    """Gauss–Legendre rules on [0, 1]: nodes, weights (3, 20) and how many of them count (3,)."""

    nodes: Any
    weights: Any
    counts: Any


# By |ρ|: Genz (2004) uses the same orders.
RULES = Rules(np.zeros((3, 20)), np.zeros((3, 20)), np.array([8, 12, 20]))
for _k, _count in enumerate(RULES.counts):
    _x, _w = np.polynomial.legendre.leggauss(int(_count))
    RULES.nodes[_k, :_count] = 0.5 * (_x + 1.0)
    RULES.weights[_k, :_count] = 0.5 * _w

SAME_THRESHOLD = 8.0 * 2.0**-52  # relative: thresholds of two rows whose norms differ by rounding only
SWITCH = 0.925  # above this |ρ| the integral starts from ρ = ±1 instead of 0
SQRT_2PI = math.sqrt(2.0 * math.pi)
# Four-point Gauss–Legendre on [−1, 1], as tuples: compiled in as constants.
GAUSS4_NODES = (-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526)
GAUSS4_WEIGHTS = (0.34785484513745385, 0.6521451548625461, 0.6521451548625461, 0.34785484513745385)


@njit()
def normal_upper(x):
    """P(ξ > x)."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))


@njit()
def features_apart(jumps, ru, rv, direct):
    """E[(σ(su ξ) − σ(sv ξ))²] of a step: Σ Δ_j² P(ξ between r_j and r'_j) if these intervals do not overlap.

    `direct` is the value by subtraction, taken where they do.
    """
    total = 0.0
    reached = -math.inf
    for j in range(len(jumps)):
        low = min(ru[j], rv[j])
        high = max(ru[j], rv[j])
        if low < reached:
            return max(0.0, direct)
        reached = high
        if not (math.isfinite(low) and math.isfinite(high)):
            return max(0.0, direct)
        if high - low < 0.01:
            half = 0.5 * (high - low)
            middle = 0.5 * (high + low)
            mass = 0.0
            for a in range(4):
                point = middle + half * GAUSS4_NODES[a]
                mass += GAUSS4_WEIGHTS[a] * math.exp(-0.5 * point * point)
            mass *= half / SQRT_2PI
        elif low > 0.0:
            mass = normal_upper(low) - normal_upper(high)
        else:
            mass = normal_upper(-high) - normal_upper(-low)
        total += jumps[j] * jumps[j] * mass
    return total


@njit()
def orthant_deficit(h, k, gap, rules):
    """∫_ρ^1 φ₂(h, k; r) dr with gap = 1 − ρ ≤ 0.075 (Genz 2004, section 2.3, Drezner–Wesolowsky expansion)."""
    if gap <= 0.0 or not (math.isfinite(h) and math.isfinite(k)):
        return 0.0
    a2 = gap * (2.0 - gap)
    a = math.sqrt(a2)
    bs = (h - k) ** 2
    hk = h * k
    if 0.5 * (bs / a2 + hk) > 700.0:
        return 0.0
    c = (4.0 - hk) / 8.0
    d = (12.0 - hk) / 16.0
    total = 0.0
    exponent = -0.5 * (bs / a2 + hk)
    if exponent > -700.0:
        total = a * math.exp(exponent) * (1.0 - c * (bs - a2) * (1.0 - d * bs / 5.0) / 3.0 + c * d * a2 * a2 / 5.0)
    if hk > -100.0:
        b = math.sqrt(bs)
        tail = SQRT_2PI * normal_upper(b / a)
        total -= math.exp(-0.5 * hk) * tail * b * (1.0 - c * bs * (1.0 - d * bs / 5.0) / 3.0)
    for m in range(20):
        x = a * rules.nodes[2, m]
        xs = x * x
        rs = math.sqrt(1.0 - xs)
        exponent = -0.5 * (bs / xs + hk)
        if exponent > -700.0:
            exact = math.exp(-hk * xs / (2.0 * (1.0 + rs) ** 2)) / rs
            total += a * rules.weights[2, m] * math.exp(exponent) * (exact - (1.0 + c * xs * (1.0 + d * xs)))
    return max(0.0, total * INV_2PI)


@njit()
def pair(jumps, ru, rv, pu, pv, side, su, sv, gap, nu, nv, mu, mv, rules):
    """Covariance, E[σ'σ'] and 1 − (correlation of the features) at ρ = side · (1 − gap)."""
    rho = 1.0 - gap
    cov = 0.0
    slope = 0.0
    gap_out = 1.0
    sine_sq = gap * (2.0 - gap)
    sine = math.sqrt(sine_sq)
    for i in range(len(jumps)):
        for j in range(len(jumps)):
            h = ru[i]
            k = side * rv[j]
            if not (math.isfinite(h) and math.isfinite(k)):
                continue
            if gap <= 0.0:
                if abs(h - k) <= SAME_THRESHOLD * abs(h):  # the density of (u, u) is concentrated on u = v
                    slope += jumps[i] * jumps[j] * math.inf
            else:
                exponent = -0.5 * (h - k) ** 2 / sine_sq - h * k / (2.0 - gap)
                slope += jumps[i] * jumps[j] * math.exp(exponent) / sine
    slope *= INV_2PI / (su * sv)
    if rho <= SWITCH:
        rule = 0 if rho < 0.3 else (1 if rho < 0.75 else 2)
        angle = side * math.asin(rho)
        for m in range(rules.counts[rule]):
            psi = angle * rules.nodes[rule, m]
            sin_psi = math.sin(psi)
            inverse = 0.5 / ((1.0 - sin_psi) * (1.0 + sin_psi))
            inner = 0.0
            for i in range(len(jumps)):
                h = ru[i]
                for j in range(len(jumps)):
                    k = rv[j]
                    if math.isfinite(h) and math.isfinite(k):
                        inner += jumps[i] * jumps[j] * math.exp(-(h * h - 2.0 * h * k * sin_psi + k * k) * inverse)
            cov += rules.weights[rule, m] * inner
        cov *= angle * INV_2PI
        norm = nu * nv
        if norm > 0.0:
            gap_out = 1.0 - (cov + mu * mv) / norm
        return cov, slope, gap_out
    # near ±1: the value there is closed, and what is missing is integrated from there
    top = 0.0
    deficit = 0.0
    for i in range(len(jumps)):
        for j in range(len(jumps)):
            weight = jumps[i] * jumps[j]
            if side > 0.0:
                top += weight * (min(pu[i], pv[j]) - pu[i] * pv[j])
            else:
                top += weight * (max(0.0, pu[i] + pv[j] - 1.0) - pu[i] * pv[j])
            deficit += side * weight * orthant_deficit(ru[i], side * rv[j], gap, rules)
    cov = top - deficit
    norm = nu * nv
    if norm > 0.0:
        if side > 0.0:
            spread = 0.0
            if su != sv:
                spread = features_apart(jumps, ru, rv, nu * nu + nv * nv - 2.0 * (top + mu * mv))
            gap_out = (spread - (nu - nv) ** 2 + 2.0 * deficit) / (2.0 * norm)
        else:
            gap_out = 1.0 - (cov + mu * mv) / norm
    return cov, slope, gap_out


@njit()
def covariances(rows, columns, constants, number, jumps, r_u, r_v, p_u, p_v, rules, state, i0, m, j0, w):
    """Fill CK, SLOPE, and WORK with E[(f_u − f_v)²], where the gap is below the series' limit; r, p: (n, jumps)."""
    line = HEAD + FIELDS * number
    limit = constants[number, LIMIT]
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        nu = rows[line + NORM, i0 + i]
        mu = rows[line + MEAN, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            sv = columns[line + SCALE, j0 + k]
            if abs(q) >= limit or su * sv == 0.0:  # a zero row has a constant feature: the series has done it
                continue
            nv = columns[line + NORM, j0 + k]
            cov, slope, gap_out = pair(
                jumps, r_u[i0 + i], r_v[j0 + k], p_u[i0 + i], p_v[j0 + k], math.copysign(1.0, q), su, sv, abs(q),
                nu, nv, mu, columns[line + MEAN, j0 + k], rules,
            )  # fmt: skip
            state[CK + base + k] = cov
            state[SLOPE + base + k] = slope
            state[WORK + base + k] = (nu - nv) * (nu - nv) + 2.0 * nu * nv * gap_out


@njit(fma=True)
def jump_at_zero(rows, columns, constants, number, state, i0, m, j0, w):
    """Fill CK, SLOPE and WORK for one jump Δ at 0 (sign, heaviside), for any ρ, with t the angle to ±1.

    Cov = Δ² asin(ρ)/2π, E[σ'σ'] = Δ²/(2π λ_u λ_v sin t), E[(f_u ∓ f_v)²] = Δ² t/π; where ρ < 0 but the next pair is
    not to be turned around as well, E[(f_u − f_v)²] = Δ² (π − t)/π.
    """
    line = HEAD + FIELDS * number
    squared = constants[number, SQUARED_JUMP]
    turned = constants[number, EXACT] != 0.0 and constants[number, ODD] != 0.0
    scale_v = columns[line + INVERSE, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        scale_u = rows[line + INVERSE, i0 + i] * (squared * INV_2PI)
        for k in range(w):
            q = state[Q + base + k]
            g = abs(q)
            s = math.sqrt(g * (2.0 - g))
            t = s + s * g * angle_excess(g)
            state[CK + base + k] = squared * INV_2PI * math.copysign(HALF_PI - t, q)
            scale = scale_u * scale_v[k]
            slope = scale / s if s > 0.0 else math.inf
            state[SLOPE + base + k] = slope if scale != 0.0 else 0.0
            angle = t if turned or math.copysign(1.0, q) > 0.0 else 2.0 * HALF_PI - t
            # two zero rows have the same constant feature
            state[WORK + base + k] = 2.0 * squared * INV_2PI * angle if scale != 0.0 else 0.0
