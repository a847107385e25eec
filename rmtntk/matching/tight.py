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

from rmtntk._typing import FloatArray, IntArray
from rmtntk.matching.families import Family, family_of
from rmtntk.matching.floor import below_floor, one_piece_less, without_excess
from rmtntk.matching.layerwise import chains, match_layerwise
from rmtntk.matching.problem import Layer, Match, Objective, Target, finish, infeasible, ratios
from rmtntk.matching.search import EVEN, GENERAL, ODD, Equation, Problem, Solution, parameters_of, shape_for

__all__ = ["equations_of", "match_tight", "plans", "solutions"]

_SCREEN = 400  # points of the fixed sequence
_TOLERANCE = 5e-13


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
        return _match_odd(target, objective, family)
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
    if found:
        problem, best = min(found, key=lambda pair: pair[1].cost)
        result = finish(target, problem.layers(best.z), "tight", objective, levels=family.levels)
        if result.feasible and below_floor(target, result.excess):
            result = without_excess(target, problem, best.z, "tight", objective, family.levels) or result
        candidates.append(result)
    if by_layer or not any(m.feasible for m in candidates):
        candidates.append(replace(match_layerwise(target, objective, family, by_layer or None), method="tight"))
    candidates = [m for m in candidates if m.feasible]
    if candidates:
        return min(candidates, key=lambda m: (below_floor(target, m.excess), abs(m.excess)))
    reason = "its search ended nowhere" if closest is None else _reason(target, closest)
    return infeasible(
        target, "tight", objective,
        f"no network with {family} was found with the coefficients of {target.net}: {reason}",
        levels=family.levels,
    )  # fmt: skip


def _match_odd(target: Target, objective: Objective, family: Family) -> Match:
    """The optimal quantiser of every layer, or less of it."""
    found, reason, _ = chains(target, family)
    objective = "both" if objective == "ck" else objective
    if not found:
        return infeasible(target, "tight", objective, reason, levels=family.levels)
    best = finish(target, found[0], "tight", objective, levels=family.levels)
    if not below_floor(target, best.excess):
        return best
    sign = Layer((0.0,), (-1.0, 1.0), 1.0)
    signs = target.g == 0.0
    kinds = np.full(target.depth, ODD, dtype=np.int64)
    for kept in (False, True) if signs.any() and family.odd_shapes else (False,):
        layers = [sign if kept and k else layer for k, layer in zip(signs, found[0], strict=True)]
        result = finish(target, layers, "tight", objective, levels=family.levels)
        if not below_floor(target, result.excess):
            return result
        shapes = tuple(layer.shape for layer in layers)
        problem = Problem(kinds, shapes, family.free, ratios(target.alpha)[1], ())
        low = np.concatenate([parameters_of(layer, ODD, family.free) for layer in layers])
        raised = without_excess(target, problem, low, "tight", objective, family.levels)
        if raised is not None:
            return raised
    if len(family.shapes) > 1:
        fewer = tuple(one_piece_less(layer.shape if not family.free else family.shapes[0]) or layer.shape
                      for layer in found[0])  # fmt: skip
        problem = Problem(kinds, fewer, family.free, ratios(target.alpha)[1], ())
        return without_excess(target, problem, None, "tight", objective, family.levels) or best
    return best


def _reason(target: Target, closest: Solution) -> str:
    if closest.deviation <= _TOLERANCE:
        zero = [f"α{k + 1}" for k in range(3) if target.alpha[k] == 0.0]
        return f"the other ratios are reached, but {' and '.join(zero) or 'a sum'} = 0 is not: that takes odd layers"
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


def plans(target: Target, family: Family) -> list[tuple[IntArray, int | None]]:
    r"""Kinds of all layers, and the layer that is a sign; the second plan keeps odd what is odd.

    α2 is the sum over l of ¼ h2_l² Γ_{l−1}² h1_{l+1}² … h1_L², Γ_l = g_1 … g_l. Where the target has no term but those
    that α3 fixes, the step network must have none either, which no equation between ratios can ask for (its slope is
    0 where it holds): a term with h2_l = 0 keeps layer l odd, one with Γ_{l−1} = 0 makes the first layer of g = 0 a
    step at 0, for which S2 = Sg = 0.
    """
    even = target.h1 == 0.0
    odd = ~even & (target.h2 == 0.0)
    if not target.h2.any():
        return [(np.full(target.depth, ODD, dtype=np.int64), None)]
    kinds = np.where(even, EVEN, GENERAL).astype(np.int64)
    if not family.odd_shapes:
        return [(kinds, None)]
    passed = np.concatenate([[True], np.cumprod(target.g[:-1] > 0.0) > 0])  # Γ_{l−1} ≠ 0
    sign = None
    if even.sum() <= 1:
        first = int(np.argmax(even)) if even.any() else 0
        if even.any() and passed[first]:
            first += 1
        last_terms = np.arange(first, target.depth)
        if not (passed & (target.h2 > 0.0))[last_terms].any():
            for k in last_terms:
                if not passed[k] and target.h2[k] > 0.0:
                    m = int(np.argmin(target.g > 0.0))
                    sign = None if even[m] else m
                elif passed[k] and odd[k]:
                    kinds[k] = ODD
            if sign is not None:
                kinds[sign] = ODD
    out = [(kinds, sign)]
    other = np.where(odd, ODD, kinds).astype(np.int64)
    if (other != kinds).any():
        out.append((other, sign))
    return out


def _explore(
    target: Target, objective: Objective, family: Family, by_layer: list[list[Layer]]
) -> tuple[list[tuple[Problem, Solution]], Solution | None]:
    """Distinct solutions from all starts, and the nearest miss."""
    reference, equations = equations_of(target, objective)
    # the reference over τ_L², at τ_0 = 1, of a network with the dense one's ridge
    top = target.unit * target.tau0 ** (2 if reference == 0 else 4) / float(target.coefficients.tau[-1]) ** 2
    found: list[tuple[Problem, Solution]] = []
    closest: Solution | None = None
    for kinds, sign in plans(target, family):
        patterns = _patterns(kinds, sign, family)
        for shapes in patterns:
            problem = Problem(kinds, shapes, family.free, reference, equations, -math.log(top))
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


def _patterns(kinds: IntArray, sign: int | None, family: Family) -> list[tuple[tuple[float, ...], ...]]:
    """Shapes of all layers: the first of the family everywhere, and each other one in one layer or in all."""
    base = [shape_for(family, int(kind))[0] for kind in kinds]
    if sign is not None:
        base[sign] = (-1.0, 1.0)
    patterns = [tuple(base)]
    for shape in family.shapes[1:]:
        general = [k for k, kind in enumerate(kinds) if kind == GENERAL]
        places = [[k] for k in general] + ([general] if len(general) > 1 else [])
        patterns.extend(tuple([shape if k in where else q for k, q in enumerate(base)]) for where in places)
    return patterns
