"""Bounds over all step functions: the best division into levels, and the least inflation of a network."""

import math

import numpy as np

from rmtntk._jit._options import njit


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
