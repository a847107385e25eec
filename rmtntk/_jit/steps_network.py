"""A network of step functions: its recursion, and its derivatives by the parameters of all layers."""

import math

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.steps_sums import layer_gradient, layer_sums


@njit()
def _advance(row, u, z, gamma, new):
    """One layer of the recursion of (ᾱ1, ᾱ2, ᾱ3, ᾱ4, β̄1, β̄2, β̄3)."""
    new[0] = u * row[0]
    new[1] = u * row[1] + 0.25 * z * row[3] * row[3]
    new[2] = u * row[2] + 0.5 * z * row[0] * row[0]
    new[3] = gamma * row[3]
    new[4] = new[0] + u * row[4]
    new[5] = new[1] + u * row[5]
    new[6] = new[2] + u * row[6] + z * row[0] * row[4]


@njit()
def network_rows(thresholds, levels, sizes, tau0):
    """(ᾱ1, ᾱ2, ᾱ3, ᾱ4, β̄1, β̄2, β̄3) after the last layer, in units of its own variance.

    thresholds (L, ≥ k − 1), levels (L, ≥ k), sizes (L,): the number of levels of each layer.
    """
    row = np.zeros(7)
    new = np.zeros(7)
    row[0] = row[3] = row[4] = 1.0 / (tau0 * tau0)
    p = np.empty(levels.shape[1])
    for layer in range(thresholds.shape[0]):
        s1, s2, sg, v = layer_sums(thresholds[layer], levels[layer], sizes[layer], p)
        v = max(v, 1e-300)
        _advance(row, s1 * s1 / v, s2 * s2 / v, sg / v, new)
        row, new = new, row
    return row.copy()


# --- Parameters of a layer: kind 0 general, 1 odd, 2 even; free levels follow the thresholds.


@njit()
def n_parameters(kind, k, free):
    """How many parameters a layer has."""
    n = k - 1 if kind == 0 else (k - 1) // 2
    if free:
        n += k if kind == 0 else (k // 2 if kind == 1 else (k + 1) // 2)
    return n


@njit()
def unpack(z, kind, k, free, r, q):
    """Thresholds r (k − 1,) and, if free, levels q (k,) from parameters z.

    General: r_1 and log gaps. Odd and even: log of the least positive threshold and log gaps, mirrored.
    """
    n = k - 1
    if kind == 0:
        r[0] = z[0]
        for j in range(1, n):
            r[j] = r[j - 1] + math.exp(min(z[j], 20.0))
        used = n
    else:
        half = n // 2
        if n % 2:
            r[half] = 0.0
        t = 0.0
        for j in range(half):
            t += math.exp(min(z[j], 20.0))
            r[n - half + j] = t
            r[half - 1 - j] = -t
        used = half
    if free:
        if kind == 0:
            for j in range(k):
                q[j] = z[used + j]
        elif kind == 1:
            half = k // 2
            if k % 2:
                q[half] = 0.0
            for j in range(half):
                q[k - half + j] = z[used + j]
                q[half - 1 - j] = -z[used + j]
        else:
            half = k // 2
            for j in range((k + 1) // 2):
                q[half + j] = z[used + j]
                q[k - 1 - half - j] = z[used + j]


@njit()
def pull_back(z, kind, k, free, by_r, by_q, out):
    """Derivative by the parameters from those by r (k − 1,) and q (k,)."""
    n = k - 1
    if kind == 0:
        total = 0.0
        for j in range(n - 1, 0, -1):
            total += by_r[j]
            out[j] = total * math.exp(min(z[j], 20.0))
        out[0] = total + by_r[0]
        used = n
    else:
        half = n // 2
        total = 0.0
        for j in range(half - 1, -1, -1):
            total += by_r[n - half + j] - by_r[half - 1 - j]
            out[j] = total * math.exp(min(z[j], 20.0))
        used = half
    if free:
        if kind == 0:
            for j in range(k):
                out[used + j] = by_q[j]
        elif kind == 1:
            half = k // 2
            for j in range(half):
                out[used + j] = by_q[k - half + j] - by_q[half - 1 - j]
        else:
            half = k // 2
            for j in range((k + 1) // 2):
                twin = k - 1 - half - j
                out[used + j] = by_q[half + j] + (by_q[twin] if twin != half + j else 0.0)


@njit()
def network_jacobian(z, kinds, sizes, free, levels, rows, jacobian):
    """Rows at τ_0 = 1 as in `network_rows` and their derivatives (7, len(z)) by all parameters.

    levels (L, K) holds the levels of layers that are not free, and receives those that are.
    """
    depth = len(kinds)
    width = levels.shape[1]
    row, new = np.zeros(7), np.zeros(7)
    row[0] = row[3] = row[4] = 1.0
    jacobian[:] = 0.0
    p, r = np.empty(width), np.empty(width)
    by_r, by_q = np.empty((4, width)), np.empty((4, width))
    local = np.empty(2 * width)
    side_r, side_q = np.empty(width), np.empty(width)
    slopes = np.empty((3, 2 * width))
    start = 0
    for layer in range(depth):
        kind, k = kinds[layer], sizes[layer]
        count = n_parameters(kind, k, free)
        part = z[start : start + count]
        unpack(part, kind, k, free, r, levels[layer])
        s1, s2, sg, v = layer_gradient(r, levels[layer], k, p, by_r, by_q)
        v = max(v, 1e-300)
        if kind == 1:
            s2 = 0.0
        if kind == 2:
            s1 = 0.0
        u, w, gamma = s1 * s1 / v, s2 * s2 / v, sg / v
        for which in range(3):
            # u = S1²/V, z = S2²/V, γ = Sg/V
            first = 2.0 * s1 / v if which == 0 else (2.0 * s2 / v if which == 1 else 1.0 / v)
            whole = u if which == 0 else (w if which == 1 else gamma)
            for j in range(k):
                if j < k - 1:
                    side_r[j] = first * by_r[which, j] - whole / v * by_r[3, j]
                side_q[j] = first * by_q[which, j] - whole / v * by_q[3, j]
            pull_back(part, kind, k, free, side_r, side_q, local)
            for j in range(count):
                slopes[which, j] = local[j]
        _advance(row, u, w, gamma, new)
        for j in range(start):  # earlier parameters: through the row
            d0, d1, d2, d3 = jacobian[0, j], jacobian[1, j], jacobian[2, j], jacobian[3, j]
            d4, d5, d6 = jacobian[4, j], jacobian[5, j], jacobian[6, j]
            jacobian[0, j] = u * d0
            jacobian[1, j] = u * d1 + 0.5 * w * row[3] * d3
            jacobian[2, j] = u * d2 + w * row[0] * d0
            jacobian[3, j] = gamma * d3
            jacobian[4, j] = jacobian[0, j] + u * d4
            jacobian[5, j] = jacobian[1, j] + u * d5
            jacobian[6, j] = jacobian[2, j] + u * d6 + w * (d0 * row[4] + row[0] * d4)
        for i in range(count):  # this layer's own
            j = start + i
            du, dz, dg = slopes[0, i], slopes[1, i], slopes[2, i]
            jacobian[0, j] = du * row[0]
            jacobian[1, j] = du * row[1] + 0.25 * dz * row[3] * row[3]
            jacobian[2, j] = du * row[2] + 0.5 * dz * row[0] * row[0]
            jacobian[3, j] = dg * row[3]
            jacobian[4, j] = jacobian[0, j] + du * row[4]
            jacobian[5, j] = jacobian[1, j] + du * row[5]
            jacobian[6, j] = jacobian[2, j] + du * row[6] + dz * row[0] * row[4]
        row, new = new, row
        start += count
    rows[:] = row
