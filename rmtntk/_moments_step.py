"""Gaussian moments of piecewise-constant activations, without cancelling terms."""

import math

import numpy as np
from scipy import special

from rmtntk._activation import Activation
from rmtntk._moments_closed import EPS, MomentArrays, closed_error, over
from rmtntk._typing import FloatArray

__all__ = ["interval_probabilities", "normal_density", "scaled_thresholds", "step_moments"]

_SQRT_2PI = math.sqrt(2.0 * math.pi)
_UNDERFLOW = 39.0  # beyond, φ is 0


def scaled_thresholds(act: Activation, tau: FloatArray) -> FloatArray:
    """Thresholds in units of τ, shape (n, k); ±inf where τ = 0, with 0 counting as passed."""
    s = act.thresholds
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        r = s / tau[:, None]
    at_zero = np.where(s > 0.0, np.inf, -np.inf)
    return np.where(tau[:, None] > 0.0, r, at_zero)


_NARROW_NODES, _NARROW_WEIGHTS = np.polynomial.legendre.leggauss(16)


def interval_probabilities(r: FloatArray) -> FloatArray:
    """P(r_j ≤ ξ < r_{j+1}) for j = 0..k, shape (n, k + 1), to full relative accuracy.

    Intervals narrower than one are integrated (16 nodes, a sum of positive terms); wider ones are differences
    of tails on the side where these do not cancel.
    """
    low = np.concatenate([np.full((len(r), 1), -np.inf), r], axis=1)
    high = np.concatenate([r, np.full((len(r), 1), np.inf)], axis=1)
    wide = np.where(low > 0.0, special.ndtr(-low) - special.ndtr(-high), special.ndtr(high) - special.ndtr(low))
    with np.errstate(invalid="ignore"):  # ∞ − ∞ at τ = 0
        width = high - low
        narrow = width < 1.0
    half = np.where(narrow, 0.5 * width, 0.0)
    centre = np.where(narrow, low, 0.0) + half
    points = centre[..., None] + half[..., None] * _NARROW_NODES
    return np.where(narrow, half * (normal_density(points) @ _NARROW_WEIGHTS), wide)


def _step_mean(r: FloatArray, levels: FloatArray) -> FloatArray:
    """l_0 + Σ Δ_j P(ξ ≥ r_j), each probability as 0, ½ or 1 plus what is small, so that constants add exactly."""
    jumps = np.diff(levels)
    inner = np.abs(r) < 1.0
    constant = np.where(inner, 0.5, np.where(r < 0.0, 1.0, 0.0))
    rest = np.where(
        inner,
        -0.5 * special.erf(np.where(inner, r, 0.0) / math.sqrt(2.0)),
        np.where(r < 0.0, -special.ndtr(r), special.ndtr(-r)),
    )
    return np.asarray((levels[0] + constant @ jumps) + rest @ jumps)


def _density_sum(r: FloatArray, weights: FloatArray) -> FloatArray:
    """Σ_j w_j φ(r_j), thresholds near 0 by their difference from φ(0), so that opposite weights cancel exactly."""
    inner = np.abs(r) < 1.0
    near = np.where(inner, r, 0.0)
    total = inner @ weights + np.expm1(-0.5 * near**2) @ weights
    return np.asarray(total / _SQRT_2PI + np.where(inner, 0.0, normal_density(r)) @ weights)


def normal_density(r: FloatArray) -> FloatArray:
    """φ(r), 0 at infinity."""
    with np.errstate(under="ignore", over="ignore"):
        return np.exp(-0.5 * r * r) / _SQRT_2PI


def step_moments(act: Activation, tau: FloatArray) -> MomentArrays:
    levels = act.levels
    jumps = np.diff(levels)
    r = scaled_thresholds(act, tau)
    p = interval_probabilities(r)
    density = normal_density(r)
    r_density = np.where(np.isfinite(r), r, 0.0) * density
    difference = levels[:, None] - levels[None, :]
    centred = p @ difference.T  # l_j − m = Σ_a p_a (l_j − l_a): nothing cancels
    variance = 0.5 * np.einsum("na,ab,nb->n", p, difference**2, p)
    tau_sq = tau**2
    nearest = np.minimum(np.abs(r).min(axis=1), _UNDERFLOW)
    return MomentArrays(
        mean=_step_mean(r, levels),
        d1=over(_density_sum(r, jumps), tau),
        d2=over(r_density @ jumps, tau_sq),
        d3=over((r_density * np.where(np.isfinite(r), r, 0.0)) @ jumps - _density_sum(r, jumps), tau_sq * tau),
        variance=variance,
        d1_squared=np.full_like(tau, np.inf),
        half_d2_squared=over(0.5 * ((centred[:, 1:] + centred[:, :-1]) * r_density) @ jumps, tau_sq),
        second=p @ levels**2,
        # with all thresholds far out, s² may be a tail alone: φ(r) has eps r²/2, and r φ(r) is r² such tails
        error=closed_error(tau) + 4.0 * EPS * np.where(np.isfinite(nearest), nearest, 0.0) ** 4,
    )
