r"""Gaussian sums of step functions of any number of levels, and their derivatives.

For thresholds r_1 < … < r_{k−1} in units of the argument's standard deviation and levels q_0 … q_{k−1} (amplitude one),
with Δ_j = q_j − q_{j−1}, p the probabilities of the levels and q̄ = Σ p q,

    S1 = Σ Δ_j φ(r_j),  S2 = Σ Δ_j r_j φ(r_j),  Sg = ½ Σ Δ_j (q_j + q_{j−1} − 2 q̄) r_j φ(r_j),
    V = Σ_{i<j} p_i p_j (q_i − q_j)².

Every probability comes from the tail in which it does not cancel, and V is a sum of positive terms.
"""

import math

import numpy as np

from rmtntk._jit._options import njit

INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
INV_SQRT_2 = 1.0 / math.sqrt(2.0)


@njit()
def _density(x):
    return math.exp(-0.5 * x * x) * INV_SQRT_2PI


@njit()
def _between(a, b):
    """P(a < ξ < b) without cancellation."""
    if a > 0.0:
        return 0.5 * (math.erfc(a * INV_SQRT_2) - math.erfc(b * INV_SQRT_2))
    if b < 0.0:
        return 0.5 * (math.erfc(-b * INV_SQRT_2) - math.erfc(-a * INV_SQRT_2))
    return 0.5 * (math.erf(b * INV_SQRT_2) - math.erf(a * INV_SQRT_2))


@njit()
def _probabilities(r, k, p):
    p[0] = 0.5 * math.erfc(-r[0] * INV_SQRT_2)
    for j in range(1, k - 1):
        p[j] = _between(r[j - 1], r[j])
    p[k - 1] = 0.5 * math.erfc(r[k - 2] * INV_SQRT_2)


@njit()
def layer_sums(r, q, k, p):
    """S1, S2, Sg, V of the first k levels of q at the first k − 1 thresholds of r; p (k,) is overwritten."""
    _probabilities(r, k, p)
    v = 0.0
    for i in range(k):
        for j in range(i):
            d = q[i] - q[j]
            v += p[i] * p[j] * d * d
    s1 = 0.0
    s2 = 0.0
    sg = 0.0
    for j in range(k - 1):
        f = _density(r[j])
        jump = q[j + 1] - q[j]
        above = 0.0  # q_j + q_{j+1} − 2 q̄, from differences
        for i in range(k):
            above += p[i] * ((q[j] - q[i]) + (q[j + 1] - q[i]))
        s1 += jump * f
        s2 += jump * r[j] * f
        sg += 0.5 * jump * above * r[j] * f
    return s1, s2, sg, v


@njit()
def step_sums(r1, r2, q0, q1, q2):
    """S1, S2, Sg, V of three levels."""
    return layer_sums(np.array([r1, r2]), np.array([q0, q1, q2]), 3, np.empty(3))


@njit()
def layer_gradient(r, q, k, p, by_r, by_q):
    """The sums, and their derivatives in by_r (4, ≥ k − 1) and by_q (4, ≥ k)."""
    s1, s2, sg, v = layer_sums(r, q, k, p)
    mean = 0.0
    for i in range(k):
        mean += p[i] * (q[i] - q[0])
    mean += q[0]
    for i in range(k):
        left = _density(r[i - 1]) if i > 0 else 0.0
        right = _density(r[i]) if i < k - 1 else 0.0
        left_r = r[i - 1] * left if i > 0 else 0.0
        right_r = r[i] * right if i < k - 1 else 0.0
        by_q[0, i] = left - right
        by_q[1, i] = left_r - right_r
        by_q[2, i] = (q[i] - mean) * (left_r - right_r) - p[i] * s2
        by_q[3, i] = 2.0 * p[i] * (q[i] - mean)
    for j in range(k - 1):
        f = _density(r[j])
        jump = q[j + 1] - q[j]
        above = (q[j] - mean) + (q[j + 1] - mean)
        curve = (1.0 - r[j] * r[j]) * f
        by_r[0, j] = -jump * r[j] * f
        by_r[1, j] = jump * curve
        by_r[2, j] = 0.5 * jump * above * curve + f * jump * s2
        by_r[3, j] = -f * jump * above
    return s1, s2, sg, v


@njit()
def sums_table(r, q, out):
    """Fill out (n, 4) with the sums at thresholds r (n, k − 1) for the levels q (k,)."""
    p = np.empty(len(q))
    for i in range(r.shape[0]):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = layer_sums(r[i], q, len(q), p)


@njit()
def gradient_table(r, q, out, by_r, by_q):
    """Fill out (n, 4), by_r (n, 4, k − 1) and by_q (n, 4, k)."""
    p = np.empty(len(q))
    for i in range(r.shape[0]):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = layer_gradient(r[i], q, len(q), p, by_r[i], by_q[i])
