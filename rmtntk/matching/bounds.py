r"""What no network of k-level steps can beat: lower bounds of the implicit ridge.

One layer. Let y be a function with k consecutive pieces, E[y] = 0, E[y²] = 1, and u = E[ξ y]², z = E[(ξ² − 1) y]²,
s = z/u. For every angle φ the function f = cos φ ξ + sin φ (ξ² − 1) has √u (cos φ ± √s sin φ) = E[f y], and
E[f y]² ≤ Q_k(φ), the greatest variance of f that a division of the line into k pieces retains. So

    1/u ≥ v_k(s) = max_φ (cos φ + √s sin φ)²/Q_k(φ),

increasing in s. Q_k is the classical problem of optimal scalar quantisation, here with consecutive pieces in ξ; dynamic
programming solves it on cells, and what the cells hide is bounded: if f̄ is the mean of f in each cell, the retained
norm of f̄ is greatest for pieces made of whole cells (it is convex in the mass by which a cell is divided), and f − f̄
retains at most its norm in the k − 1 cells that thresholds divide. v_k(0) is Lloyd–Max, whose optimum is the only
stationary point for a log-concave density (Fleischer 1964).

The network. α3/α1 (and β3/β1) is Σ w_l s_l p_{l−1} with p_l = u_1 … u_l, and τ_L²/(τ_0² α1) = 1/p_L. Backward dynamic
programming over what is left of that sum, with all roundings to the safe side, bounds 1/p_L; that α2 has to agree as
well is left out, so the bound is valid but not the best possible. A finite table of angles is enough: each is a valid
bound.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from rmtntk._jit import steps
from rmtntk._typing import FloatArray

__all__ = ["LLOYD_MAX_THRESHOLD", "LayerBound", "least_ridge", "lloyd_max"]

# Threshold of the Lloyd–Max quantiser of three levels: t Φ(−t) = φ(t)/2.
LLOYD_MAX_THRESHOLD = 0.6120031809624807

_REACH = 7.0
_CELLS = 720
_ANGLES = 33
_NODES = 600  # of the backward recursion, to the target
_SPAN = 4  # times the target


@dataclass(frozen=True, eq=False)
class LayerBound:
    """Angles, Q_k at them, and the least 1/u of all."""

    levels: int
    angles: FloatArray
    retained: FloatArray
    least: float

    def inverse(self, s: FloatArray) -> FloatArray:
        """Lower bound v_k(s) of 1/u of every layer with S2²/S1² ≥ s, s ≥ 0 of shape (n,)."""
        root = np.sqrt(s)[:, None]
        value = (np.cos(self.angles) + root * np.sin(self.angles)) ** 2 / self.retained
        return np.maximum(value.max(axis=1), self.least)

    def network(self, total: float, weights: list[float]) -> float:
        """Lower bound of 1/p_L if Σ weights_l s_l p_{l−1} ≥ total."""
        if total <= 0.0 or len(weights) == 1:
            first = float(self.inverse(np.array([max(total, 0.0) / weights[0]]))[0])
            return first * self.least ** (len(weights) - 1)
        step = total / _NODES
        at_least = self.inverse(np.asarray(step * np.arange(_SPAN * _NODES), dtype=np.float64))
        index = np.arange(len(at_least))
        reach = [_NODES]  # of what can be left after each layer
        for weight in weights[:-1]:
            farthest = ((reach[-1] - weight * (index + 1.0)) * at_least).max()
            reach.append(max(1, min(int(farthest) + 1, len(at_least))))
        previous = self.inverse(np.asarray(step / weights[-1] * np.arange(reach[-1] + 1), dtype=np.float64))
        for k in range(len(weights) - 2, -1, -1):
            out = np.empty(reach[k] + 1)
            steps.least_inflation(previous, weights[k], at_least, _NODES if k == 0 else 0, out)
            previous = out
        return float(previous[_NODES])

    def even(self, depth: int) -> float:
        """Lower bound of τ_L²/(τ_0⁴ α3) where some layer has S1 = 0: 2 over the greatest z and the u's of the rest."""
        return 2.0 / float(self.retained[-1]) * self.least ** (depth - 1)


@lru_cache(maxsize=16)
def least_ridge(levels: int) -> LayerBound:
    """Return the table of `levels` pieces; made once per process (about 20 ms)."""
    edges = np.linspace(-_REACH, _REACH, _CELLS - 1)
    density = np.exp(-0.5 * edges**2) / math.sqrt(2.0 * math.pi)
    low, high = np.append(-np.inf, edges), np.append(edges, np.inf)
    mass = np.where(low > 0.0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    # ∫ ξ φ and ∫ (ξ² − 1) φ of every cell
    first = -np.diff(np.concatenate([[0.0], density, [0.0]]))
    second = -np.diff(np.concatenate([[0.0], edges * density, [0.0]]))
    tail = float(((_REACH**3 + 3.0 * _REACH + 1.0) * density[-1] + 3.0 * mass[-1]) * 2.0)  # ≥ E[(|ξ| + ξ²)²; tail]/2
    angles = np.linspace(0.0, 0.5 * math.pi, _ANGLES)
    retained = np.empty(_ANGLES)
    for i, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        whole = steps.best_segmentation(mass, c * first + s * second, levels)
        slope = c + 2.0 * s * np.maximum(np.abs(edges[1:]), np.abs(edges[:-1]))
        # variance within a cell of width h is at most (h f')²/4 in general
        hidden = np.append(mass[1:-1] * (np.diff(edges) * slope) ** 2 / 4.0, 2.0 * tail)
        lost = math.sqrt(float(np.sort(hidden)[-(levels - 1) :].sum()))
        retained[i] = (math.sqrt(whole) + lost) ** 2 * (1.0 + 1e-9)
    return LayerBound(levels, angles, retained, 1.0 / lloyd_max(levels))


@lru_cache(maxsize=16)
def lloyd_max(levels: int) -> float:
    """Greatest u = E[ξ y]² of a function with `levels` values: variance retained by the optimal quantiser of ξ."""
    r = np.linspace(-1.0, 1.0, levels - 1) * (levels - 2) / levels * 1.5 if levels > 2 else np.zeros(1)
    retained = 0.0
    for _ in range(5000):
        density = np.concatenate([[0.0], np.exp(-0.5 * r * r) / math.sqrt(2.0 * math.pi), [0.0]])
        mass = np.diff(np.concatenate([[0.0], ndtr(r), [1.0]]))
        moment = -np.diff(density)
        centres = moment / mass
        value = float((moment * centres).sum())
        new = 0.5 * (centres[1:] + centres[:-1])
        if np.abs(new - r).max() < 1e-15:
            return value
        r, retained = new, value
    return retained
