r"""Exact matching one layer after the other.

α1, α2, α3 agree after every layer exactly when h1², h2² and, where a later layer has h2 ≠ 0, g² agree in every
layer. With the amplitude eliminated each layer leaves at most two equations in its two thresholds,

    S2 = ± A S1,   Sg = ± B S1²     with A = λ' h2/h1, B = g/h1²,

or the same with S1 and S2 exchanged if h1 = 0. All their solutions are found on a grid: a cell whose corners
change the sign of both equations is polished by Newton's method. No random starts.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.optimize when it is first used
from numpy.typing import NDArray

from rmtntk._typing import FloatArray
from rmtntk.matching.problem import (
    SHAPES,
    Layer,
    Match,
    Objective,
    StepSums,
    Target,
    evaluate,
    finish,
    infeasible,
)

__all__ = ["match_layerwise", "solve_layer"]

_R1 = np.linspace(-4.2, 4.2, 169)
_WIDTH = np.geomspace(0.004, 8.4, 161)
_BEAM = 6


class Candidate(NamedTuple):
    """One solution for a layer: thresholds, shape and its variance per squared primary sum, V/S²."""

    r: tuple[float, float]
    shape: tuple[float, ...]
    cost: float


class _Equations(NamedTuple):
    """Which sum is the reference, the wanted |secondary/primary| and, if needed, |Sg|/primary²."""

    even: bool
    ratio: float
    g_ratio: float | None

    def primary(self, s: StepSums) -> FloatArray | float:
        return s.s2 if self.even else s.s1

    def secondary(self, s: StepSums) -> FloatArray | float:
        return s.s1 if self.even else s.s2


@lru_cache(maxsize=8)
def _grid(shape: tuple[float, ...]) -> StepSums:
    r1, width = np.meshgrid(_R1, _WIDTH, indexing="ij")
    return evaluate(np.stack([r1, r1 + width], axis=-1), shape)


def solve_layer(equations: _Equations) -> list[Candidate]:
    """All solutions within |r| ≤ 4.2 + 8.4, least V/S² first, mirror images once."""
    found: list[Candidate] = []
    for shape in SHAPES:
        solve = _by_minimum if equations.g_ratio is None else _by_roots
        for candidate in solve(equations, shape):
            twin = any(
                known.shape == shape and abs(known.cost - candidate.cost) <= 1e-7 * candidate.cost for known in found
            )
            if not twin:
                found.append(candidate)
    return sorted(found, key=lambda candidate: candidate.cost)


def _sums_at(z: FloatArray, shape: tuple[float, ...]) -> StepSums:
    # A solver's stray step may go anywhere; a width of e^20 is as good as infinite.
    return evaluate(np.array([z[0], z[0] + math.exp(min(z[1], 20.0))]), shape)


def _changes_sign(values: FloatArray) -> NDArray[np.bool_]:
    corners = np.stack([values[:-1, :-1], values[1:, :-1], values[:-1, 1:], values[1:, 1:]])
    return np.asarray((corners.min(axis=0) <= 0.0) & (corners.max(axis=0) >= 0.0))


def _by_roots(equations: _Equations, shape: tuple[float, ...]) -> list[Candidate]:
    assert equations.g_ratio is not None
    table = _grid(shape)
    primary, secondary = np.asarray(equations.primary(table)), np.asarray(equations.secondary(table))
    found = []
    for sign in (1.0, -1.0) if equations.ratio > 0.0 else (1.0,):
        for g_sign in (1.0, -1.0):
            first = secondary - sign * equations.ratio * primary
            second = np.asarray(table.sg) - g_sign * equations.g_ratio * primary**2
            # Far out in the tails every sum underflows together: no solution worth having.
            alive = np.asarray(table.v)[:-1, :-1] > 1e-7
            cells = np.argwhere(_changes_sign(first) & _changes_sign(second) & alive)

            def residual(z: FloatArray, sign: float = sign, g_sign: float = g_sign) -> list[float]:
                s = _sums_at(z, shape)
                p = float(equations.primary(s))
                b = g_sign * float(equations.g_ratio or 0.0)
                # Divided by the variance, so that a solution far out in the tails is not mistaken for a root.
                unit = math.sqrt(max(float(s.v), 1e-300))
                return [
                    (float(equations.secondary(s)) - sign * equations.ratio * p) / unit,
                    (float(s.sg) - b * p * p) / unit**2,
                ]

            for i, j in cells:
                start = np.array([0.5 * (_R1[i] + _R1[i + 1]), 0.5 * math.log(_WIDTH[j] * _WIDTH[j + 1])])
                solution = scipy.optimize.root(residual, start, method="hybr", options={"xtol": 1e-15})
                z = solution.x
                if np.abs(residual(z)).max() > 1e-13 or not -5.0 < z[0] < 5.0 or not -6.0 < z[1] < 2.2:
                    continue
                found.append(_candidate(equations, shape, z))
    return found


def _by_minimum(equations: _Equations, shape: tuple[float, ...]) -> list[Candidate]:
    """Without g one equation in two thresholds is left: take the least V/S² along its curve."""
    table = _grid(shape)
    primary, secondary = np.asarray(equations.primary(table)), np.asarray(equations.secondary(table))
    found = []
    for sign in (1.0, -1.0) if equations.ratio > 0.0 else (1.0,):
        values = secondary - sign * equations.ratio * primary

        def equation(log_width: float, r1: float, sign: float = sign) -> float:
            s = _sums_at(np.array([r1, log_width]), shape)
            return float(equations.secondary(s)) - sign * equations.ratio * float(equations.primary(s))

        def cost_at(r1: float, low: float, high: float) -> tuple[float, float]:
            ends = equation(low, r1), equation(high, r1)
            if ends[0] * ends[1] > 0.0:
                return 1e30, math.nan  # the curve does not pass here
            width = scipy.optimize.brentq(equation, low, high, args=(r1,), xtol=1e-15, rtol=1e-15)
            s = _sums_at(np.array([r1, width]), shape)
            return float(s.v) / max(float(equations.primary(s)) ** 2, 1e-300), width

        rows, columns = np.nonzero((values[:, :-1] * values[:, 1:] <= 0.0) & (np.asarray(table.v)[:, :-1] > 1e-6))
        if len(rows) == 0:
            continue
        rough = np.array(
            [
                cost_at(_R1[i], math.log(_WIDTH[j]), math.log(_WIDTH[j + 1]))[0]
                for i, j in zip(rows, columns, strict=True)
            ]
        )
        k = int(np.argmin(rough))
        low = math.log(_WIDTH[max(columns[k] - 6, 0)])
        high = math.log(_WIDTH[min(columns[k] + 7, len(_WIDTH) - 1)])
        bounds = (_R1[max(rows[k] - 1, 0)], _R1[min(rows[k] + 1, len(_R1) - 1)])
        best = scipy.optimize.minimize_scalar(
            lambda r1, low=low, high=high: cost_at(r1, low, high)[0],
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-12},
        )
        width = cost_at(float(best.x), low, high)[1]
        if math.isfinite(width):
            found.append(_candidate(equations, shape, np.array([float(best.x), width])))
    return found


def _candidate(equations: _Equations, shape: tuple[float, ...], z: FloatArray) -> Candidate:
    r = (float(z[0]), float(z[0] + math.exp(z[1])))
    if equations.ratio == 0.0 and abs(r[0] + r[1]) < 1e-9:
        r = (-r[1], r[1])  # the symmetric solution, exactly, so that what vanishes by symmetry does
    s = evaluate(np.array(r), shape)
    return Candidate(r, shape, float(s.v) / float(equations.primary(s)) ** 2)


class _Path(NamedTuple):
    layers: tuple[Layer, ...]
    tau: float


def match_layerwise(target: Target, objective: Objective) -> Match:
    """Match every layer exactly; of all chains of solutions keep those of least variance (a beam of six)."""
    w = target.net.weight_std
    paths = [_Path((), target.tau0)]
    for k in range(target.depth):
        h1, h2, g = float(target.h1[k]), float(target.h2[k]), float(target.g[k])
        extended = []
        for path in paths:
            lam = w * path.tau
            even = h1 == 0.0
            base = h2 * lam**2 if even else h1 * lam  # a·S of the reference sum
            equations = _Equations(
                even=even,
                ratio=h1 * lam / base if even else h2 * lam**2 / base,
                g_ratio=g * lam**2 / base**2 if target.needs_g(k) else None,
            )
            for candidate in solve_layer(equations):
                s = evaluate(np.array(candidate.r), candidate.shape)
                amplitude = base / abs(float(equations.primary(s)))
                layer = Layer(candidate.r, candidate.shape, amplitude)
                extended.append(_Path((*path.layers, layer), amplitude * math.sqrt(float(s.v))))
        if not extended:
            advice = (
                "the layers before it have too much variance; method='tight' matches the network as a whole"
                if k
                else "they are out of reach of three levels"
            )
            wanted = "h1², h2² and g²" if target.needs_g(k) else "h1² and h2²"
            return infeasible(
                target, "layerwise", objective,
                f"no levels {{-1,0,1}} or {{1,0,1}} reach {wanted} in layer {k + 1} ({target.net.activations[k]}): "
                f"{advice}",
            )  # fmt: skip
        extended.sort(key=lambda path: path.tau)
        paths = extended[:_BEAM]
    return finish(target, list(paths[0].layers), "layerwise", "both" if objective == "ck" else objective)
