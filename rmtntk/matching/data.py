r"""Exact in α1, α2, α3, and of all exact solutions the one that predicts best over the data at hand.

Matching leaves most thresholds undetermined. ``tight`` spends them on the least excess; here they minimise the risk of
:mod:`rmtntk.matching.risk`, which sees the whole kernel over the data's own correlations and norms, up to a multiple
of the identity, and the noise of a network of finite width. Sequential quadratic programming from the solutions
of least excess, with the equations kept and the excess at 0 or more; deterministic.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._typing import FloatArray
from rmtntk.matching.families import Family
from rmtntk.matching.floor import below_floor, without_excess
from rmtntk.matching.problem import Match, Objective, Target, build, finish, quiet_search
from rmtntk.matching.risk import PredictionRisk
from rmtntk.matching.search import Problem
from rmtntk.matching.tight import match_tight, solutions

__all__ = ["match_data", "sample_rows"]

_HALF = 100  # rows that train, and rows that test
_STARTS = 2
_STEP = 1e-4  # of finite differences: the risk is smooth to about 1e-10
_ITERATIONS = 25


def sample_rows(x: FloatArray) -> FloatArray:
    """At most 200 rows of the data, always the same ones."""
    chosen = np.random.default_rng(0).permutation(len(x))[: 2 * min(_HALF, len(x) // 2)]
    return np.ascontiguousarray(x[chosen])


def match_data(target: Target, objective: Objective, family: Family, x: FloatArray, widths: Sequence[float]) -> Match:
    """Solve the problem of the module's page for rows of data (n, p) and the widths of the network to be built."""
    tight = match_tight(target, objective, family)
    if not tight.feasible:
        return replace(tight, method="data")
    risk = PredictionRisk(target.net.with_tau0(target.tau0), sample_rows(x), widths)
    first = risk(tight.activations)
    best, least = replace(tight, method="data"), first
    starts: list[tuple[float, Problem, FloatArray]] = []
    for problem, solution in solutions(target, objective, family):
        starts.append((_risk(risk, target, problem, solution.z), problem, solution.z))
    starts.sort(key=lambda entry: entry[0])
    for _, problem, z in starts[:_STARTS]:
        moved = problem.polish(_descend(risk, target, problem, z))
        if problem.measure(moved).deviation > 1e-11:
            continue
        value = _risk(risk, target, problem, moved)
        if value < least:
            found = finish(target, problem.layers(moved), "data", objective, levels=family.levels)
            if found.feasible and below_floor(target, found.excess):
                raised = without_excess(target, problem, moved, "data", objective, family.levels)
                if raised is None:
                    continue
                found, value = raised, risk(raised.activations)
            if found.feasible and value < least:
                best, least = found, value
    verdict = f"risk {least:.4f} over the data, {first:.4f} with the least excess"
    return replace(best, risk=least, message=f"{best.message}; {verdict}")


def _risk(risk: PredictionRisk, target: Target, problem: Problem, z: FloatArray) -> float:
    return risk(build(target, problem.layers(z)))


def _descend(risk: PredictionRisk, target: Target, problem: Problem, start: FloatArray) -> FloatArray:
    """A local minimum of the risk on the equations."""

    def cost(z: FloatArray) -> float:
        return _risk(risk, target, problem, z)

    constraints = [
        {  # no less of a ridge than the dense network's
            "type": "ineq",
            "fun": lambda z: np.array([problem.cost(z) - problem.floor]),
            "jac": lambda z: problem.cost_gradient(z)[None, :],
        }
    ]
    if problem.equations:
        constraints.append({"type": "eq", "fun": problem.deviations, "jac": problem.deviation_gradients})
    low, high = np.array(problem.bounds()).T
    with quiet_search():
        result = scipy.optimize.minimize(
            cost, np.clip(start, low, high), method="SLSQP", bounds=problem.bounds(), constraints=constraints,
            options={"maxiter": _ITERATIONS, "ftol": 1e-6, "eps": _STEP},
        )  # fmt: skip
    z = np.asarray(result.x)
    return z if np.isfinite(z).all() else start
