r"""Hermite coefficients of an activation, for the Mehler series of its dual kernel.

With orthonormal Hermite polynomials he_k and c_k(τ) = E[σ(τξ) he_k(ξ)], Mehler's formula reads
E[σ(u)σ(v)] = Σ_k c_k(τ_u) c_k(τ_v) ρ^k. Truncated after K terms it is off by at most
|ρ|^K √(t_u t_v), where t = E[σ²] − Σ_{k<K} c_k² is what the coefficients leave out.
"""

import math

import numpy as np

from rmtntk import quadrature
from rmtntk._typing import FloatArray
from rmtntk.activations import Activation
from rmtntk.moments import normal_density, scaled_thresholds, weighted_values

__all__ = ["MAX_TERMS", "hermite_coefficients", "step_coefficients"]

MAX_TERMS = 320
_REACH = 13.0  # beyond, φ(ξ) < 1e-37 and what he_k adds (< e^{ξ²/4}) leaves < 1e-18


def hermite_coefficients(act: Activation, tau: FloatArray) -> FloatArray:
    """Return c_0 … c_319 at each scale, (n, 320), by quadrature on panels refined towards 0 and breakpoints."""
    if act.breakpoints or (tau > 4.0).any():
        rows = [_on_panels(act, np.array([t]), _graded_edges(act, float(t))) for t in tau]
        return np.concatenate(rows)
    return _on_panels(act, tau, _graded_edges(act, 1.0))


def step_coefficients(act: Activation, tau: FloatArray, terms: int) -> FloatArray:
    """Return c_1 … c_terms of a step, (terms, n): c_k = Σ_j Δ_j φ(r_j) he_{k−1}(r_j)/√k, r = s/τ."""
    r = scaled_thresholds(act, tau).T  # (thresholds, n)
    finite = np.isfinite(r)
    weight = np.diff(act.levels)[:, None] * np.where(finite, normal_density(r), 0.0)
    r = np.where(finite & (weight != 0.0), r, 0.0)
    out = np.empty((terms, len(tau)))
    # weight and polynomial together: he_k alone overflows for far thresholds whose weight underflows
    before, current = np.zeros_like(r), weight
    for k in range(1, terms + 1):
        out[k - 1] = current.sum(axis=0) / math.sqrt(k)
        before, current = current, (r * current - math.sqrt(k - 1.0) * before) / math.sqrt(k)
    return out


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
    table = np.empty((MAX_TERMS, xi.size))
    table[0] = 1.0
    table[1] = xi
    for k in range(1, MAX_TERMS - 1):
        table[k + 1] = (xi * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1.0)
    return table.T
