r"""Layers given by a series, for pairs so close to ρ = ±1 that the series is too short.

With u = √(1−g) z_u + √g ξ, v likewise with an independent ξ', and z shared, the pair is independent given z:
E[σ(u)σ(v)] = E_z[U_u U_v], E[σ'(u)σ'(v)] = E_z[U'_u U'_v], E[(σ(u) ∓ σ(v))²] = E_z[(U_u ∓ U_v)² + V_u + V_v], where
U, U' and V are mean, mean slope and variance of σ smoothed over the width λ√g. The last sum has no cancellation,
however small g is. σ comes as polynomials on panels, so that both integrals are Gauss rules between known points.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.elementary import exponential
from rmtntk._jit.layout import (
    CK,
    EXACT,
    FAMILY,
    FIELDS,
    HEAD,
    MEAN,
    NEAR,
    ODD,
    OLD,
    SCALE,
    SHIFT,
    SLOPE,
    SLOPE_SQUARED,
    STRIDE,
    VARIANCE,
    WORK,
    Q,
)  # fmt: skip

LIMIT = FAMILY + 2  # as in `series`
REACH = 8.5  # what lies beyond adds 2e-15 to E[ξ²]
BASE = 10  # panels of the outer integral over the reach at least
WIDTH = 3.8  # of the inner integral's panels at most
SAME_SCALE = 16.0 * 2.0**-52  # relative: norms of two copies of a row that differ by rounding
# Where a bend smoothed over the width 1 is cut
CUTS = (2.0, 4.0, 7.0)
INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)


class Pieces(NamedTuple):
    """A function as polynomials in x ∈ [−1, 1] on panels, and the points between which rules on it converge.

    edges (P + 1,), middles, halves (P,), coefficients (P, degree + 1); points (F,), and the width (F,) of the smoother
    of the neighbourhoods of each, 0 where the function or its slope jumps.
    """

    edges: Any
    middles: Any
    halves: Any
    coefficients: Any
    points: Any
    widths: Any


class Rules(NamedTuple):
    """Gauss–Legendre rule on [−1, 1] and Gauss–Hermite rule for the normal density, of one length."""

    nodes: Any
    weights: Any
    normal_nodes: Any
    normal_weights: Any


def rules(count: int) -> Rules:
    """Return the rules of a length."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    normal_nodes, normal_weights = np.polynomial.hermite_e.hermegauss(count)
    return Rules(nodes, weights, normal_nodes, normal_weights / math.sqrt(2.0 * math.pi))


@njit()
def panel_of(edges, t):
    """Return the number of the panel that holds t, the first or last one beyond the ends."""
    low = 0
    high = len(edges) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if t >= edges[middle]:
            low = middle
        else:
            high = middle
    return low


@njit(fma=True, reassoc=True)
def evaluate(coefficients, scratch, count):
    """scratch[0] holds x; fill scratch[1] with the polynomial and scratch[2] with its slope in x."""
    x, value, slope = scratch[0], scratch[1], scratch[2]
    top = len(coefficients) - 1
    for a in range(count):
        value[a] = coefficients[top]
        slope[a] = 0.0
    for d in range(top - 1, -1, -1):
        c = coefficients[d]
        for a in range(count):
            slope[a] = slope[a] * x[a] + value[a]
            value[a] = value[a] * x[a] + c


@njit(fma=True, reassoc=True)
def smoothed(pieces, rule, t, width, scratch):
    """U, V and U' at t: mean, variance and mean slope of the function at N(t, width²)."""
    edges = pieces.edges
    count = len(rule.nodes)
    p = panel_of(edges, t)
    inverse = 1.0 / pieces.halves[p]
    centre = (t - pieces.middles[p]) * inverse
    scratch[0, 0] = centre
    evaluate(pieces.coefficients[p], scratch, 1)
    origin = scratch[1, 0]
    if width == 0.0:
        return origin, 0.0, scratch[2, 0] * inverse
    low = t - REACH * width
    high = t + REACH * width
    mean = 0.0
    square = 0.0
    slope = 0.0
    if low >= edges[p] and high <= edges[p + 1]:
        ratio = width * inverse
        for a in range(count):
            scratch[0, a] = centre + ratio * rule.normal_nodes[a]
        evaluate(pieces.coefficients[p], scratch, count)
        for a in range(count):
            weight = rule.normal_weights[a]
            away = scratch[1, a] - origin
            mean += weight * away
            square += weight * away * away
            slope += weight * scratch[2, a]
        return origin + mean, max(0.0, square - mean * mean), slope * inverse
    last = len(edges) - 2
    p = panel_of(edges, low)
    while p <= last and (edges[p] < high or p == 0):
        inverse = 1.0 / pieces.halves[p]
        # in units of the width; beyond the table its outer polynomials go on, where next to nothing lies
        a0 = max(-REACH, (edges[p] - t) / width) if p > 0 else -REACH
        b0 = min(REACH, (edges[p + 1] - t) / width) if p < last else REACH
        if b0 > a0:
            parts = math.ceil((b0 - a0) / WIDTH)
            half = 0.5 * (b0 - a0) / parts
            for part in range(parts):
                middle = a0 + (2.0 * part + 1.0) * half
                start = (t - pieces.middles[p] + middle * width) * inverse
                step = half * width * inverse
                for a in range(count):
                    scratch[0, a] = start + step * rule.nodes[a]
                evaluate(pieces.coefficients[p], scratch, count)
                inner = 0.0
                for a in range(count):
                    xi = middle + half * rule.nodes[a]
                    weight = half * rule.weights[a] * INV_SQRT_2PI * exponential(-0.5 * xi * xi)
                    away = scratch[1, a] - origin
                    mean += weight * away
                    square += weight * away * away
                    inner += weight * scratch[2, a]
                slope += inner * inverse
        p += 1
    return origin + mean, max(0.0, square - mean * mean), slope


@njit()
def room(pieces):
    """Return scratch space for `outer_edges`."""
    return np.empty(2 * (2 * len(CUTS) + 1) * len(pieces.points) + 64)


@njit(fma=True)
def outer_edges(pieces, su, sv, root, spread, out):
    """Sorted edges of the integral over z, in `out`; how many. root = √(1−g), spread = √(g/(1−g))."""
    n = 0
    for k in range(BASE + 1):
        out[n] = REACH * (2.0 * k / BASE - 1.0)
        n += 1
    for side in range(2):
        scale = (su if side == 0 else sv) * root
        if side == 1 and su == sv:
            break
        for j in range(len(pieces.points)):
            z = pieces.points[j] / scale
            if not abs(z) < REACH + REACH * spread:
                continue
            out[n] = z
            n += 1
            if spread > 0.0 and pieces.widths[j] < 4.0 * spread * abs(scale):
                for cut in CUTS:
                    out[n] = z - cut * spread
                    out[n + 1] = z + cut * spread
                    n += 2
    out[:n].sort()
    apart = max(0.6 * spread, 1e-13)
    kept = 1
    out[0] = -REACH
    for k in range(n):
        if out[k] > out[kept - 1] + apart and out[k] < REACH - apart:
            out[kept] = out[k]
            kept += 1
    out[kept] = REACH
    return kept + 1


@njit(fma=True)
def pair(pieces, rule, su, sv, gap, edges, scratch):
    """E[(σ(u) − σ(v))²], E[(σ(u) + σ(v))²] and E[σ'(u)σ'(v)]; sv < 0 says that ρ = −(1 − gap)."""
    root = math.sqrt(1.0 - gap)
    width = math.sqrt(gap)
    count = outer_edges(pieces, su, sv, root, width / root, edges)
    minus = 0.0
    plus = 0.0
    slope = 0.0
    for k in range(count - 1):
        half = 0.5 * (edges[k + 1] - edges[k])
        middle = 0.5 * (edges[k + 1] + edges[k])
        for a in range(len(rule.nodes)):
            z = middle + half * rule.nodes[a]
            weight = half * rule.weights[a] * INV_SQRT_2PI * exponential(-0.5 * z * z)
            mean_u, var_u, slope_u = smoothed(pieces, rule, su * root * z, su * width, scratch)
            mean_v, var_v, slope_v = mean_u, var_u, slope_u
            if su != sv:
                mean_v, var_v, slope_v = smoothed(pieces, rule, sv * root * z, abs(sv) * width, scratch)
            both = var_u + var_v
            minus += weight * ((mean_u - mean_v) * (mean_u - mean_v) + both)
            plus += weight * ((mean_u + mean_v) * (mean_u + mean_v) + both)
            slope += weight * slope_u * slope_v
    return minus, plus, slope


@njit(fma=True)
def covariances(rows, columns, constants, number, pieces, rule, state, i0, m, j0, w):
    """Fill CK, SLOPE, and WORK with E[(f_u ∓ f_v)²], where the gap is below the series' limit."""
    line = HEAD + FIELDS * number
    limit = constants[number, LIMIT]
    odd = constants[number, ODD] != 0.0
    both_sides = odd and constants[number, EXACT] != 0.0
    scratch = np.empty((3, len(rule.nodes)))
    edges = room(pieces)
    for i in range(m):
        base = i * STRIDE
        su = rows[line + SCALE, i0 + i]
        for k in range(w):
            q = state[Q + base + k]
            sv = columns[line + SCALE, j0 + k]
            if abs(q) >= limit or su * sv == 0.0:  # a zero row has a constant feature: the series has done it
                continue
            side = math.copysign(1.0, q)
            var_u = rows[line + VARIANCE, i0 + i]
            var_v = columns[line + VARIANCE, j0 + k]
            mu = rows[line + MEAN, i0 + i]
            mv = columns[line + MEAN, j0 + k]
            if q == 0.0 and abs(su - sv) <= SAME_SCALE * su and (side > 0.0 or odd):
                state[CK + base + k] = side * 0.5 * (var_u + var_v)
                slopes = rows[line + SLOPE_SQUARED, i0 + i] + columns[line + SLOPE_SQUARED, j0 + k]
                state[SLOPE + base + k] = 0.5 * slopes
                state[WORK + base + k] = 0.0 if side > 0.0 or both_sides else 2.0 * (var_u + var_v)
                continue
            minus, plus, slope = pair(pieces, rule, su, side * sv, abs(q), edges, scratch)
            if minus <= plus:
                cov = 0.5 * (var_u + var_v - (minus - (mu - mv) * (mu - mv)))
            else:
                cov = -0.5 * (var_u + var_v - (plus - (mu + mv) * (mu + mv)))
            state[CK + base + k] = cov
            state[SLOPE + base + k] = slope
            state[WORK + base + k] = plus if both_sides and side < 0.0 else minus


@njit(fma=True)
def distances(rows, columns, constants, number, state, i0, m, j0, w):
    """Fill WORK with E[(f_u ∓ f_v)²] for the other pairs whose next gap is small, from their covariance.

    Their inputs are apart, and so are their features: nothing cancels.
    """
    line = HEAD + FIELDS * number
    limit = constants[number, LIMIT]
    both_sides = constants[number, ODD] != 0.0 and constants[number, EXACT] != 0.0
    for i in range(m):
        base = i * STRIDE
        var_u = rows[line + VARIANCE, i0 + i]
        mu = rows[line + MEAN, i0 + i]
        shift_u = rows[line + SHIFT, i0 + i]
        for k in range(w):
            if abs(state[OLD + base + k]) >= limit and abs(state[Q + base + k]) < NEAR:
                side = -1.0 if both_sides and math.copysign(1.0, state[Q + base + k]) < 0.0 else 1.0
                mv = columns[line + MEAN, j0 + k]
                cov = state[CK + base + k] - shift_u * columns[line + SHIFT, j0 + k]
                apart = (mu - side * mv) * (mu - side * mv)
                total = var_u + columns[line + VARIANCE, j0 + k] - 2.0 * side * cov + apart
                state[WORK + base + k] = max(0.0, total)
