r"""Network-level matching: α2/α1 and α3/α1 exact after the last layer, least excess.

The scale of every layer is free, so the thresholds of all layers serve two equations, and what is left over minimises
the implicit ridge; where that would fall below the dense network's, it is made equal (excess 0). In units of each
layer's own variance the recursion for ᾱ = α/τ² is

    ᾱ1' = u ᾱ1,  ᾱ2' = u ᾱ2 + ¼ z ᾱ4²,  ᾱ3' = u ᾱ3 + ½ z ᾱ1²,  ᾱ4' = (Sg/V) ᾱ4,   u = S1²/V, z = S2²/V,

and the excess falls with ᾱ1. If every layer has h2 = 0 the layers part: each has S2 = 0 and the greatest u, which is
what matching layer by layer finds. A layer with h1 = 0 is kept even, which makes the zeros of the target hold by
symmetry. Sequential quadratic programming on compiled gradients from fixed starts and from the layer-by-layer chains;
deterministic. How far the result can be from the best is :attr:`Match.gap`.
"""

import math
from dataclasses import replace

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._typing import FloatArray, IntArray
from rmtntk.matching.families import Family, family_of
from rmtntk.matching.layerwise import chains, match_layerwise
from rmtntk.matching.problem import Layer, Match, Objective, Target, finish, infeasible, quiet_search, ratios
from rmtntk.matching.search import EVEN, GENERAL, ODD, Equation, Problem, Solution, kinds_of, parameters_of

__all__ = ["equations_of", "match_tight", "solutions"]

_SCREEN = 400  # points of the fixed sequence
_TRIALS = 32  # points among which one above the dense network's ridge is sought
_TOLERANCE = 1e-11


def equations_of(target: Target, objective: Objective) -> tuple[int, tuple[Equation, ...]]:
    """Row to maximise and the equations between rows at τ_0 = 1; rows are 0–2 (α1, α2, α3) and 4–6 (β1, β2, β3)."""
    scale = np.array([target.tau0**2, target.tau0**4, target.tau0**4])
    reference = ratios(target.alpha)[1]
    equations = []
    for name, wanted, goal, offset in (("α", "ck", target.alpha[:3], 0), ("β", "ntk", target.beta, 4)):
        if objective not in (wanted, "both"):
            continue
        goal = goal * scale
        base = ratios(goal / scale)[1]
        for k in range(3):
            if k != base and goal[k] > 0.0:
                label = f"{name}{k + 1}/{name}{base + 1}"
                equations.append(Equation(offset + k, offset + base, float(goal[k] / goal[base]), True, label))
    # β1 = (L + 1) α1 for every network
    return reference, tuple(e for e in equations if e.row != 4)


def match_tight(target: Target, objective: Objective, family: Family | None = None) -> Match:
    """Solve the network-level problem; see the module's page."""
    family = family or family_of(None, "equal", None)
    if not target.h2.any():  # odd throughout
        return replace(match_layerwise(target, objective, family), method="tight")
    if (target.h1 == 0.0).any() and not family.even_shapes:
        k = int(np.flatnonzero(target.h1 == 0.0)[0])
        return infeasible(
            target, "tight", objective,
            f"α1 = 0 cannot be reached: layer {k + 1} ({target.net.activations[k]}) is even, and {family} are not",
            levels=family.levels,
        )  # fmt: skip
    by_layer = _by_layer(target, family)
    found, closest = _explore(target, objective, family, by_layer)
    candidates = []
    if by_layer:
        candidates.append(
            replace(
                finish(target, by_layer[0], "tight", objective, levels=family.levels),
                objective="both" if objective == "ck" else objective,
            )
        )
    if found:
        problem, best = min(found, key=lambda pair: pair[1].cost)
        result = finish(target, problem.layers(best.z), "tight", objective, levels=family.levels)
        if result.feasible and result.excess < 0.0:
            result = _without_excess(target, objective, family, problem, best.z) or result
        candidates.insert(0, result)
    candidates = [m for m in candidates if m.feasible]
    if candidates:
        return min(candidates, key=lambda m: abs(m.excess))
    reason = "its search ended nowhere" if closest is None else _reason(closest)
    return infeasible(
        target, "tight", objective,
        f"no network with {family} was found with the coefficients of {target.net}: {reason}",
        levels=family.levels,
    )  # fmt: skip


def _without_excess(
    target: Target, objective: Objective, family: Family, problem: Problem, low: FloatArray
) -> Match | None:
    """A solution of excess 0, between one below 0 and one above: the step network's diagonal is the dense one's too.

    Less of a ridge than the dense network has is no better, and even layers get there by thresholds so far out that
    they hardly ever fire.
    """

    def at(t: float) -> Match:
        z = problem.polish((1.0 - t) * low + t * high)
        return finish(target, problem.layers(z), "tight", objective, levels=family.levels)

    for start in problem.screen(_TRIALS):
        high = problem.polish(start)
        top = at(1.0)
        if not (top.feasible and top.excess > 0.0):
            continue
        with quiet_search():
            t = scipy.optimize.brentq(lambda t: at(t).excess, 0.0, 1.0, xtol=1e-14)
        found = at(t)
        # Where the polished path jumps, the sign changes without a zero.
        if found.feasible and abs(found.excess) <= 1e-9 * max(1.0, target.coefficients.shift("ck") / target.unit):
            return found
    return None


def _reason(closest: Solution) -> str:
    if closest.deviation <= _TOLERANCE:
        return "the ratios are reached, but a coefficient that is 0 for the dense network is not 0"
    return f"{closest.worst} cannot be reached, the closest differs by {closest.deviation:.3g} in its logarithm"


def solutions(target: Target, objective: Objective, family: Family) -> list[tuple[Problem, Solution]]:
    """Local optima on the equations, each with the problem whose parameters it holds; least excess first."""
    even = target.h1 == 0.0
    all_odd = not target.h2.any()
    if (even.any() and not family.even_shapes) or (all_odd and not family.odd_shapes):
        return []
    found, _ = _explore(target, objective, family, [] if all_odd else _by_layer(target, family))
    return sorted(found, key=lambda pair: pair[1].cost)


def _by_layer(target: Target, family: Family) -> list[list[Layer]]:
    return chains(target, family)[0] if family.levels <= 3 and not family.free else []


def _explore(
    target: Target, objective: Objective, family: Family, by_layer: list[list[Layer]]
) -> tuple[list[tuple[Problem, Solution]], Solution | None]:
    """Distinct solutions from all starts, and the nearest miss."""
    reference, equations = equations_of(target, objective)
    kinds = kinds_of(target.h1, not target.h2.any())
    found: list[tuple[Problem, Solution]] = []
    closest: Solution | None = None
    patterns = _patterns(kinds, family)
    for shapes in patterns:
        problem = Problem(kinds, shapes, family.free, reference, equations)
        problem.drop_dependent()
        known: list[FloatArray] = []
        for chain in by_layer:
            if len(known) < 2 and tuple(layer.shape for layer in chain) == shapes:
                known.append(np.concatenate([_start(layer, k) for layer, k in zip(chain, kinds, strict=True)]))
        starts = problem.starts(_SCREEN, 6 if shapes == patterns[0] else 3, tuple(known))
        for start in starts:
            solution = problem.descend(start)
            if solution is None:
                continue
            if closest is None or solution.deviation < closest.deviation:
                closest = solution
            twin = any(other is problem and abs(s.cost - solution.cost) < 1e-9 for other, s in found)
            if solution.deviation <= _TOLERANCE and not twin:
                found.append((problem, solution))
    return found, closest


def _start(layer: Layer, kind: int) -> FloatArray:
    z = parameters_of(layer, kind, False)
    return np.where(np.isfinite(z), z, math.log(0.5))


def _patterns(kinds: IntArray, family: Family) -> list[tuple[tuple[float, ...], ...]]:
    """Shapes of all layers: the first of the family everywhere, and each other one in one layer or in all."""
    first = {GENERAL: family.shapes, ODD: family.odd_shapes, EVEN: family.even_shapes}
    base = [first[int(kind)][0] for kind in kinds]
    patterns = [tuple(base)]
    for shape in family.shapes[1:]:
        general = [k for k, kind in enumerate(kinds) if kind == GENERAL]
        places = [[k] for k in general] + ([general] if len(general) > 1 else [])
        patterns.extend(tuple([shape if k in where else q for k, q in enumerate(base)]) for where in places)
    return patterns
