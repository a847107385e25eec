r"""Gaussian sums of step functions of any number of levels, their derivatives, and the recursion of a network.

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


@njit()
def _deviations(rows, index, reference, goal, logs, out):
    size = 0.0
    for i in range(len(index)):
        ratio = rows[index[i]] / max(rows[reference[i]], 1e-300)
        if logs[i]:
            out[i] = math.log(max(ratio, 1e-300) / goal[i])
        else:
            out[i] = (ratio - goal[i]) / max(1.0, abs(goal[i]))
        size = max(size, abs(out[i]))
    return size


@njit()
def _solve_gram(jacobian, value, move):
    """Minus the step of least norm with J·move = value, by elimination of J Jᵀ with pivots; False if singular."""
    m, n = jacobian.shape
    a, b = np.zeros((m, m)), value.copy()
    for i in range(m):
        for j in range(m):
            for k in range(n):
                a[i, j] += jacobian[i, k] * jacobian[j, k]
    scale = 0.0
    for i in range(m):
        scale = max(scale, a[i, i])
    for i in range(m):
        top = i
        for j in range(i + 1, m):
            if abs(a[j, i]) > abs(a[top, i]):
                top = j
        if not abs(a[top, i]) > 1e-13 * scale:
            return False
        for k in range(m):
            a[i, k], a[top, k] = a[top, k], a[i, k]
        b[i], b[top] = b[top], b[i]
        for j in range(i + 1, m):
            f = a[j, i] / a[i, i]
            for k in range(i, m):
                a[j, k] -= f * a[i, k]
            b[j] -= f * b[i]
    for i in range(m - 1, -1, -1):
        for k in range(i + 1, m):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    for k in range(n):
        move[k] = 0.0
        for i in range(m):
            move[k] -= jacobian[i, k] * b[i]
    return True


@njit()
def project(z, low, high, kinds, sizes, free, levels, index, reference, goal, logs, iterations):
    """Gauss–Newton steps of least norm onto rows[index] = goal·rows[reference], z (n,) in place; returns the deviation.

    `logs` (m,): compared in logarithms. Steps leave the box only if z was outside.
    """
    m, n = len(index), len(z)
    rows, jacobian = np.empty(7), np.empty((7, n))
    value, trial_value, own, move, trial = np.empty(m), np.empty(m), np.empty((m, n)), np.empty(n), np.empty(n)
    network_jacobian(z, kinds, sizes, free, levels, rows, jacobian)
    size = _deviations(rows, index, reference, goal, logs, value)
    for _ in range(iterations):
        if not size > 2e-15:
            break
        for i in range(m):
            base, top = max(rows[reference[i]], 1e-300), max(rows[index[i]], 1e-300)
            for k in range(n):
                if logs[i]:
                    own[i, k] = jacobian[index[i], k] / top - jacobian[reference[i], k] / base
                else:
                    slope = jacobian[index[i], k] - rows[index[i]] / base * jacobian[reference[i], k]
                    own[i, k] = slope / base / max(1.0, abs(goal[i]))
        if not _solve_gram(own, value, move):
            break
        largest = 0.0
        for k in range(n):
            largest = max(largest, abs(move[k]))
        scale = min(1.0, 0.5 / max(largest, 1e-300))
        moved = False
        for _ in range(5):
            for k in range(n):
                trial[k] = min(max(z[k] + scale * move[k], min(low[k], z[k])), max(high[k], z[k]))
            network_jacobian(trial, kinds, sizes, free, levels, rows, jacobian)
            new = _deviations(rows, index, reference, goal, logs, trial_value)
            if new < size:
                moved = True
                break
            scale *= 0.5
        if not moved:
            network_jacobian(z, kinds, sizes, free, levels, rows, jacobian)
            break
        size = new
        z[:] = trial
        value[:] = trial_value
    return size


@njit()
def project_all(points, low, high, kinds, sizes, free, levels, index, reference, goal, logs, iterations, main, out):
    """`project` every row of points (n, d) in place; out (n, 2): deviation and −log rows[main]."""
    rows, jacobian = np.empty(7), np.empty((7, points.shape[1]))
    for i in range(points.shape[0]):
        out[i, 0] = project(points[i], low, high, kinds, sizes, free, levels, index, reference, goal, logs, iterations)
        network_jacobian(points[i], kinds, sizes, free, levels, rows, jacobian)
        out[i, 1] = -math.log(max(rows[main], 1e-300))


# --- All solutions of a layer of two thresholds


@njit()
def two_equations(x, y, q, even, ratio, g_ratio, by_least, value, slopes, p, by_r, by_q):
    """The two equations of a layer at r = (x, x + e^y), with P the primary and S the secondary sum, in value (2,).

    S/√V − ratio P/√V = 0, and Sg/V − g_ratio P²/V = 0; or, by_least, that log(P²/V) is stationary along the curve
    on which S/P is constant. Derivatives by x and y in slopes (2, 2), but of the stationarity. False where the sums
    underflow.
    """
    r = np.empty(2)
    width = math.exp(min(y, 20.0))
    r[0] = x
    r[1] = x + width
    s1, s2, sg, v = layer_gradient(r, q, 3, p, by_r, by_q)
    if not v > 1e-12:
        return False
    a, b = (1, 0) if even else (0, 1)
    primary, secondary = (s2, s1) if even else (s1, s2)
    unit = math.sqrt(v)
    value[0] = (secondary - ratio * primary) / unit
    value[1] = (sg - g_ratio * primary * primary) / v
    for i in range(2):
        # by r1 with r2 fixed (i = 0) and by r2
        d0 = (by_r[b, i] - ratio * by_r[a, i]) / unit - 0.5 * value[0] * by_r[3, i] / v
        d1 = (by_r[2, i] - 2.0 * g_ratio * primary * by_r[a, i] - value[1] * by_r[3, i]) / v
        if i == 0:
            slopes[0, 0], slopes[1, 0] = d0, d1
        else:
            slopes[0, 0] += d0
            slopes[1, 0] += d1
            slopes[0, 1], slopes[1, 1] = width * d0, width * d1
    if by_least:
        # gradients of S − ρ P, ρ fixed at S/P, and of log(P²/V), times P
        rho = secondary / primary
        e0, e1 = by_r[b, 0] - rho * by_r[a, 0], by_r[b, 1] - rho * by_r[a, 1]
        c0 = 2.0 * by_r[a, 0] - primary * by_r[3, 0] / v
        c1 = 2.0 * by_r[a, 1] - primary * by_r[3, 1] / v
        value[1] = (e0 * c1 - e1 * c0) / v * width / (1.0 + width)
    return True


@njit()
def corner_table(x, y, q, even, out):
    """P/√V, S/√V, Sg/V and the stationarity at every r = (x, x + e^y), in out (n, m, 4); NaN where V ≤ 1e-7."""
    p, by_r, by_q = np.empty(3), np.empty((4, 3)), np.empty((4, 3))
    r, value, slopes = np.empty(2), np.empty(2), np.empty((2, 2))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            r[0] = x[i, j]
            r[1] = x[i, j] + math.exp(y[i, j])
            s1, s2, sg, v = layer_sums(r, q, 3, p)
            out[i, j] = math.nan
            if v > 1e-7:
                out[i, j, 0] = (s2 if even else s1) / math.sqrt(v)
                out[i, j, 1] = (s1 if even else s2) / math.sqrt(v)
                out[i, j, 2] = sg / v
                two_equations(x[i, j], y[i, j], q, even, 0.0, 0.0, True, value, slopes, p, by_r, by_q)
                out[i, j, 3] = value[1]


@njit()
def solve_two(x, y, q, even, ratio, g_ratio, by_least, out):
    """Damped Newton from (x, y); True and the root in out (2,) if it converges without going far."""
    p, by_r, by_q = np.empty(3), np.empty((4, 3)), np.empty((4, 3))
    value, right, left = np.empty(2), np.empty(2), np.empty(2)
    slopes, other = np.empty((2, 2)), np.empty((2, 2))
    x0, y0 = x, y
    if not two_equations(x, y, q, even, ratio, g_ratio, by_least, value, slopes, p, by_r, by_q):
        return False
    size = abs(value[0]) + abs(value[1])
    h = 1e-6
    for iteration in range(40):
        j00, j01, j10, j11 = slopes[0, 0], slopes[0, 1], slopes[1, 0], slopes[1, 1]
        if by_least:
            ok = two_equations(x + h, y, q, even, ratio, g_ratio, by_least, right, other, p, by_r, by_q)
            ok = ok and two_equations(x - h, y, q, even, ratio, g_ratio, by_least, left, other, p, by_r, by_q)
            j10 = (right[1] - left[1]) / (2.0 * h)
            ok = ok and two_equations(x, y + h, q, even, ratio, g_ratio, by_least, right, other, p, by_r, by_q)
            ok = ok and two_equations(x, y - h, q, even, ratio, g_ratio, by_least, left, other, p, by_r, by_q)
            j11 = (right[1] - left[1]) / (2.0 * h)
            if not ok:
                return False
        det = j00 * j11 - j01 * j10
        if det == 0.0 or not math.isfinite(det):
            return False
        dx = -(j11 * value[0] - j01 * value[1]) / det
        dy = -(j00 * value[1] - j10 * value[0]) / det
        if iteration == 0 and max(abs(dx), abs(dy)) > 0.4:
            return False  # a cell without a root
        scale = min(1.0, 0.2 / max(abs(dx), abs(dy), 1e-300))
        moved = False
        for _ in range(6):
            if two_equations(
                x + scale * dx, y + scale * dy, q, even, ratio, g_ratio, by_least, right, other, p, by_r, by_q
            ):
                trial = abs(right[0]) + abs(right[1])
                if trial < size:
                    x += scale * dx
                    y += scale * dy
                    value[0], value[1] = right[0], right[1]
                    slopes[:] = other
                    moved = True
                    size = trial
                    break
            scale *= 0.5
        if not moved:
            break
        if abs(x - x0) > 0.4 or abs(y - y0) > 0.5:
            return False  # another cell's root
    out[0] = x
    out[1] = y
    if by_least:
        return size < 3e-12 and abs(value[0]) < 2e-14
    return size < 3e-14


@njit()
def _may_vanish(a, b, c, d):
    """Whether a function with these values at the corners of a cell may be 0 in it, with a quarter to spare."""
    low = min(min(a, b), min(c, d))
    high = max(max(a, b), max(c, d))
    spare = 0.25 * (high - low)
    return low - spare <= 0.0 <= high + spare


@njit()
def cell_angles(table, cells, low, high):
    """Cells with no NaN corner, their numbers in cells, and bounds of atan(S/P) in each; returns how many."""
    n = 0
    m = table.shape[1]
    for i in range(table.shape[0] - 1):
        for j in range(m - 1):
            least, most = math.inf, -math.inf
            up, down = False, False
            alive = True
            for corner in range(4):
                t = table[i + corner // 2, j + corner % 2]
                if math.isnan(t[0] + t[1] + t[2] + t[3]):
                    alive = False
                    break
                up = up or t[0] >= 0.0
                down = down or t[0] <= 0.0
                angle = math.atan2(t[1], t[0]) if t[0] > 0.0 else (math.atan2(-t[1], -t[0]) if t[0] < 0.0 else 0.0)
                least, most = min(least, angle), max(most, angle)
            if not alive:
                continue
            spare = 0.25 * (most - least)
            if up and down:  # P vanishes: any angle
                least, most = -2.0, 2.0
            cells[n] = i * m + j
            low[n] = least - spare
            high[n] = most + spare
            n += 1
    return n


@njit()
def _least_of_curve(table, cells, low, high, angle):
    """A bound of the greatest P²/V on the curve S = ± ratio P: the greatest of the least corners of its cells."""
    m = table.shape[1]
    best = 0.0
    for c in range(len(cells)):
        if low[c] <= angle <= high[c] or low[c] <= -angle <= high[c]:
            i, j = cells[c] // m, cells[c] % m
            t00, t10, t01, t11 = table[i, j], table[i + 1, j], table[i, j + 1], table[i + 1, j + 1]
            a = math.tan(angle)
            for sign in (a, -a):
                w00, w10 = t00[1] - sign * t00[0], t10[1] - sign * t10[0]
                w01, w11 = t01[1] - sign * t01[0], t11[1] - sign * t11[0]
                if min(min(w00, w10), min(w01, w11)) <= 0.0 <= max(max(w00, w10), max(w01, w11)):
                    best = max(best, min(min(abs(t00[0]), abs(t10[0])), min(abs(t01[0]), abs(t11[0]))))
    return best * best


@njit()
def solve_cells(xs, ys, table, cells, low, high, q, even, ratio, g_ratio, by_least, least, out):
    """Roots (x, y) of both equations with any signs of ratio and g_ratio, in out (≥ n, 2); returns how many.

    table (n, m, 4): P/√V, S/√V, Sg/V and the stationarity at the corners; cells, low and high from `cell_angles`.
    By_least, cells that cannot hold the greatest P²/V, or as much as `least`, are left out.
    """
    n = 0
    if by_least:
        least = max(0.999 * least, 0.98 * _least_of_curve(table, cells, low, high, math.atan(ratio)))
    root = np.empty(2)
    m = table.shape[1]
    angle = math.atan(ratio)
    for c in range(len(cells)):
        if not (low[c] <= angle <= high[c] or low[c] <= -angle <= high[c]):
            continue
        i, j = cells[c] // m, cells[c] % m
        t00, t10, t01, t11 = table[i, j], table[i + 1, j], table[i, j + 1], table[i + 1, j + 1]
        for sign in (1.0, -1.0):
            if sign < 0.0 and ratio == 0.0:
                continue
            a = sign * ratio
            if not _may_vanish(t00[1] - a * t00[0], t10[1] - a * t10[0], t01[1] - a * t01[0], t11[1] - a * t11[0]):
                continue
            for g_sign in (1.0, -1.0):
                if g_sign < 0.0 and (by_least or g_ratio == 0.0):
                    continue
                b = g_sign * g_ratio
                if by_least:
                    most = max(max(abs(t00[0]), abs(t10[0])), max(abs(t01[0]), abs(t11[0])))
                    if most * most < least or not _may_vanish(t00[3], t10[3], t01[3], t11[3]):
                        continue
                elif not _may_vanish(
                    t00[2] - b * t00[0] ** 2,
                    t10[2] - b * t10[0] ** 2,
                    t01[2] - b * t01[0] ** 2,
                    t11[2] - b * t11[0] ** 2,
                ):
                    continue
                x, y = 0.5 * (xs[i] + xs[i + 1]), 0.5 * (ys[j] + ys[j + 1])
                if not solve_two(x, y, q, even, a, b, by_least, root):
                    continue
                known = False
                for k in range(n):
                    if abs(out[k, 0] - root[0]) + abs(out[k, 1] - root[1]) < 1e-6:
                        known = True
                if not known and n < out.shape[0]:
                    out[n, 0] = root[0]
                    out[n, 1] = root[1]
                    n += 1
    return n


# --- Bounds


@njit()
def best_segmentation(mass, moment, k):
    """Greatest Σ (Σ moment)²/Σ mass over divisions of the cells into at most k consecutive pieces."""
    n = len(mass)
    big_p, big_f = np.zeros(n + 1), np.zeros(n + 1)
    for i in range(n):
        big_p[i + 1] = big_p[i] + mass[i]
        big_f[i + 1] = big_f[i] + moment[i]
    best, new = np.zeros(n + 1), np.zeros(n + 1)
    for j in range(1, n + 1):
        best[j] = big_f[j] * big_f[j] / big_p[j]
    for _ in range(k - 1):
        for j in range(1, n + 1):
            top = best[j]
            for i in range(1, j):
                d = big_f[j] - big_f[i]
                value = best[i] + d * d / (big_p[j] - big_p[i])
                if value > top:
                    top = value
            new[j] = top
        best, new = new, best
    return best[n]


@njit()
def least_inflation(previous, weight, at_least, first, out):
    """One backward step of the bound: out(A) = min over s of v(s) · previous((A − weight s) v(s)).

    All on the grid i·step, previous and v(s) = at_least non-decreasing; every argument is rounded to the safe side.
    For A from `first` to the end of out.
    """
    n = len(previous)
    for a in range(first, len(out)):
        best = math.inf
        for s in range(len(at_least)):
            v = at_least[s]
            if v * previous[0] >= best:
                break
            # s lies in [s, s + 1)·step
            left = (a - weight * (s + 1.0)) * v
            index = 0 if left <= 0.0 else min(int(left), n - 1)
            value = v * previous[index]
            if value < best:
                best = value
            if left <= 0.0:
                break
        out[a] = best
