"""A function of one variable as polynomials on panels, tabulated once for the loops over pairs."""

from collections.abc import Callable

import numpy as np

from rmtntk._jit import near
from rmtntk._typing import FloatArray
from rmtntk.activations import Activation

__all__ = ["tabulate"]

REACH = 12.5  # in units of the scale: 8.5 for the shared part of a pair and 8.5 √g for its own
ACCURACY = 6e-15  # relative to the panel's largest value
DEGREE = 11
_SPAN = 17  # degree at which a Gauss rule of 12 nodes takes products of two such functions
_MAX_PANELS = 1024
_MAX_ROUNDS = 24
_CHECKS = np.cos(np.pi * (np.arange(9) + 0.3) / 9.0)


def tabulate(act: Activation, low: float, high: float) -> near.Pieces | None:
    """Return σ on [−12 high, 12 high], resolved down to the scale `low`; None if so many panels are not enough."""
    reach = max(REACH * high, 1.0)
    breaks = np.array([point for point in act.breakpoints if abs(point) < reach])
    octaves = 2.0 ** np.arange(-1.0, max(0.0, np.ceil(np.log2(reach))))
    start = np.unique(np.concatenate([[-reach, 0.0, reach], breaks, octaves, -octaves]))
    start = start[np.abs(start) <= reach]
    points = _panels(act.function, start, _SPAN)
    if points is None:
        return None
    # Towards 0 by octaves where the function vanishes: rows of small norm see nothing else. Where it does not, such
    # small panels would only magnify its rounding.
    around = np.abs(act.function(np.linspace(-1.0, 1.0, 65)))
    count = np.ceil(-np.log2(low)) if around[32] < 1e-3 * around.max() else 0.0
    fine = 2.0 ** -np.arange(1.0, 2.0 + min(60.0, max(0.0, float(count))))
    edges = _panels(act.function, np.unique(np.concatenate([points, fine, -fine])), DEGREE)
    if edges is None:
        return None
    nodes, series, _ = _fit(DEGREE)
    halves, middles = 0.5 * np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    values = act.function(middles[:, None] + halves[:, None] * nodes)
    inner = points[1:-1]
    widths = np.minimum(np.diff(points)[1:], np.diff(points)[:-1])
    widths[np.isin(inner, breaks)] = 0.0
    # Chebyshev coefficients that are rounding would grow with the powers, and more with the slopes.
    coefficients = np.asarray(values.astype(np.longdouble) @ series.T.astype(np.longdouble))
    coefficients[np.abs(coefficients) < 2e-16 * np.abs(values).max(axis=1, keepdims=True)] = 0.0
    powers = np.zeros((DEGREE + 1, DEGREE + 1))
    for k in range(DEGREE + 1):
        row = np.polynomial.chebyshev.cheb2poly(np.eye(DEGREE + 1)[k])
        powers[k, : len(row)] = row
    return near.Pieces(edges, middles, halves, np.ascontiguousarray(coefficients @ powers, np.float64), inner, widths)


def _fit(degree: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Chebyshev nodes, and the matrices from values there to coefficients and to values at the points of comparison."""
    count = degree + 1
    angles = np.pi * (np.arange(count) + 0.5) / count
    series = 2.0 / count * np.cos(np.outer(np.arange(count), angles))
    series[0] *= 0.5
    return np.cos(angles), series, np.polynomial.chebyshev.chebvander(_CHECKS, degree) @ series


def _panels(function: Callable[[FloatArray], FloatArray], edges: FloatArray, degree: int) -> FloatArray | None:
    """Halve panels until polynomials of the degree describe the function; None if that takes too many.

    What they miss counts in units of the function here, nearer to 0 and at the other sign, all of which the same rows
    see as often.
    """
    floor = 1e-3 * float(np.abs(function(np.linspace(-1.0, 1.0, 65))).max())
    nodes, _, to_checks = _fit(degree)
    left, right, done = edges[:-1], edges[1:], [edges]
    for _ in range(_MAX_ROUNDS):
        middle, half = 0.5 * (left + right), 0.5 * (right - left)
        x = np.concatenate([nodes, _CHECKS])
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            points = middle[:, None] + half[:, None] * x
            values = function(points)
            at_nodes, wanted = values[:, : degree + 1], values[:, degree + 1 :]
            near_by = np.concatenate([values] + [function(f * points) for f in (-1.0, 0.5, -0.5)], axis=1)
            size = np.maximum(np.abs(near_by).max(axis=1), np.where(np.abs(middle) > 1.0, floor, 0.0))
            bad = ~(np.abs(at_nodes @ to_checks.T - wanted).max(axis=1) <= ACCURACY * size)
        if not bad.any():
            return np.unique(np.concatenate(done))
        left, middle, right = left[bad], middle[bad], right[bad]
        done.append(middle)
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        if sum(map(len, done)) > _MAX_PANELS:
            return None
    return None
