"""The penalty: a number, the best of a list, or the minimum of a criterion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_choice, check_real
from rmtntk.estimators.spectral import Problem

__all__ = ["CRITERIA", "Choice", "check_alpha", "choose"]

CRITERIA = ("gcv", "loo", "lml")
_GRID = np.linspace(math.log(1e-12), math.log(1e3), 64)  # log of the penalty over the largest eigenvalue


@dataclass(frozen=True, eq=False)
class Choice:
    """A penalty and the search that found it.

    Attributes
    ----------
    alpha : float
    alphas, values : ndarray, shape (k,)
        Penalties tried and the criterion there, to be small; one entry without values (NaN) if `alpha` was given.
    """

    alpha: float
    alphas: FloatArray
    values: FloatArray


def check_alpha(alpha: Any, criterion: Any) -> float | str | FloatArray:
    """Return a number, the name of a criterion, or an array of candidates.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or a candidate is not positive.
    """
    check_choice(criterion, "criterion", CRITERIA)
    if isinstance(alpha, str):
        return check_choice(alpha, "alpha", CRITERIA)
    if isinstance(alpha, Sequence) or (isinstance(alpha, np.ndarray) and alpha.ndim):
        candidates = check_array(alpha, "alpha", 1)
        if not (candidates > 0.0).all():
            raise ValueError(f"`alpha` must hold positive numbers, got {float(candidates.min())!r}")
        return candidates
    return check_real(alpha, "alpha", low=0.0)


def choose(problem: Problem, alpha: float | str | FloatArray, criterion: str) -> Choice:
    """Find the penalty; a search by name covers 1e-12 to 1e3 times the largest eigenvalue and polishes its minimum.

    Raises
    ------
    ValueError
        If the penalty is 0 and the kernel singular.
    """
    if isinstance(alpha, float):
        s = problem.spectrum
        if alpha == 0.0 and s.n_null:
            raise ValueError(
                f"`alpha` must be positive where the kernel is singular, as here ({s.n_null} of {s.n_dimensions} "
                "dimensions have eigenvalue 0, e.g. of equal rows), got 0"
            )
        return Choice(alpha, np.array([alpha]), np.array([math.nan]))
    name = alpha if isinstance(alpha, str) else criterion
    function = {"gcv": problem.gcv, "loo": problem.loo, "lml": problem.lml}[name]
    if not isinstance(alpha, str):
        values = np.array([function(float(value)) for value in alpha])
        return Choice(float(alpha[int(np.argmin(values))]), alpha, values)
    grid = math.log(problem.spectrum.values[-1]) + _GRID
    values = np.array([function(math.exp(value)) for value in grid])
    k = int(np.argmin(values))
    low, high = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(
        lambda value: function(math.exp(value)), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    best = float(found.x) if found.fun <= values[k] else float(grid[k])
    return Choice(math.exp(best), np.exp(grid), values)
