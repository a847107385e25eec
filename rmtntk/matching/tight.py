r"""Network-level matching: α2/α1 and α3/α1 exact after the last layer, least excess.

The scale of every layer is free, so all 2L thresholds serve two equations, and what is left over minimises
the implicit ridge. In units of each layer's own variance the recursion for ᾱ = α/τ² is

    ᾱ1' = u ᾱ1,  ᾱ2' = u ᾱ2 + ¼ z ᾱ4²,  ᾱ3' = u ᾱ3 + ½ z ᾱ1²,  ᾱ4' = (Sg/V) ᾱ4,   u = S1²/V, z = S2²/V,

and the excess falls with ᾱ1. A layer with h2 = 0 is kept odd and one with h1 = 0 even, which makes the zeros of
the target hold by symmetry. Sequential quadratic programming from a fixed list of starts; deterministic.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._jit import steps
from rmtntk._typing import FloatArray
from rmtntk.matching.layerwise import match_layerwise
from rmtntk.matching.problem import (
    SHAPES,
    Layer,
    Match,
    Objective,
    Target,
    evaluate,
    finish,
    infeasible,
    quiet_search,
    ratios,
)

__all__ = ["match_tight"]

_STARTS = ((0.5, 1.45), (-0.6, 0.65), (0.0, 1.1), (-0.35, 1.9))
_BOUND = 4.0


class _Model:
    """Thresholds of all layers as one vector, and what they give."""

    def __init__(self, target: Target, objective: Objective) -> None:
        self.target = target
        self.objective = objective
        self.odd = target.h2 == 0.0
        self.even = target.h1 == 0.0
        self.sizes = [1 if self.odd[k] or self.even[k] else 2 for k in range(target.depth)]
        self.shapes = np.array([self.shape(k) for k in range(target.depth)])
        goal = target.beta if objective == "ntk" else target.alpha[:3]
        self.reference = ratios(goal)[1]
        others = [k for k in range(3) if k != self.reference and goal[k] > 0.0]
        self.others = others
        self.goal = np.log(goal[others] / goal[self.reference])

    def shape(self, k: int) -> tuple[float, ...]:
        return SHAPES[1] if self.even[k] else SHAPES[0]

    def thresholds(self, z: FloatArray) -> FloatArray:
        """Thresholds of every layer, shape (L, 2), from log t (symmetric layers) or (r1, log(r2 − r1))."""
        out = np.empty((len(self.sizes), 2))
        position = 0
        for k, size in enumerate(self.sizes):
            if size == 1:
                t = math.exp(min(z[position], 20.0))
                out[k] = -t, t
            else:
                out[k] = z[position], z[position] + math.exp(min(z[position + 1], 20.0))
            position += size
        return out

    def rows(self, z: FloatArray) -> FloatArray:
        """The three coefficients to match, and the CK's reference last, in units of the last variance."""
        row = steps.network_rows(self.thresholds(z), self.shapes, self.target.tau0)
        return np.append(row[4:7] if self.objective == "ntk" else row[:3], row[self.reference])

    def cost(self, z: FloatArray) -> float:
        return -math.log(max(self.rows(z)[3], 1e-300))

    def mismatch(self, z: FloatArray) -> FloatArray:
        rows = np.maximum(self.rows(z), 1e-300)
        return np.asarray(np.log(rows[self.others] / rows[self.reference]) - self.goal)

    def starts(self) -> list[FloatArray]:
        """The same start in every layer, and every pair (first layer, later layers)."""
        list_of: list[FloatArray] = []
        for first, later in itertools.product(_STARTS, repeat=2):
            z: list[float] = []
            for k, size in enumerate(self.sizes):
                r = first if k == 0 else later
                symmetric = math.log(1.2 if self.even[k] else 0.612)
                z.extend([symmetric] if size == 1 else [r[0], math.log(r[1] - r[0])])
            if not any(np.array_equal(z, known) for known in list_of):
                list_of.append(np.array(z))
        return list_of


def match_tight(target: Target, objective: Objective) -> Match:
    """Solve the network-level problem; see the module's page."""
    model = _Model(target, objective)
    starts = model.starts()
    by_layer = match_layerwise(target, "ck")
    if by_layer.feasible and all(tuple(np.sign(a.levels)) == SHAPES[0] for a in by_layer.activations):
        starts.insert(0, _as_vector(model, by_layer))
    best: tuple[float, FloatArray] | None = None
    closest = math.inf
    for start in starts:
        z = _descend(model, start)
        if z is None:
            continue
        mismatch = float(np.abs(model.mismatch(z)).max(initial=0.0))
        closest = min(closest, mismatch)
        if mismatch <= 1e-11 and (best is None or model.cost(z) < best[0] - 1e-12):
            best = (model.cost(z), z)
    if best is None:
        if by_layer.feasible:
            return replace(by_layer, method="tight")
        return infeasible(
            target, "tight", objective,
            f"no {{-1,0,1}} network was found with the coefficient ratios of {target.net}: the closest differs by "
            f"{closest:.3g} in their logarithm",
        )  # fmt: skip
    layers = [Layer(tuple(map(float, r)), model.shape(k), 1.0) for k, r in enumerate(model.thresholds(best[1]))]
    result = finish(target, _unit_variance(layers), "tight", objective)
    # Layer by layer also uses {1,0,1} where the network-level search does not, and meets targets that are 0 without
    # being so by symmetry (sign has g = 0).
    use_layers = by_layer.feasible and (by_layer.excess < result.excess or not result.feasible)
    return replace(by_layer, method="tight") if use_layers else result


def _unit_variance(layers: list[Layer]) -> list[Layer]:
    """Give every hidden layer features of variance one; the last amplitude is set by α1."""
    return [
        layer._replace(amplitude=1.0 / math.sqrt(float(evaluate(np.array(layer.r), layer.shape).v))) for layer in layers
    ]


def _as_vector(model: _Model, match: Match) -> FloatArray:
    z: list[float] = []
    scales = [model.target.net.weight_std * tau for tau in match.coefficients.tau[:-1]] if match.coefficients else []
    for act, lam, size in zip(match.activations, scales, model.sizes, strict=True):
        r = act.thresholds / lam
        z.extend([math.log(r[1])] if size == 1 else [float(r[0]), math.log(r[1] - r[0])])
    return np.array(z)


def _descend(model: _Model, start: FloatArray) -> FloatArray | None:
    # Layers of one parameter hold log t, layers of two hold r1 and log(r2 − r1).
    bounds: list[tuple[float, float]] = []
    for size in model.sizes:
        bounds.extend([(-4.0, 1.3)] if size == 1 else [(-_BOUND, _BOUND), (-5.0, 2.0)])
    constraints = [{"type": "eq", "fun": model.mismatch}] if model.others else []
    with quiet_search():
        result = scipy.optimize.minimize(
            model.cost, np.clip(start, [b[0] for b in bounds], [b[1] for b in bounds]), method="SLSQP", bounds=bounds,
            constraints=constraints, options={"maxiter": 300, "ftol": 1e-13},
        )  # fmt: skip
        z = np.asarray(result.x)
        if not np.isfinite(z).all():
            return None
        return _polish(model, z) if model.others else z


def _polish(model: _Model, z: FloatArray) -> FloatArray:
    """Gauss–Newton steps of least norm onto the equations: the optimum moves by no more than their residual."""
    for _ in range(12):
        value = model.mismatch(z)
        if not np.isfinite(value).all() or np.abs(value).max() <= 2e-15:
            break
        jacobian = scipy.optimize.approx_fprime(z, model.mismatch, 1e-7)
        step = np.linalg.lstsq(np.atleast_2d(jacobian), -value, rcond=None)[0]
        trial = z + step * min(1.0, 0.5 / max(float(np.abs(step).max()), 1e-300))
        if not np.abs(model.mismatch(trial)).max() < np.abs(value).max():
            break
        z = trial
    return z
