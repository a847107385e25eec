r"""Exact matching one layer after the other.

α1, α2, α3 agree after every layer exactly when h1², h2² and, where a later layer has h2 ≠ 0, g² agree in every
layer. With the amplitude eliminated each layer leaves at most two equations in its thresholds,

    S2 = ± A S1,   Sg = ± B S1²     with A = λ h2/h1, B = g/h1²,

or the same with S1 and S2 exchanged if h1 = 0. Without g the second is that V/S1² is stationary along the first.

Three levels: a table of the sums over a grid of both thresholds, made once per process, brackets every solution, with a
quarter of a cell's range to spare; each cell that may hold one is polished by Newton's method. So all solutions within
|r| ≤ 4.2 + 8.4 are found but pairs that lie together in one cell, 0.05 wide. Two levels:
r = ± A. More levels, or free ones, leave a continuum, of which the least variance is taken.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmtntk._jit import steps
from rmtntk._typing import FloatArray
from rmtntk.matching.bounds import LLOYD_MAX_THRESHOLD, least_ridge
from rmtntk.matching.families import Family, family_of
from rmtntk.matching.floor import below_floor, one_piece_less, without_excess
from rmtntk.matching.problem import (
    Layer,
    Match,
    Objective,
    Target,
    evaluate,
    finish,
    infeasible,
)
from rmtntk.matching.search import EVEN, GENERAL, ODD, Equation, Problem, parameters_of

__all__ = ["Equations", "chains", "match_layerwise", "solve_layer"]

_R1 = np.linspace(-4.2, 4.2, 169)
_LOG_WIDTH = np.linspace(math.log(0.004), math.log(8.4), 161)
_BEAM = 24


class Candidate(NamedTuple):
    """One solution for a layer: thresholds, shape and its variance per squared primary sum, V/S²."""

    r: tuple[float, ...]
    shape: tuple[float, ...]
    cost: float


class Equations(NamedTuple):
    """Which sum is the reference, the wanted |secondary/primary| and, if needed, |Sg|/primary²."""

    even: bool
    ratio: float
    g_ratio: float | None


class _Table(NamedTuple):
    """P/√V, S/√V, Sg/V and the stationarity at the corners, (169, 161, 4); cells and bounds of atan(S/P) in them."""

    corners: FloatArray
    cells: NDArray[np.int64]
    low: FloatArray
    high: FloatArray


@lru_cache(maxsize=16)
def _table(shape: tuple[float, ...], even: bool) -> _Table:
    x, y = np.meshgrid(_R1, _LOG_WIDTH, indexing="ij")
    corners = np.empty((*x.shape, 4))
    steps.corner_table(x, y, np.array(shape), even, corners)
    cells, low, high = np.empty(x.size, dtype=np.int64), np.empty(x.size), np.empty(x.size)
    count = steps.cell_angles(corners, cells, low, high)
    return _Table(corners, cells[:count].copy(), low[:count].copy(), high[:count].copy())


def solve_layer(equations: Equations, family: Family | None = None) -> list[Candidate]:
    """All solutions of a layer, least V/S² first, mirror images once; of a continuum the least."""
    family = family or family_of(None, "equal", None)
    if family.free or family.levels > 3:
        found = _by_search(equations, family)
    else:
        shapes = [*family.shapes, *(q for q in family.even_shapes if q not in family.shapes)]
        found = []
        for shape in shapes:
            found.extend(_of_shape(equations, shape, max((1.0 / c.cost for c in found), default=0.0)))
    if equations.ratio == 0.0 and equations.g_ratio == 0.0 and not equations.even:
        # S2 = Sg = 0 is what the step at 0 has, and steps of three levels in its limit, where they are left out
        found = [c for c in found if max(c.r) - min(c.r) > 0.1]
        found.extend(_two_levels(equations, (-1.0, 1.0)) if family.odd_shapes else [])
    unique: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: c.cost):
        if not any(
            known.shape == candidate.shape and abs(known.cost - candidate.cost) <= 1e-9 * candidate.cost
            for known in unique
        ):
            unique.append(candidate)
    # Without g no later layer has an h2, nor depends on this one's scale: the least variance is the best for all.
    return unique[:1] if equations.g_ratio is None else unique


def _of_shape(equations: Equations, shape: tuple[float, ...], known: float) -> list[Candidate]:
    if len(shape) == 2:
        return _two_levels(equations, shape)
    q = np.array(shape)
    out = np.empty((64, 2))
    count = steps.solve_cells(
        _R1, _LOG_WIDTH, *_table(shape, equations.even), q, equations.even, equations.ratio, equations.g_ratio or 0.0,
        equations.g_ratio is None, known, out,
    )  # fmt: skip
    return [_candidate(equations, shape, float(x), float(x + math.exp(y))) for x, y in out[:count]]


def _two_levels(equations: Equations, shape: tuple[float, ...]) -> list[Candidate]:
    """S2/S1 = r: one threshold, and g as it comes."""
    if equations.even:
        return []
    r = (equations.ratio,)
    s = evaluate(np.array(r), shape)
    if not float(s.v) > 1e-12:
        return []
    if equations.g_ratio is not None:
        reached = abs(float(s.sg)) / float(s.s1) ** 2
        if abs(reached - equations.g_ratio) > 1e-12 * max(1.0, equations.g_ratio):
            return []
    return [Candidate(r, shape, float(s.v) / float(s.s1) ** 2)]


def _candidate(equations: Equations, shape: tuple[float, ...], r1: float, r2: float) -> Candidate:
    r = (r1, r2)
    if equations.ratio == 0.0 and abs(r1 + r2) < 1e-5:
        r = (-r[1], r[1])  # the symmetric solution, exactly, so that what vanishes by symmetry does
        if equations.g_ratio is None and shape == (-1.0, 0.0, 1.0):
            r = (-LLOYD_MAX_THRESHOLD, LLOYD_MAX_THRESHOLD)
    s = evaluate(np.array(r), shape)
    primary = float(s.s2 if equations.even else s.s1)
    return Candidate(r, shape, float(s.v) / primary**2)


def _by_search(equations: Equations, family: Family) -> list[Candidate]:
    """Least V/S² of a layer with more unknowns than equations."""
    kind = EVEN if equations.even else (ODD if equations.ratio == 0.0 else GENERAL)
    reference = 2 if equations.even else 0  # rows of one layer at τ_0 = 1: u, ¼z, ½z, γ
    shapes = (family.shapes, family.odd_shapes, family.even_shapes)[kind]
    found = []
    for shape in shapes:
        fixed: list[Equation] = []
        if kind == GENERAL:
            fixed.append(Equation(2, 0, 0.5 * equations.ratio**2, True, "h2/h1"))
        goals: list[float] = [math.nan]
        if equations.g_ratio is not None:
            # Sg/S2² = γ/z and row 2 is ½ z
            goal = equations.g_ratio * (2.0 if equations.even else 1.0)
            goals = [goal, -goal] if goal > 0.0 else [0.0]
        for goal in goals:
            extra = [] if math.isnan(goal) else [Equation(3, reference, goal, False, "g/h1²")]
            problem = Problem(np.array([kind]), (shape,), family.free, reference, (*fixed, *extra))
            for start in problem.starts(200, 4):
                solution = problem.descend(start)
                if solution is None or solution.deviation > 1e-13:
                    continue
                layer = problem.layers(solution.z)[0]
                s = evaluate(np.array(layer.r), layer.shape)
                primary = float(s.s2 if equations.even else s.s1)
                found.append(Candidate(layer.r, layer.shape, float(s.v) / primary**2))
    return sorted(found, key=lambda c: c.cost)[:3]


class _Path(NamedTuple):
    layers: tuple[Layer, ...]
    tau: float


def _equations(target: Target, k: int, tau: float) -> tuple[float, Equations]:
    """a·S of the reference sum of layer k if its inputs have scale tau, and the layer's equations."""
    h1, h2, g = float(target.h1[k]), float(target.h2[k]), float(target.g[k])
    lam = target.net.weight_std * tau
    even = h1 == 0.0
    base = h2 * lam**2 if even else h1 * lam
    ratio = 0.0 if even else h2 * lam**2 / base
    return base, Equations(even, ratio, g * lam**2 / base**2 if target.needs_g(k) else None)


def chains(target: Target, family: Family | None = None) -> tuple[list[list[Layer]], str, bool]:
    """Chains of exact layers, the best first; why there are none; and whether none was dropped on the way.

    Every solution of every layer is followed, the 24 of least variance where there are more. Of the last layer's
    only those are solved that the bound of its variance leaves in the running.
    """
    family = family or family_of(None, "equal", None)
    paths = [_Path((), target.tau0)]
    complete = True
    for k in range(target.depth):
        extended: list[_Path] = []
        tasks = [(path, *_equations(target, k, path.tau)) for path in paths]
        if k == target.depth - 1:  # best first, until no other can be better
            bound = least_ridge(family.levels)
            floors = [
                0.0 if e.even else base * math.sqrt(float(bound.inverse(np.array([e.ratio**2]))[0]))
                for _, base, e in tasks
            ]
        else:
            floors = [0.0] * len(tasks)
        for i in np.argsort(floors, kind="stable"):
            if floors[i] > 0.0 and extended and floors[i] >= min(path.tau for path in extended):
                break
            path, base, equations = tasks[i]
            for candidate in solve_layer(equations, family):
                s = evaluate(np.array(candidate.r), candidate.shape)
                amplitude = base / abs(float(s.s2 if equations.even else s.s1))
                layer = Layer(candidate.r, candidate.shape, amplitude)
                extended.append(_Path((*path.layers, layer), amplitude * math.sqrt(float(s.v))))
        if not extended:
            wanted = "h1², h2² and g²" if target.needs_g(k) else "h1² and h2²"
            if target.h1[k] == 0.0 and not family.even_shapes:
                advice = "E[σ'] = 0 needs an even step, which the family does not have"
            elif k:
                advice = "the layers before it have too much variance; method='tight' matches the network as a whole"
            else:
                advice = "they are out of its reach; try more levels, or another family"
            reason = f"no levels {family} reach {wanted} in layer {k + 1} ({target.net.activations[k]}): {advice}"
            return [], reason, complete
        extended.sort(key=lambda path: path.tau)
        complete = complete and len(extended) <= _BEAM
        paths = extended[:_BEAM]
    return [list(path.layers) for path in paths], "", complete


def match_layerwise(
    target: Target, objective: Objective, family: Family | None = None, known: list[list[Layer]] | None = None
) -> Match:
    """Match every layer exactly; of all chains of solutions (`known`, or found here) take the one of least variance.

    Where its ridge would be less than the dense network's the last layer makes up for it.
    """
    family = family or family_of(None, "equal", None)
    found, reason, _ = (known, "", True) if known else chains(target, family)
    objective = "both" if objective == "ck" else objective
    if not found:
        return infeasible(target, "layerwise", objective, reason, levels=family.levels)
    result = finish(target, found[0], "layerwise", objective, levels=family.levels)
    if result.feasible and below_floor(target, result.excess):
        assert result.coefficients is not None
        before, last = tuple(found[0][:-1]), found[0][-1]
        even = target.h1[-1] == 0.0
        _, equations = _equations(target, target.depth - 1, float(result.coefficients.tau[-2]))
        kind = EVEN if even else (ODD if equations.ratio == 0.0 else GENERAL)
        fixed = (Equation(2, 0, 0.5 * equations.ratio**2, True, "h2/h1"),) if kind == GENERAL else ()
        fewer = one_piece_less(family.shapes[0]) if kind == ODD and len(family.shapes) > 1 else None
        for shape in (last.shape, fewer) if fewer else (last.shape,):
            problem = Problem(np.array([kind]), (shape,), family.free, 2 if even else 0, fixed)
            low = parameters_of(last, kind, family.free) if shape is last.shape else None
            raised = without_excess(target, problem, low, "layerwise", objective, family.levels, before)
            if raised is not None:
                return raised
    return result
