"""Parameters of a network of step functions moved onto wanted ratios of its rows."""

import math

import numpy as np

from rmtntk._jit._options import njit
from rmtntk._jit.steps_network import network_jacobian


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
