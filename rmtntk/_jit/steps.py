r"""Gaussian sums of three-level steps, and the scale-free recursion of a network of them.

For thresholds r1 < r2 in units of the argument's standard deviation and levels q0, q1, q2 at amplitude one:
S1 = Σ Δ_j φ(r_j), S2 = Σ Δ_j r_j φ(r_j), Sg = ½ Σ Δ_j (q_j + q_{j−1} − 2 q̄) r_j φ(r_j), V = Var q.
"""

import math

import numpy as np

from rmtntk._jit._options import njit

INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
INV_SQRT_2 = 1.0 / math.sqrt(2.0)


@njit()
def step_sums(r1, r2, q0, q1, q2):
    """S1, S2, Sg, V; V as a sum over pairs of levels, so that nothing cancels."""
    f1 = math.exp(-0.5 * r1 * r1) * INV_SQRT_2PI
    f2 = math.exp(-0.5 * r2 * r2) * INV_SQRT_2PI
    low = 0.5 * math.erfc(-r1 * INV_SQRT_2)
    high = 0.5 * math.erfc(r2 * INV_SQRT_2)
    # P(r1 < ξ < r2) from the tail where it does not cancel
    middle = 0.5 * math.erfc(r1 * INV_SQRT_2) - high if r1 > 0.0 else 0.5 * math.erfc(-r2 * INV_SQRT_2) - low
    d1 = q1 - q0
    d2 = q2 - q1
    mean = low * q0 + middle * q1 + high * q2
    s1 = d1 * f1 + d2 * f2
    s2 = d1 * r1 * f1 + d2 * r2 * f2
    sg = 0.5 * (d1 * (q0 + q1 - 2.0 * mean) * r1 * f1 + d2 * (q1 + q2 - 2.0 * mean) * r2 * f2)
    v = low * middle * d1 * d1 + low * high * (q2 - q0) ** 2 + middle * high * d2 * d2
    return s1, s2, sg, v


@njit()
def step_sums_table(r, shape, out):
    """Fill out (n, 4) with the sums at thresholds r (n, 2)."""
    for k in range(r.shape[0]):
        s1, s2, sg, v = step_sums(r[k, 0], r[k, 1], shape[0], shape[1], shape[2])
        out[k, 0] = s1
        out[k, 1] = s2
        out[k, 2] = sg
        out[k, 3] = v


@njit()
def network_rows(thresholds, shapes, tau0):
    """(ᾱ1, ᾱ2, ᾱ3, ᾱ4, β̄1, β̄2, β̄3) after the last layer, in units of its own variance."""
    unit = 1.0 / (tau0 * tau0)
    a1, a2, a3, a4 = unit, 0.0, 0.0, unit
    b1, b2, b3 = unit, 0.0, 0.0
    for k in range(thresholds.shape[0]):
        s1, s2, sg, v = step_sums(thresholds[k, 0], thresholds[k, 1], shapes[k, 0], shapes[k, 1], shapes[k, 2])
        v = max(v, 1e-300)
        u = s1 * s1 / v
        w = s2 * s2 / v
        n1 = u * a1
        n2 = u * a2 + 0.25 * w * a4 * a4
        n3 = u * a3 + 0.5 * w * a1 * a1
        b3 = n3 + u * b3 + w * a1 * b1
        b2 = n2 + u * b2
        b1 = n1 + u * b1
        a1, a2, a3, a4 = n1, n2, n3, sg / v * a4
    return np.array([a1, a2, a3, a4, b1, b2, b3])
