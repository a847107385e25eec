"""All solutions of a layer of two thresholds: its sums on a grid, and Newton steps in every cell that may hold one."""

import math

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.steps_sums import layer_gradient, layer_sums


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
