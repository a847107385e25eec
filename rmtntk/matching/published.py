r"""Algorithm 1 of NTK-LC as published, including where it fails.

Layers 1 … L−1 take σ_T = a(1_{t<s1} + 1_{t>s2}) and match h1², h2², g; the last layer takes
σ_Q = b1(1_{t<r1} + 1_{t>r4}) + b2 1_{r2≤t≤r3} with r2 − r1 = r4 − r3 and matches h1², h2² and τ. Each layer is a
least-squares problem solved by SLSQP from random starts.
"""

import math

import numpy as np
import scipy  # loads scipy.optimize when it is first used

from rmtntk._typing import FloatArray
from rmtntk._validation import as_generator
from rmtntk.activations import Activation, step
from rmtntk.coefficients import coefficients
from rmtntk.matching.problem import Match, Objective, Target, excess_bound, quiet_search, residual_of
from rmtntk.moments import moment_arrays
from rmtntk.network import layer_scales

__all__ = ["match_paper"]


def match_paper(target: Target, objective: Objective, *, n_starts: int, seed: int) -> Match:
    """Run the published algorithm with `n_starts` random starts a layer."""
    generator = as_generator(seed)
    dense_tau = target.coefficients.tau
    activations: list[Activation] = []
    misfits = []
    for k in range(target.depth):
        last = k == target.depth - 1
        # The scale that the layers found so far really have: the published script carries it the same way.
        partial_net = target.net.with_activations(activations) if activations else None
        tau = float(layer_scales(partial_net, target.tau0).tau[-1]) if partial_net else target.tau0
        lam = target.net.weight_std * tau
        wanted = np.array([target.h1[k] ** 2, target.h2[k] ** 2, dense_tau[k + 1] ** 2 if last else target.g[k]])
        found = _fit_layer(wanted, lam, last, n_starts, generator)
        if found is None:
            break
        activations.append(found[0])
        misfits.append(found[1])
    worst = max(misfits, default=math.inf)
    bound = excess_bound(target, 5, objective)  # five pieces in the last layer
    if len(activations) < target.depth:
        return Match(
            (), math.inf, math.inf, bound, False,
            f"the published algorithm finds no admissible thresholds in layer {len(activations) + 1}", "paper",
            objective, target.tau0, target.unit, None, target.coefficients,
        )  # fmt: skip
    table = coefficients(target.net.with_activations(activations), target.tau0)
    goal = target.coefficients
    residual = residual_of(table.alpha[-1], target.alpha)
    if objective != "ck":
        residual = max(residual, residual_of(table.beta[-1], target.beta))
    excess = (table.shift("ck") - goal.shift("ck")) / target.unit
    layer = int(np.argmax(misfits)) + 1
    feasible = bool(max(residual, worst) <= 1e-6)
    verdict = (
        "the published algorithm matches"
        if feasible
        else f"the published algorithm does not match: in layer {layer} its own equations keep a relative residual of "
        f"{worst:.3g} after {n_starts} random starts"
    )
    return Match(
        tuple(activations), residual, float(excess), bound, feasible,
        f"{verdict}; α2/α1, α3/α1 are off by {residual:.3g}", "paper", objective, target.tau0, target.unit, table, goal,
    )  # fmt: skip


def _activation(z: FloatArray, lam: float, last: bool) -> Activation | None:
    if not last:
        a, s1, s2 = z
        if not s1 < s2 or a == 0.0:
            return None
        return step([s1 * lam, s2 * lam], [a, 0.0, a])
    b1, b2, r1, gap, middle = z
    if gap <= 0.0 or middle <= 0.0 or b1 == 0.0 or b2 == 0.0:
        return None
    thresholds = np.cumsum([r1, gap, middle, gap]) * lam
    if not (np.diff(thresholds) > 0.0).all():
        return None
    return step(thresholds, [b1, 0.0, b2, 0.0, b1])


def _misfit(z: FloatArray, wanted: FloatArray, lam: float, last: bool) -> float:
    """Norm of the relative deviations of (h1², h2², g or τ²)."""
    act = _activation(z, lam, last)
    if act is None:
        return 1e3
    m = moment_arrays(act, np.array([lam]))
    got = np.array([m.d1[0] ** 2, m.d2[0] ** 2, m.variance[0] if last else m.half_d2_squared[0]])
    unit = np.where(wanted > 0.0, np.abs(wanted), 1.0)
    return float(np.linalg.norm((got - wanted) / unit))


def _fit_layer(
    wanted: FloatArray, lam: float, last: bool, n_starts: int, generator: np.random.Generator
) -> tuple[Activation, float] | None:
    best: tuple[float, FloatArray] | None = None
    for _ in range(n_starts):
        if last:
            start = np.concatenate(
                [generator.normal(0.0, 1.5, 2), [generator.normal(-1.0, 1.0)], generator.uniform(0.1, 1.5, 2)]
            )
            bounds = [(-20.0, 20.0), (-20.0, 20.0), (-5.0, 5.0), (1e-3, 5.0), (1e-3, 5.0)]
        else:
            thresholds = np.sort(generator.normal(0.0, 1.2, 2))
            start = np.array([generator.uniform(0.3, 3.0), *thresholds])
            bounds = [(1e-3, 20.0), (-5.0, 5.0), (-5.0, 5.0)]
        with quiet_search():
            result = scipy.optimize.minimize(
                _squared, start, args=(wanted, lam, last), method="SLSQP", bounds=bounds,
                options={"maxiter": 200, "ftol": 1e-16},
            )  # fmt: skip
        value = _misfit(np.asarray(result.x), wanted, lam, last)
        if best is None or value < best[0]:
            best = (value, np.asarray(result.x))
        if best[0] < 1e-7:
            break
    if best is None:
        return None
    act = _activation(best[1], lam, last)
    return None if act is None else (act, best[0])


def _squared(z: FloatArray, wanted: FloatArray, lam: float, last: bool) -> float:
    return _misfit(z, wanted, lam, last) ** 2
