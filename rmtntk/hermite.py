r"""Hermite coefficients of an activation, for the Mehler series of its dual kernel.

With orthonormal Hermite polynomials he_k and c_k(τ) = E[σ(τξ) he_k(ξ)], Mehler's formula reads
E[σ(u)σ(v)] = Σ_k c_k(τ_u) c_k(τ_v) ρ^k. Truncated after K terms it is off by at most
|ρ|^K √(t_u t_v), where t = E[σ²] − Σ_{k<K} c_k² is what the coefficients leave out.
"""

import math
from functools import lru_cache

import numpy as np

from rmtntk import quadrature
from rmtntk._typing import FloatArray, IntArray
from rmtntk.activations import Activation
from rmtntk.moments import normal_density, scaled_thresholds, weighted_values

__all__ = ["MAX_TERMS", "hermite_coefficients", "step_coefficients"]

MAX_TERMS = 320
_REACH = 13.0  # beyond, φ(ξ) < 1e-37 and what he_k adds (< e^{ξ²/4}) leaves < 1e-18


def hermite_coefficients(act: Activation, tau: FloatArray) -> FloatArray:
    """Return c_0 … c_319 at each scale, (n, 320), by quadrature on panels refined towards 0, split at breakpoints."""
    halvings = max(0, math.ceil(math.log2(max(1.0, float(tau.max(initial=1.0))))))
    edges, xi, weights, polynomials = _common(halvings)
    values, density = weighted_values(act, np.broadcast_to(xi, (len(tau), xi.size)), tau)
    weighted = (values * density * weights).reshape(len(tau), len(edges) - 1, -1)
    left, right, owner = _split_panels(act, tau, edges, weighted)
    out = np.asarray(weighted.reshape(len(tau), -1) @ polynomials)
    if len(owner):
        nodes, weights = quadrature.gauss_panels(left, right)
        values, density = weighted_values(act, nodes, tau[owner])
        table = _polynomials(nodes.reshape(-1)).T.reshape(MAX_TERMS, *nodes.shape)
        np.add.at(out, owner, np.einsum("qj,kqj->qk", values * density * weights, table, optimize=True))
    return out


def _split_panels(
    act: Activation, tau: FloatArray, edges: FloatArray, weighted: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Take panels with a breakpoint inside out of `weighted`, and return their pieces and whose they are."""
    left, right, owner = [], [], []
    for k, scale in enumerate(tau):
        breaks = np.array(act.breakpoints) / scale if scale > 0.0 else np.zeros(0)
        breaks = np.setdiff1d(breaks[np.abs(breaks) < _REACH], edges)
        panels = np.searchsorted(edges, breaks) - 1
        for panel in np.unique(panels):
            points = np.concatenate([[edges[panel]], breaks[panels == panel], [edges[panel + 1]]])
            weighted[k, panel] = 0.0
            left.append(points[:-1])
            right.append(points[1:])
            owner.append(np.full(len(points) - 1, k))
    if not left:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    return np.concatenate(left), np.concatenate(right), np.concatenate(owner)


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


@lru_cache(maxsize=4)
def _common(halvings: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Edges in units of ξ, a grid of ½, halved towards 0 so often and once more; nodes, weights, he_k."""
    grid = np.arange(-_REACH, _REACH + 0.25, 0.5)
    near_zero = 0.5 ** np.arange(2, halvings + 3)
    edges = np.unique(np.concatenate([grid, near_zero, -near_zero, np.zeros(1)]))
    nodes, weights = quadrature.gauss_panels(edges[:-1], edges[1:])
    return edges, nodes.reshape(-1), weights.reshape(-1), np.ascontiguousarray(_polynomials(nodes.reshape(-1)))


def _polynomials(xi: FloatArray) -> FloatArray:
    """Orthonormal Hermite polynomials he_0 … he_{K-1} at the nodes, shape (nodes, K)."""
    table = np.empty((MAX_TERMS, xi.size))
    table[0] = 1.0
    table[1] = xi
    for k in range(1, MAX_TERMS - 1):
        table[k + 1] = (xi * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1.0)
    return table.T
