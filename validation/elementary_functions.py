"""Coefficients of the polynomials in ``rmtntk/_jit/elementary.py``, recomputed, and how accurate they are.

Each is the Chebyshev series of a function on an interval, cut after some degree, with 60 digits, and then written in
monomials and rounded to float64. What is cut off is at most the sum of the coefficients that follow. Prints the
coefficients that differ from those of the file, and the worst errors of the compiled functions against mpmath on a
grid with both ends and points ever closer to them. ``--quick`` takes a coarser grid.
"""

import ast
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import _common
import numpy as np
from mpmath import mp, mpf

from rmtntk._jit import elementary

DIGITS = 60
TERMS = 60  # of the Chebyshev series: the last are below 1e-30
EPS = 2.0**-52


class Polynomial(NamedTuple):
    """A function, the interval of the polynomial's variable, the degree kept, and a bound of what is cut off."""

    function: Callable[[Any], Any]
    low: Any
    high: Any
    degree: int
    bound: float


def angle_excess(g: Any) -> Any:
    """(t / sin t − 1) / g with cos t = 1 − g."""
    if g == 0:
        return mpf(1) / 3
    t = mp.acos(1 - g)
    return (t / mp.sin(t) - 1) / g


def arcsine_excess(x: Any) -> Any:
    """(asin s / s − 1) / s², x = s²."""
    if x == 0:
        return mpf(1) / 6
    s = mp.sqrt(x)
    return (mp.asin(s) / s - 1) / x


POLYNOMIALS = {
    "angle_excess": Polynomial(angle_excess, mpf(0), mpf(1), 19, 1.4e-16),
    # asin s = s (1 + x P(x)) with x ≤ 1/2: half of it, relative to asin s
    "arcsine": Polynomial(arcsine_excess, mpf(0), mpf(1) / 2, 17, 1.2e-16),
}


def chebyshev(function: Callable[[Any], Any], low: Any, high: Any) -> list[Any]:
    """First coefficients of the Chebyshev series, by the discrete cosine transform at as many nodes."""
    angles = [mp.pi * (k + mpf(1) / 2) / TERMS for k in range(TERMS)]
    values = [function((low + high) / 2 + (high - low) / 2 * mp.cos(angle)) for angle in angles]
    return [
        (2 if m else 1)
        * mp.fsum(value * mp.cos(m * angle) for value, angle in zip(values, angles, strict=True))
        / TERMS
        for m in range(TERMS)
    ]


def monomials(series: list[Any], low: Any, high: Any) -> list[Any]:
    """Write Σ c_n T_n(y), y = (2x − low − high)/(high − low), in powers of x."""
    slope, shift = 2 / (high - low), -(low + high) / (high - low)
    total = [mpf(0)] * len(series)
    before, current = [mpf(1)], [shift, slope]
    for coefficient in series:
        for k, value in enumerate(before):
            total[k] += coefficient * value
        following = [mpf(0)] * (len(current) + 1)
        for k, value in enumerate(current):
            following[k] += 2 * shift * value
            following[k + 1] += 2 * slope * value
        for k, value in enumerate(before):
            following[k] -= value
        before, current = current, following
    return total


def recomputed(name: str) -> tuple[list[float], float]:
    """Coefficients in ascending order, and the bound of what is cut off."""
    with mp.workdps(DIGITS):
        polynomial = POLYNOMIALS[name]
        series = chebyshev(polynomial.function, polynomial.low, polynomial.high)
        kept = series[: polynomial.degree + 1]
        cut = mp.fsum(abs(value) for value in series[polynomial.degree + 1 :])
        return [float(value) for value in monomials(kept, polynomial.low, polynomial.high)], float(cut)


def in_file(name: str) -> list[float]:
    """Return the coefficients that the function's source has, read from `even` and `odd` there, ascending."""
    function = getattr(elementary, name)
    tree = ast.parse(inspect.getsource(getattr(function, "py_func", function)))
    parts: dict[str, list[float]] = {"even": [], "odd": []}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in parts:
            value = node.value.left if isinstance(node.value, ast.BinOp) else node.value
            parts[node.targets[0].id].append(float(ast.literal_eval(value)))
    even, odd = parts["even"][::-1], parts["odd"][::-1]
    return [value for pair in zip(even, odd, strict=False) for value in pair] + even[len(odd) :]


def grid(low: float, high: float, count: int) -> np.ndarray:
    """Evenly spaced points, and points ever closer to both ends and, on either side, to 0."""
    ends = (high - low) * 10.0 ** -np.arange(1.0, 17.0)
    points = [np.linspace(low, high, count), low + ends, high - ends]
    if low < 0.0 < high:
        points += [ends, -ends]
    return np.unique(np.concatenate(points))


class Case(NamedTuple):
    """A compiled function as called, the true one, its domain, and eps it may be off relative to its value."""

    found: Callable[[float], float]
    true: Callable[[Any], Any]
    low: float
    high: float
    units: float


def _sine_side(s: float) -> float:
    return float(elementary.arcsine_on_circle(s, np.sqrt((1.0 - s) * (1.0 + s))))


CASES = {
    # what the loops use: t = s (1 + g P(g)), a rounding each of root, polynomial and sum
    "angle t of 1 − cos t": Case(
        lambda g: np.sqrt(g * (2.0 - g)) * (1.0 + g * elementary.angle_excess(g)),
        lambda g: mp.acos(1 - g),
        0.0,
        1.0,
        4.0,
    ),
    "angle_excess": Case(elementary.angle_excess, angle_excess, 0.0, 1.0, 4.0),
    "arcsine": Case(elementary.arcsine, mp.asin, -(0.5**0.5), 0.5**0.5, 2.0),
    "arcsine_on_circle": Case(_sine_side, mp.asin, -1.0, 1.0, 3.0),
    # the reduced argument is rounded to eps/2 of at most ln 2 / 2
    "exponential": Case(elementary.exponential, mp.exp, -708.0, 709.0, 3.0),
    "exponential_minus_one": Case(elementary.exponential_minus_one, mp.expm1, -40.0, 709.0, 3.0),
    "exponential_minus_one near 0": Case(elementary.exponential_minus_one, mp.expm1, -1.0, 1.0, 3.0),
}


def worst(name: str, count: int) -> tuple[float, float]:
    """Largest relative error in eps, and where."""
    case = CASES[name]
    largest, where = 0.0, 0.0
    with mp.workdps(40):
        for point in grid(case.low, case.high, count):
            want = case.true(mpf(float(point)))
            if want == 0:
                error = 0.0 if case.found(float(point)) == 0.0 else np.inf
            else:
                error = float(abs((mpf(float(case.found(float(point)))) - want) / want)) / EPS
            if error > largest:
                largest, where = error, float(point)
    return largest, where


def main() -> None:
    args = _common.parser(__doc__ or "").parse_args()
    count = 1001 if args.quick else 20_001
    results: dict[str, Any] = {"polynomials": {}, "functions": {}}
    print(f"{'polynomial':30s} {'degree':>6s} {'cut off':>10s} {'bound':>10s}  same coefficients")
    for name, polynomial in POLYNOMIALS.items():
        wanted, cut = recomputed(name)
        same = wanted == in_file(name)
        print(f"{name:30s} {polynomial.degree:6d} {cut:10.2e} {polynomial.bound:10.2e}  {same}")
        results["polynomials"][name] = {"coefficients": wanted, "cut_off": cut, "same": same}
        if not same or cut > polynomial.bound:
            raise SystemExit(f"{name}: the file has {in_file(name)}")
    print(f"{'function':30s} {'worst/eps':>10s} {'at':>24s} {'allowed':>8s}")
    for name, case in CASES.items():
        error, where = worst(name, count)
        print(f"{name:30s} {error:10.2f} {where:24.17g} {case.units:8.1f}")
        results["functions"][name] = {"worst_eps": error, "at": where}
        if error > case.units:
            raise SystemExit(f"{name} is off by {error:.2f} eps at {where!r}")
    print(f"saved {_common.save(args.out, 'elementary_functions', args, results).name}")


if __name__ == "__main__":
    main()
