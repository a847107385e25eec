r"""Steps with as many Gaussian moments E[σ⁽ʲ⁾] of an activation as their thresholds and levels can hold.

A step of n thresholds r_i (in units of its argument's standard deviation λ) and jumps Δ_i has
λʲ E[l⁽ʲ⁾] = Σ_i w_i He_{j−1}(r_i) with w_i = Δ_i φ(r_i), and the activation λʲ E[σ⁽ʲ⁾] = ∫ He_{j−1} dμ with
dμ(u) = λ σ'(λu) φ(u) du. So the r_i, w_i that agree for j = 1 … 2n are the Gauss rule of n nodes of μ; it exists, with
positive jumps, where σ is monotone, and where μ changes sign it may or may not. In later layers, whose argument has
another standard deviation in the step network, the moments are scaled, and need not be those of a measure any more.

One layer: h1 and h2 (j = 1, 2) make α1, α2, α3 agree. The kernels then still differ by n^-1/2 through the rows whose
norm is not τ_0: dh1/dτ² = ½ E[σ⁽³⁾], dh2/dτ² = ½ E[σ⁽⁴⁾] are what j = 3, 4 make agree, which leaves 1/n. The levels
are not free to minimise the excess: it is what it is.

Deep networks, layer by layer at the scales the step network really has: g is not among the moments, so α2 agrees only
where no later layer needs it (odd networks; a last layer that is odd), and the norms of the rows spread by another g
from layer to layer, so that the n^-1/2 part stays.

Nodes are the eigenvalues of the pencil (∫ u he_a he_b dμ, ∫ he_a he_b dμ), a, b < n, built by the modified Chebyshev
recurrence (Gautschi, *Orthogonal Polynomials: Computation and Approximation*, 2004, section 2.1.7), then Newton's
method on the 2n equations.
"""

import math
from dataclasses import replace

import numpy as np
import scipy  # loads scipy.linalg when it is first used

from rmtntk._typing import FloatArray
from rmtntk.activations import Activation
from rmtntk.hermite import hermite_coefficients, step_coefficients
from rmtntk.matching.problem import Layer, Match, Objective, Target, evaluate, finish, infeasible

__all__ = ["LEAST_LEVELS", "gauss_rule", "hermite_moments", "match_moments"]

LEAST_LEVELS = 3
_REAL = 1e-7  # of a node's imaginary part, before Newton's method
_APART = 1e-6
_FAR = 10.0  # no node lies beyond: φ(10) = 8e-23
_CONVERGED = 1e-12


def hermite_moments(act: Activation, lam: float, count: int) -> FloatArray:
    """∫ he_j dμ = √(j+1) E[σ(λξ) he_{j+1}(ξ)], j = 0 … count − 1, he orthonormal, to about 1e-14 of √E[σ²]."""
    scale = np.array([lam])
    if act.is_step:
        values = step_coefficients(act, scale, count)[:, 0]
    else:
        values = hermite_coefficients(act, scale)[0, 1 : count + 1]
    values = np.where(np.abs(values) <= 1e-13 * np.abs(values).max(), 0.0, values)
    return np.asarray(values * np.sqrt(np.arange(1.0, count + 1.0)))


def gauss_rule(moments: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Nodes r and weights w (n,) with Σ w he_j(r) = moments[j], j = 0 … 2n − 1; None if there are no such real nodes.

    Accurate to rounding of the moments times the rule's own condition; residual at most 1e-12 of the largest moment.
    """
    n = len(moments) // 2
    root = np.sqrt(np.arange(2 * n + 1.0))
    table = np.zeros((n + 1, 2 * n))  # ∫ he_a he_m dμ
    table[0] = moments
    for a in range(n - 1):
        for m in range(2 * n - 1 - a):
            before = root[m] * table[a, m - 1] if m else 0.0
            last = root[a] * table[a - 1, m] if a else 0.0
            table[a + 1, m] = (root[m + 1] * table[a, m + 1] + before - last) / root[a + 1]
    gram = table[:n, :n]
    times = table[:n, 1 : n + 1] * root[1 : n + 1]
    times[:, 1:] += table[:n, : n - 1] * root[1:n]
    if not 1e-12 * np.abs(gram).max() < scipy.linalg.svdvals(gram)[-1]:
        return None
    eigenvalues = np.asarray(scipy.linalg.eigvals(times, gram))
    if not (np.abs(eigenvalues.imag) <= _REAL * (1.0 + np.abs(eigenvalues.real))).all():
        return None
    r = np.asarray(np.sort(eigenvalues.real), dtype=np.float64)
    if not _usable(r):
        return None
    w = np.asarray(np.linalg.solve(_hermite(r, n), moments[:n]), dtype=np.float64)
    kept, best = (r, w), math.inf
    for _ in range(12):
        values = _hermite(r, 2 * n)
        gap = values @ w - moments
        size = float(np.abs(gap).max())
        if not size < 0.5 * best:
            break
        best, kept = size, (r, w)
        slopes = np.zeros_like(values)
        slopes[1:] = root[1 : 2 * n, None] * values[:-1]
        move = np.linalg.solve(np.hstack([slopes * w, values]), -gap)
        r, w = r + move[:n], w + move[n:]
    if not best <= _CONVERGED * np.abs(moments).max():
        return None
    r, w = kept
    jumps = np.abs(w) * np.exp(0.5 * r * r)
    return (r, w) if _usable(r) and jumps.min() > 1e-12 * jumps.max() else None


def _usable(r: FloatArray) -> bool:
    return bool(np.abs(r).max() < _FAR) and bool((np.diff(r) > _APART).all())


def match_moments(target: Target, objective: Objective, levels: int) -> Match:
    """Give every layer the Gauss rule of `levels` − 1 nodes of its own activation."""
    objective = "both" if objective == "ck" else objective
    count = 2 * (levels - 1)
    layers: list[Layer] = []
    tau, worst = target.tau0, 0.0
    for k, act in enumerate(target.net.activations):
        lam, own = float(target.scale[k]), target.net.weight_std * tau
        if act.is_step and len(act.levels) <= levels and abs(own - lam) <= 1e-14 * lam:  # its own rule
            layers.append(Layer(tuple(map(float, act.thresholds / lam)), tuple(map(float, act.levels)), 1.0))
            tau = math.sqrt(float(evaluate(act.thresholds / lam, layers[-1].shape).v))
            continue
        moments = hermite_moments(act, lam, count)
        wanted = moments * (own / lam) ** np.arange(1, count + 1)
        rule = gauss_rule(wanted)
        if rule is None:
            if own > lam * (1.0 + 1e-12):
                why = "its argument is wider than in the dense network, and the moments scaled to it are no measure's"
                advice = "method='tight'"
            else:
                why = "the Gauss rule has no positive nodes, as where its slope changes sign, or none to rounding"
                advice = "another, smaller number of levels, or method='tight'"
            return infeasible(
                target, "moments", objective,
                f"layer {k + 1} ({act}) has no step of {levels} levels found with its first {count} moments "
                f"E[σ⁽ʲ⁾]: {why}; try {advice}",
                levels=levels,
            )  # fmt: skip
        r, w = rule
        if not moments[::2].any():  # even: nodes and weights are mirrored, exactly
            r, w = 0.5 * (r - r[::-1]), 0.5 * (w - w[::-1])
        elif not moments[1::2].any():
            r, w = 0.5 * (r - r[::-1]), 0.5 * (w + w[::-1])
        worst = max(worst, float(np.abs(_hermite(r, count) @ w - wanted).max() / np.abs(wanted).max()))
        q = np.concatenate([[0.0], np.cumsum(w * np.exp(0.5 * r * r) * math.sqrt(2.0 * math.pi))])
        q -= 0.5 * (q[0] + q[-1])
        layers.append(Layer(tuple(map(float, r)), tuple(map(float, q)), 1.0))
        tau = math.sqrt(float(evaluate(r, layers[-1].shape).v))
    result = finish(target, layers, "moments", objective, levels=levels)
    if not result.feasible and len(layers) > 1:
        reason = (
            f"the first {count} moments agree in every layer, but g does not, which a later layer's α2 needs: the "
            f"coefficients differ by {result.residual:.3g} (relative); method='tight' matches deep networks"
        )
        return infeasible(target, "moments", objective, reason, levels=levels)
    message = f"the first {count} moments E[σ⁽ʲ⁾] of every layer agree to {worst:.1e}; {result.message}"
    return replace(result, message=message)


def _hermite(r: FloatArray, count: int) -> FloatArray:
    """he_0 … he_{count−1} at r, (count, len(r))."""
    out = np.ones((count, len(r)))
    if count > 1:
        out[1] = r
    for j in range(1, count - 1):
        out[j + 1] = (r * out[j] - math.sqrt(j) * out[j - 1]) / math.sqrt(j + 1.0)
    return out
