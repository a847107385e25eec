"""Solutions whose implicit ridge is the dense network's: the least there is any use for.

A step network with less of a ridge than the dense one has is no better kernel, and gets there by layers that are more
nearly linear, or by thresholds so far out that they hardly ever fire. So where the excess could be brought below 0
the answer is one with excess 0, and the kernels agree on the diagonal too.
"""

import scipy  # loads scipy.optimize when it is first used

from rmtntk._typing import FloatArray
from rmtntk.matching.problem import Layer, Match, Objective, Target, finish, quiet_search
from rmtntk.matching.search import Problem

__all__ = ["below_floor", "one_piece_less", "without_excess"]

_TRIALS = 32  # points among which one above the dense network's ridge is sought
_SHIFTS = (0.0, 1.0, -2.0, 2.0, -4.0)  # of the logarithms of all gaps: far out, or all in one place
_ROUNDING = 1e-13  # of τ_L² in units of the reference coefficient


def _scale(target: Target) -> float:
    return max(1.0, float(target.coefficients.tau[-1]) ** 2 / target.unit)


def below_floor(target: Target, excess: float) -> bool:
    """Whether an excess is below 0 by more than the rounding of the two ridges."""
    return excess < -_ROUNDING * _scale(target)


def one_piece_less(shape: tuple[float, ...]) -> tuple[float, ...] | None:
    """Odd rising levels that a layer may also have; None if there are none.

    Odd steps of an even number of equal jumps over a step at 0 have at least the step's u = 2/π, wherever the other
    thresholds are; with a middle piece u goes down to 0.
    """
    k = len(shape)
    rising = tuple(j - 0.5 * (k - 1) for j in range(k))
    return tuple(j - 0.5 * (k - 2) for j in range(k - 1)) if k % 2 == 0 and k > 2 and shape == rising else None


def without_excess(
    target: Target,
    problem: Problem,
    low: FloatArray | None,
    method: str,
    objective: Objective,
    levels: int,
    before: tuple[Layer, ...] = (),
) -> Match | None:
    """Return a solution of excess 0, between `low`, whose excess is below 0, and one above; None if none is found.

    `problem` has the layers after those of `before`, which stay. Without `low` the search starts at a least excess, and
    ends there if it is not below 0.
    """
    if problem.n == 0:
        return None
    screen = problem.screen(_TRIALS)
    if low is None:
        least = problem.descend(screen[0])
        if least is None:
            return None
        result = finish(target, [*before, *problem.layers(least.z)], method, objective, levels=levels)
        if not below_floor(target, result.excess):
            return result if result.feasible else None
        low = least.z
    bottom = low

    def at(t: float) -> Match:
        z = problem.polish((1.0 - t) * bottom + t * high)
        return finish(target, [*before, *problem.layers(z)], method, objective, levels=levels)

    gaps = problem.is_gap()
    for start in (point + shift * gaps for shift in _SHIFTS for point in (screen if shift == 0.0 else screen[:8])):
        high = problem.polish(start)
        with quiet_search():
            top = at(1.0)
            if not (top.feasible and top.excess > 0.0):
                continue
            t = scipy.optimize.brentq(lambda t: at(t).excess, 0.0, 1.0, xtol=1e-15)
            # Where the polished path jumps, the sign changes without a zero.
            for nearby in (t, t + 2e-15, t - 2e-15, t + 2e-14, t - 2e-14):
                found = at(min(max(nearby, 0.0), 1.0))
                if found.feasible and abs(found.excess) <= 10.0 * _ROUNDING * _scale(target):
                    return found
    return None
