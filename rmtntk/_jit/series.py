r"""Layers given by Hermite coefficients: E[σ(u)σ(v)] = Σ_k c_k(λ_u) c_k(λ_v) ρ^k (Mehler 1866).

Coefficients of one parity are stored without the zeros: term n of the table has order k = start + step · n, and
the sum is ρ^start Σ e_n x^n with x = ρ^step. The table is (terms, n): a loop over one row's pairs reads it in order.
"""

import math

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.layout import (
    CK,
    FAMILY,
    FIELDS,
    HEAD,
    INVERSE,
    MEAN,
    NEAR,
    OLD,
    OUTER2,
    SLOPE,
    STRIDE,
    WIDTH,
    WORK,
    Q,
)  # fmt: skip

START = FAMILY  # 1 (all orders or odd ones) or 2 (even ones)
STEP = FAMILY + 1  # 1 or 2
LIMIT = FAMILY + 2  # gaps below are left to a loop of their own (`step`, `near`); 0 if none are
FLOOR = FAMILY + 3  # errors that no ρ makes small, of covariances in units of √(E[f_u²] E[f_v²]),
SLOPE_FLOOR = FAMILY + 4  # and of E[σ'σ'] in units of √(E[f_u'²] E[f_v'²])
UNROLL = 4


@njit()
def terms_needed(rho, tails):
    """Return how many of the terms matter for |ρ| ≤ rho: tails[b] is what 4 (b + 1) terms leave out at ρ = 1, by c²."""
    blocks = len(tails)
    if rho >= 1.0:
        return blocks
    for b in range(blocks):
        order = tails[b, 0]
        if tails[b, 1] * rho ** (order - 1.0) * (order + 1.0 / (1.0 - rho)) < 1e-17:
            return b + 1
    return blocks


@njit(fma=True)
def covariances(rows, columns, constants, number, terms_u, terms_v, tails, state, i0, m, j0, w):
    """Fill CK and SLOPE.

    terms_u, terms_v: (terms, n); tails (terms / 4, 2): order and largest Σ c_k² / E[σ²] left out from there.
    """
    line = HEAD + FIELDS * number
    outer2 = constants[number, OUTER2]
    start = constants[number, START]
    step = constants[number, STEP]
    limit = constants[number, LIMIT]
    own = np.empty(terms_u.shape[0])
    scale_v = columns[line + INVERSE, j0 : j0 + w]
    for i in range(m):
        base = i * STRIDE
        least = 1.0
        for k in range(w):
            gap = abs(state[Q + base + k])
            least = min(least, gap if gap >= limit else 1.0)
        blocks = terms_needed(1.0 - least, tails)
        for n in range(UNROLL * blocks):
            own[n] = terms_u[n, i0 + i]
        for k in range(w):
            rho = math.copysign(1.0 - abs(state[Q + base + k]), state[Q + base + k])
            state[WORK + base + k] = rho if step == 1.0 else rho * rho
            state[CK + base + k] = 0.0
            state[SLOPE + base + k] = 0.0
        for b in range(blocks - 1, -1, -1):
            n = UNROLL * b
            order = start + step * n
            u0 = own[n]
            u1 = own[n + 1]
            u2 = own[n + 2]
            u3 = own[n + 3]
            v0 = terms_v[n, j0 : j0 + w]
            v1 = terms_v[n + 1, j0 : j0 + w]
            v2 = terms_v[n + 2, j0 : j0 + w]
            v3 = terms_v[n + 3, j0 : j0 + w]
            for k in range(w):
                x = state[WORK + base + k]
                e0 = u0 * v0[k]
                e1 = u1 * v1[k]
                e2 = u2 * v2[k]
                e3 = u3 * v3[k]
                x2 = x * x
                value = state[CK + base + k]
                state[CK + base + k] = (e0 + x * e1) + x2 * ((e2 + x * e3) + x2 * value)
                e0 *= order
                e1 *= order + step
                e2 *= order + 2.0 * step
                e3 *= order + 3.0 * step
                slope = state[SLOPE + base + k]
                state[SLOPE + base + k] = (e0 + x * e1) + x2 * ((e2 + x * e3) + x2 * slope)
        scale_u = rows[line + INVERSE, i0 + i] * outer2
        for k in range(w):
            q = state[Q + base + k]
            rho = math.copysign(1.0 - abs(q), q)
            state[CK + base + k] *= outer2 * (rho if start == 1.0 else rho * rho)
            state[SLOPE + base + k] *= (1.0 if start == 1.0 else rho) * scale_u * scale_v[k]


@njit(fma=True)
def distances(rows, columns, constants, number, terms_u, terms_v, state, i0, m, j0, w):
    r"""Fill WORK with ‖f_u ∓ f_v‖² = Σ (u_k − v_k)² + 2 Σ u_k v_k (1 − |ρ|^k) in rows where a next gap is small.

    With suffix sums s_n = Σ_{j≥n} e_j and x = |ρ|^step: Σ e_n (1 − x^n) = (1 − x) Σ_{n≥1} s_n x^{n−1}.
    """
    line = HEAD + FIELDS * number
    outer2 = constants[number, OUTER2]
    start = constants[number, START]
    step = constants[number, STEP]
    limit = constants[number, LIMIT]
    odd = start == 1.0 and step == 2.0
    total = terms_u.shape[0]
    mean_v = columns[line + MEAN, j0 : j0 + w]
    suffix = np.empty(WIDTH)
    divided = np.empty(WIDTH)
    apart = np.empty(WIDTH)
    for i in range(m):
        base = i * STRIDE
        near = 0
        for k in range(w):
            near += 1 if abs(state[Q + base + k]) < NEAR else 0
        if near == 0:
            continue
        mean_u = rows[line + MEAN, i0 + i]
        for k in range(w):
            suffix[k] = 0.0
            divided[k] = 0.0
            apart[k] = (mean_u - mean_v[k]) * (mean_u - mean_v[k])
        for n in range(total - 1, -1, -1):
            u = terms_u[n, i0 + i]
            own_v = terms_v[n, j0 : j0 + w]
            for k in range(w):
                g = abs(state[OLD + base + k])
                x = math.copysign(1.0 - g, state[OLD + base + k]) if step == 1.0 else (1.0 - g) * (1.0 - g)
                v = own_v[k]
                suffix[k] += u * v
                divided[k] = divided[k] * x + suffix[k]
                apart[k] += (u - v) * (u - v)
        for k in range(w):
            before = state[OLD + base + k]
            g = abs(before)
            if abs(state[Q + base + k]) < NEAR and g >= limit:
                rho = 1.0 - g
                if step == 1.0:
                    drop = (g if math.copysign(1.0, before) > 0.0 else 2.0 - g) * divided[k]
                elif odd:  # 1 − |ρ|^{2n+1} = g + |ρ| (1 − x^n)
                    inner = (divided[k] - suffix[k]) / (rho * rho)
                    drop = g * (suffix[k] + rho * (2.0 - g) * inner)
                    if math.copysign(1.0, before) * math.copysign(1.0, state[Q + base + k]) < 0.0:
                        drop = 2.0 * suffix[k] - drop  # a bias has turned the pair around
                else:
                    drop = g * (2.0 - g) * divided[k]
                state[WORK + base + k] = outer2 * (apart[k] + 2.0 * drop)
