r"""Hermite coefficients of an activation, for the Mehler series of its dual kernel.

With orthonormal Hermite polynomials he_k and c_k(τ) = E[σ(τξ) he_k(ξ)], Mehler's formula reads
E[σ(u)σ(v)] = Σ_k c_k(τ_u) c_k(τ_v) ρ^k. Truncated after K terms it is off by at most
|ρ|^K √(t_u t_v), where t = E[σ²] − Σ_{k<K} c_k² is what the coefficients leave out.
"""

import math
from typing import NamedTuple

import numpy as np

from rmtntk import quadrature
from rmtntk._typing import FloatArray
from rmtntk.activations import Activation
from rmtntk.moments import hermite_polynomial_coefficients, moment_arrays, weighted_values

__all__ = ["HermiteSeries", "hermite_series"]

MAX_TERMS = 320
_REACH = 13.0  # beyond, φ(ξ) < 1e-37 and what he_k adds (< e^{ξ²/4}) leaves < 1e-18
_CHUNK = 256


class HermiteSeries(NamedTuple):
    """Coefficients (n, terms), and what they leave out: Σ c_k² (n,) and Σ k c_k² (n,), the latter inf for jumps."""

    coefficients: FloatArray
    tail: FloatArray
    slope_tail: FloatArray


def hermite_series(act: Activation, tau: FloatArray) -> HermiteSeries:
    """Return the Hermite series at each scale of `tau`, shape (n,), τ ≥ 0.

    The number of terms is the smallest multiple of 16, at most 320, that brings every tail below the
    activation's tolerance (in units of E[σ²] and τ² E[σ'²]); the tails say what was reached.
    """
    if act.family == "polynomial":
        parameter = np.atleast_1d(np.array(act.parameter("coefficients"), dtype=np.float64))
        return HermiteSeries(hermite_polynomial_coefficients(parameter, tau), np.zeros_like(tau), np.zeros_like(tau))
    scales, inverse = np.unique(tau, return_inverse=True)
    field = moment_arrays(act, scales)
    second, slope_total = field.second, scales**2 * field.d1_squared
    coefficients = np.zeros((len(scales), MAX_TERMS))
    for start in range(0, len(scales), _CHUNK):
        part = slice(start, start + _CHUNK)
        coefficients[part] = _coefficients(act, scales[part])
    left_out = second[:, None] - np.cumsum(coefficients**2, axis=1)
    # Rounding of the sum: the tail is known to about 1e-14 of E[σ²] and never reported below that.
    left_out = np.maximum(left_out, 1e-14 * second[:, None])
    slope_left_out = slope_total[:, None] - np.cumsum(np.arange(MAX_TERMS) * coefficients**2, axis=1)
    slope_left_out = np.maximum(slope_left_out, 1e-13 * slope_total[:, None])
    small = (left_out <= act.tolerance * second[:, None]).all(axis=0)
    finite = np.isfinite(slope_total)
    small &= (slope_left_out[finite] <= act.tolerance * slope_total[finite, None]).all(axis=0)
    terms = MAX_TERMS if not small.any() else int(np.argmax(small)) + 1
    terms = min(MAX_TERMS, 16 * math.ceil(terms / 16))
    rows = inverse.reshape(-1)
    return HermiteSeries(
        np.ascontiguousarray(coefficients[rows, :terms]), left_out[rows, terms - 1], slope_left_out[rows, terms - 1]
    )


def _coefficients(act: Activation, tau: FloatArray) -> FloatArray:
    """Composite Gauss–Legendre on panels no wider than ½, refined towards 0 and the breakpoints."""
    if act.breakpoints or (tau > 4.0).any():
        rows = [_on_panels(act, np.array([t]), _graded_edges(act, float(t))) for t in tau]
        return np.concatenate(rows)
    return _on_panels(act, tau, _graded_edges(act, 1.0))


def _graded_edges(act: Activation, tau: float) -> FloatArray:
    """Panel edges in units of ξ: a grid of ½, halved towards 0 as far as 1/τ, and split at breakpoints."""
    grid = np.arange(-_REACH, _REACH + 0.25, 0.5)
    halvings = max(0, math.ceil(math.log2(max(tau, 1.0)))) + 1
    near_zero = 0.5 ** np.arange(2, halvings + 2)
    points = [grid, near_zero, -near_zero, np.zeros(1)]
    if tau > 0.0:
        breaks = np.array(act.breakpoints) / tau
        points.append(breaks[np.abs(breaks) < _REACH])
    return np.unique(np.concatenate(points))


def _on_panels(act: Activation, tau: FloatArray, edges: FloatArray) -> FloatArray:
    nodes, weights = quadrature.gauss_panels(edges[:-1], edges[1:])
    xi = nodes.reshape(-1)
    values, density = weighted_values(act, np.broadcast_to(xi, (len(tau), xi.size)), tau)
    weighted = values * density * weights.reshape(-1)
    return np.asarray(weighted @ _polynomials(xi))


def _polynomials(xi: FloatArray) -> FloatArray:
    """Orthonormal Hermite polynomials he_0 … he_{K-1} at the nodes, shape (nodes, K)."""
    table = np.empty((xi.size, MAX_TERMS))
    table[:, 0] = 1.0
    table[:, 1] = xi
    for k in range(1, MAX_TERMS - 1):
        table[:, k + 1] = (xi * table[:, k] - math.sqrt(k) * table[:, k - 1]) / math.sqrt(k + 1.0)
    return table
