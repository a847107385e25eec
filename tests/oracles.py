"""Independent routes to the numbers of rmtntk: nothing here imports the package.

Moments are integrals against the normal density, composite Gauss–Legendre in mpmath on panels that are split at
breakpoints and graded towards 0; derivatives are reached by integration by parts. Dual activations are found by
conditioning: E[f(u) f(v)] = E[f(u) E[f(v) | u]], v | u ~ N(u c/q_u, q_v − c²/q_u), with the inner mean in closed
form. Kernel recursions run in plain NumPy, and in mpmath from the exact float inputs.
"""

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf
from scipy import special

EPS = float(np.finfo(np.float64).eps)
SELU = (1.6732632423543772, 1.0507009873554805)
FIELDS = ("mean", "d1", "d2", "d3", "variance", "d1_squared", "half_d2_squared", "second")


class Function(NamedTuple):
    """σ, σ' and where they are not smooth; `slope` is None for steps."""

    value: Callable
    slope: Callable | None
    breaks: tuple = ()


def polynomial_value(coefficients, x):
    total = mpf(0)
    for coefficient in reversed(coefficients):
        total = total * x + mpf(coefficient)
    return total


def step_value(thresholds, levels, x):
    return mpf(levels[sum(1 for s in thresholds if x >= s)])


def step_of(name, parameters):
    """Thresholds and levels of a step, or None."""
    if name == "sign":
        return (0.0,), (-1.0, 1.0)
    if name == "heaviside":
        return (0.0,), (0.0, 1.0)
    return (parameters["thresholds"], parameters["levels"]) if name == "step" else None


def slopes_of(name, parameters):
    """(α, β) of σ(t) = α max(t, 0) + β max(−t, 0), or None."""
    table = {"relu": (1.0, 0.0), "abs": (1.0, 1.0), "identity": (1.0, -1.0)}
    return (1.0, -parameters["negative_slope"]) if name == "leaky_relu" else table.get(name)


def function(name, parameters):
    """σ and σ' in mpmath, at the working precision of the caller."""
    step = step_of(name, parameters)
    if step is not None:
        return Function(lambda x: step_value(*step, x), None, tuple(step[0]))
    sides = slopes_of(name, parameters)
    if sides is not None:
        alpha, beta = map(mpf, sides)
        return Function(lambda x: alpha * x if x >= 0 else -beta * x, lambda x: alpha if x >= 0 else -beta, (0.0,))
    if name == "polynomial":
        c = parameters["coefficients"]
        slope = [k * mpf(c[k]) for k in range(1, len(c))] or [mpf(0)]
        return Function(lambda x: polynomial_value(c, x), lambda x: polynomial_value(slope, x))
    if name in ("elu", "selu"):
        alpha, scale = map(mpf, SELU if name == "selu" else (1.0, 1.0))
        return Function(
            lambda x: scale * (x if x >= 0 else alpha * mp.expm1(x)),
            lambda x: scale * (mpf(1) if x >= 0 else alpha * mp.exp(x)),
            (0.0,),
        )
    if name == "rectified_monomial":
        degree = int(parameters["degree"])
        return Function(
            lambda x: x**degree if x >= 0 else mpf(0),
            lambda x: degree * x ** (degree - 1) if x >= 0 else mpf(0),
            (0.0,),
        )
    if name == "exp":
        rate = mpf(parameters["rate"])
        return Function(lambda x: mp.exp(rate * x), lambda x: rate * mp.exp(rate * x))

    def sigmoid(x):
        return 1 / (1 + mp.exp(-x))

    table = {
        "erf": (mp.erf, lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-(x**2))),
        "gelu": (lambda x: x * mp.ncdf(x), lambda x: mp.ncdf(x) + x * mp.npdf(x)),
        "tanh": (mp.tanh, lambda x: mp.sech(x) ** 2),
        "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
        "softplus": (lambda x: mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x)), sigmoid),
        "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
        "sin": (mp.sin, mp.cos),
        "cos": (mp.cos, lambda x: -mp.sin(x)),
        "gaussian": (lambda x: mp.exp(-(x**2) / 2), lambda x: -x * mp.exp(-(x**2) / 2)),
    }
    return Function(*table[name])


# Quadrature


@lru_cache(maxsize=8)
def gauss_rule(count, dps):
    """Gauss–Legendre on [−1, 1] to `dps` digits, by Newton's method on P_n from the float nodes."""
    with mp.workdps(dps + 10):
        nodes, weights = [], []
        for start in np.polynomial.legendre.leggauss(count)[0]:
            x = mpf(float(start))
            for _ in range(8):
                below, here = mpf(1), x
                for k in range(2, count + 1):
                    below, here = here, ((2 * k - 1) * x * here - (k - 1) * below) / k
                slope = count * (x * here - below) / (x * x - 1)
                step = here / slope
                x -= step
                if abs(step) < mpf(10) ** (-dps - 5):
                    break
            nodes.append(x)
            weights.append(2 / ((1 - x * x) * slope**2))
        return tuple(nodes), tuple(weights)


def composite(edges, count):
    """Nodes and weights of the composite rule on the panels between sorted `edges`."""
    nodes, weights = gauss_rule(count, mp.dps)
    for left, right in itertools.pairwise(edges):
        half, centre = (right - left) / 2, (right + left) / 2
        for x, w in zip(nodes, weights, strict=True):
            yield centre + half * x, half * w


def graded_edges(reach, width, points, finest):
    """Edges over [−reach, reach], no wider than `width`, refined in ratio 2 towards each point down to `finest`."""
    count = int(mp.ceil(reach / width))
    edges = {reach * k / count for k in range(-count, count + 1)}
    for point in points:
        edges.add(point)
        distance = mpf(finest)
        while distance < width:
            edges |= {point - distance, point + distance}
            distance *= 2
    return sorted(edge for edge in edges if abs(edge) <= reach)


# Moments


def natural_units(second, tau):
    """Units of the fields of Moments: what `Moments.error` is relative to (d1_squared: itself)."""
    s = mp.sqrt(second)
    units = {"mean": s, "d1": s / tau, "d2": s / tau**2, "d3": s / tau**3}
    return units | {"variance": second, "half_d2_squared": second / tau**2, "second": second}


def moments_by_quadrature(name, parameters, tau, *, dps=50, count=44, reach=18):
    """All fields of rn.moments, each as an integral of σ (or σ'²) against the normal density."""
    with mp.workdps(dps + 20):
        f = function(name, parameters)
        tau = mpf(tau)
        points = [mpf(0), *(mpf(b) / tau for b in f.breaks)]
        edges = graded_edges(mpf(reach), mpf(1), points, min(mpf(1), 1 / tau) / 4)
        raw = [mpf(0)] * 6
        table = []
        for xi, weight in composite(edges, count):
            density = weight * mp.npdf(xi)
            value = f.value(tau * xi)
            table.append((xi, density, value))
            weighted = density * value
            raw[0] += weighted
            raw[1] += weighted * xi
            raw[2] += weighted * (xi * xi - 1)
            raw[3] += weighted * (xi * xi - 3) * xi
            raw[4] += weighted * value
            if f.slope is not None:
                raw[5] += density * f.slope(tau * xi) ** 2
        mean = raw[0]
        spread = bend = mpf(0)
        for xi, density, value in table:
            square = density * (value - mean) ** 2
            spread += square
            bend += square * (xi * xi - 1)
        result = {
            "mean": mean,
            "d1": raw[1] / tau,
            "d2": raw[2] / tau**2,
            "d3": raw[3] / tau**3,
            "variance": spread,
            "d1_squared": mp.inf if f.slope is None else raw[5],
            "half_d2_squared": bend / (2 * tau**2),
            "second": raw[4],
        }
        units = natural_units(raw[4], tau)
        # A value that vanishes by symmetry is left at the rounding of its integral.
        return {
            key: mpf(0) if key in units and abs(v) < mpf(10) ** -45 * units[key] else v for key, v in result.items()
        }


def step_moments(thresholds, levels, tau):
    """Moments of a step in mpmath; the variance and g as sums over pairs of levels, so that tails keep digits."""
    with mp.workdps(70):
        tau = mpf(tau)
        r = [mpf(s) / tau for s in thresholds]
        jumps = [mpf(b) - mpf(a) for a, b in itertools.pairwise(levels)]

        def above(x):
            return mp.erfc(x / mp.sqrt(2)) / 2

        shares = []
        for low, high in zip([-mp.inf, *r], [*r, mp.inf], strict=True):
            if low > 0:
                shares.append(above(low) - above(high))
            else:
                shares.append(above(-high) - above(-low))
        levels = [mpf(level) for level in levels]
        mean = mp.fdot(shares, levels)
        d1 = mp.fsum(d * mp.npdf(x) for d, x in zip(jumps, r, strict=True)) / tau
        d2 = mp.fsum(d * x * mp.npdf(x) for d, x in zip(jumps, r, strict=True)) / tau**2
        d3 = mp.fsum(d * (x * x - 1) * mp.npdf(x) for d, x in zip(jumps, r, strict=True)) / tau**3
        pairs = [shares[a] * shares[b] * (levels[a] - levels[b]) ** 2 for a in range(len(levels)) for b in range(a)]
        deviation = [mp.fsum(p * (level - other) for p, other in zip(shares, levels, strict=True)) for level in levels]
        bend = mp.fsum(
            d * (deviation[j] + deviation[j + 1]) * x * mp.npdf(x)
            for j, (d, x) in enumerate(zip(jumps, r, strict=True))
        )
        return {
            "mean": mean,
            "d1": d1,
            "d2": d2,
            "d3": d3,
            "variance": mp.fsum(pairs),
            "d1_squared": mp.inf,
            "half_d2_squared": bend / (2 * tau**2),
            "second": mp.fdot(shares, [level**2 for level in levels]),
        }


def analytic_moments(name, parameters, tau):
    """Closed forms of activations the package integrates numerically: sin, cos, exp."""
    with mp.workdps(70):
        tau = mpf(tau)
        if name == "exp":
            rate = mpf(parameters["rate"])
            q = (rate * tau) ** 2
            mean, second = mp.exp(q / 2), mp.exp(2 * q)
            # ½((f−m)²)'' = 2 rate² f² − rate² m f
            g = rate**2 * (2 * second - mean**2)
            return dict(
                zip(
                    FIELDS,
                    (mean, rate * mean, rate**2 * mean, rate**3 * mean, second - mean**2, rate**2 * second, g, second),
                    strict=True,
                )
            )
        m, fourth = mp.exp(-(tau**2) / 2), mp.exp(-2 * tau**2)
        low, high, none = (1 - fourth) / 2, (1 + fourth) / 2, mpf(0)
        if name == "sin":
            return dict(zip(FIELDS, (none, m, none, -m, low, high, fourth, low), strict=True))
        return dict(zip(FIELDS, (m, none, -m, none, (1 - m * m) ** 2 / 2, low, m * m - fourth, high), strict=True))


def reference_moments(name, parameters, tau, **precision):
    """The independent closed form where the integral needs too many panels or digits, else the integral."""
    step = step_of(name, parameters)
    if step is not None:
        return step_moments(*step, tau)
    if name in ("sin", "cos", "exp"):
        return analytic_moments(name, parameters, tau)
    return moments_by_quadrature(name, parameters, tau, **precision)


# Dual activations by conditioning


class Conditional(NamedTuple):
    """E[f(v)] and E[f'(v)] for v ~ N(mean, sd²), sd > 0, as functions of (mean, sd)."""

    value: Callable
    slope: Callable | None


def conditional(name, parameters):
    """Closed forms of the inner mean."""
    step = step_of(name, parameters)
    if step is not None:
        s, levels = step
        first = mpf(levels[0])
        jumps = [mpf(b) - mpf(a) for a, b in itertools.pairwise(levels)]
        return Conditional(
            lambda m, sd: first + mp.fsum(d * mp.ncdf((m - x) / sd) for d, x in zip(jumps, s, strict=True)), None
        )
    sides = slopes_of(name, parameters)
    if sides is not None:
        alpha, beta = map(mpf, sides)
        return Conditional(
            lambda m, sd: (
                alpha * (m * mp.ncdf(m / sd) + sd * mp.npdf(m / sd))
                + beta * (-m * mp.ncdf(-m / sd) + sd * mp.npdf(m / sd))
            ),
            lambda m, sd: alpha * mp.ncdf(m / sd) - beta * mp.ncdf(-m / sd),
        )
    if name == "polynomial":
        c = [mpf(value) for value in parameters["coefficients"]]
        slope = [k * c[k] for k in range(1, len(c))] or [mpf(0)]

        def mean_of(coefficients):
            def value(m, sd):
                # E[(m + sd ξ)^k] by the recursion M_k = m M_{k−1} + (k−1) sd² M_{k−2}
                before, here, total = mpf(0), mpf(1), coefficients[0]
                for k in range(1, len(coefficients)):
                    before, here = here, m * here + (k - 1) * sd**2 * before
                    total += coefficients[k] * here
                return total

            return value

        return Conditional(mean_of(c), mean_of(slope))
    if name in ("elu", "selu"):
        alpha, scale = map(mpf, SELU if name == "selu" else (1.0, 1.0))

        def lower(m, sd):  # E[e^v; v < 0]
            return mp.exp(m + sd**2 / 2) * mp.ncdf(-(m + sd**2) / sd)

        return Conditional(
            lambda m, sd: (
                scale * (m * mp.ncdf(m / sd) + sd * mp.npdf(m / sd) + alpha * (lower(m, sd) - mp.ncdf(-m / sd)))
            ),
            lambda m, sd: scale * (mp.ncdf(m / sd) + alpha * lower(m, sd)),
        )
    if name == "exp":
        rate = mpf(parameters["rate"])
        return Conditional(
            lambda m, sd: mp.exp(rate * m + (rate * sd) ** 2 / 2),
            lambda m, sd: rate * mp.exp(rate * m + (rate * sd) ** 2 / 2),
        )

    def gelu_value(m, sd):
        a = mp.sqrt(1 + sd**2)
        return m * mp.ncdf(m / a) + sd**2 / a * mp.npdf(m / a)

    def gelu_slope(m, sd):
        a = mp.sqrt(1 + sd**2)
        return mp.ncdf(m / a) + m / a**3 * mp.npdf(m / a)

    def gaussian_value(m, sd):
        return mp.exp(-(m**2) / (2 * (1 + sd**2))) / mp.sqrt(1 + sd**2)

    table = {
        "erf": (
            lambda m, sd: mp.erf(m / mp.sqrt(1 + 2 * sd**2)),
            lambda m, sd: 2 / mp.sqrt(mp.pi) * mp.exp(-(m**2) / (1 + 2 * sd**2)) / mp.sqrt(1 + 2 * sd**2),
        ),
        "gelu": (gelu_value, gelu_slope),
        "sin": (lambda m, sd: mp.exp(-(sd**2) / 2) * mp.sin(m), lambda m, sd: mp.exp(-(sd**2) / 2) * mp.cos(m)),
        "cos": (lambda m, sd: mp.exp(-(sd**2) / 2) * mp.cos(m), lambda m, sd: -mp.exp(-(sd**2) / 2) * mp.sin(m)),
        "gaussian": (gaussian_value, lambda m, sd: -m / (1 + sd**2) * gaussian_value(m, sd)),
    }
    return Conditional(*table[name])


def dual(name, parameters, var_u, var_v, cov, *, dps=30, count=32):
    """(E[σ(u)σ(v)], E[σ'(u)σ'(v)]) for (u, v) ~ N(0, [[var_u, cov], [cov, var_v]]), by conditioning on u.

    Arguments may be mpf; the second value is None for a step at |ρ| = 1, where it is infinite or 0.
    """
    with mp.workdps(2 * dps + 10):
        var_u, var_v, cov = mpf(var_u), mpf(var_v), mpf(cov)
        rest = var_v - cov**2 / var_u
        tilt = cov / var_u
        sd = mpf(0) if rest < mpf(10) ** (-2 * dps) * var_v else mp.sqrt(rest)
    with mp.workdps(dps):
        f, inner = function(name, parameters), conditional(name, parameters)
        su = mp.sqrt(var_u)
        kinks = [mpf(b) / su for b in f.breaks]
        edges = {mpf(k) / 2 for k in range(-24, 25)} | set(kinks)
        if tilt != 0:  # the inner mean turns within `width` of where v's mean crosses a breakpoint
            width = max(sd / abs(tilt) / su, mpf(10) ** (-dps))
            for b in f.breaks:
                point = mpf(b) / tilt / su
                edges.add(point)
                distance = width
                while distance < 1:
                    edges |= {point - distance, point + distance}
                    distance *= 3
        inside = sorted(edge for edge in edges if abs(edge) <= 12)
        # Points that differ by rounding alone would make panels of no width.
        edges = [inside[0], *(b for a, b in itertools.pairwise(inside) if b - a > mpf(10) ** (-dps + 2))]
        value = slope = mpf(0)
        for xi, weight in composite(edges, count):
            u = su * xi
            density = weight * mp.npdf(xi)
            mean = tilt * u
            value += density * f.value(u) * (inner.value(mean, sd) if sd else f.value(mean))
            if f.slope is not None:
                slope += density * f.slope(u) * (inner.slope(mean, sd) if sd else f.slope(mean))
        if f.slope is not None:
            return value, slope
        if not sd:
            return value, None
        s, levels = step_of(name, parameters)
        jumps = [mpf(b) - mpf(a) for a, b in itertools.pairwise(levels)]
        for a, jump_u in zip(s, jumps, strict=True):  # σ'(u) is a sum of point masses: condition on u = s_i
            at = mp.npdf(mpf(a), 0, su)
            slope += jump_u * at * mp.fsum(d * mp.npdf(mpf(b), tilt * a, sd) for d, b in zip(jumps, s, strict=True))
        return value, slope


def exact_gram(x, y):
    """Norms squared and inner product of two float vectors, as exact as the working precision."""
    x, y = [mpf(float(value)) for value in x], [mpf(float(value)) for value in y]
    return mp.fdot(x, x), mp.fdot(y, y), mp.fdot(x, y)


def dual_in_floats(value, slope, var_u, var_v, cov):
    """The same two means of a smooth σ by a product rule over u and the independent part of v, in float64."""
    edges = np.linspace(-11.0, 11.0, 45)
    x, w = np.polynomial.legendre.leggauss(16)
    half = 0.5 * np.diff(edges)[:, None]
    nodes = (0.5 * (edges[1:] + edges[:-1])[:, None] + half * x).reshape(-1)
    weights = (half * w).reshape(-1) * np.exp(-0.5 * nodes**2) / math.sqrt(2.0 * math.pi)
    u = math.sqrt(var_u) * nodes
    v = cov / math.sqrt(var_u) * nodes[:, None] + math.sqrt(max(0.0, var_v - cov**2 / var_u)) * nodes
    return tuple(float(weights * f(u) @ (f(v) @ weights)) for f in (value, slope))


# Kernel recursions


def numpy_recursion(gram, kinds, *, weight_std=1.0, bias_std=0.0, centres=None):
    """(CK, NTK) by the textbook formulas of "relu" and "erf" layers; square `gram`, accurate away from |ρ| = 1."""
    ntk = weight_std**2 * gram + bias_std**2
    kernel = gram
    for layer, kind in enumerate(kinds):
        cov = weight_std**2 * kernel + bias_std**2
        q = np.diag(cov)
        scale = np.sqrt(np.outer(q, q))
        centre = 0.0 if centres is None else centres[layer]
        if kind == "relu":
            angle = np.arccos(np.clip(cov / scale, -1.0, 1.0))
            kernel = scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2.0 * np.pi)
            slope = (np.pi - angle) / (2.0 * np.pi)
            mean = np.sqrt(q / (2.0 * np.pi))
            kernel = kernel - centre * (mean[:, None] + mean[None, :]) + centre**2
        else:
            bottom = np.sqrt(np.outer(1.0 + 2.0 * q, 1.0 + 2.0 * q))
            kernel = 2.0 / np.pi * np.arcsin(2.0 * cov / bottom)
            slope = 4.0 / np.pi / np.sqrt(bottom**2 - 4.0 * cov**2)
        ntk = weight_std**2 * kernel + bias_std**2 + weight_std**2 * ntk * slope
    return kernel, ntk


def relu_centres(depth, tau0, *, weight_std=1.0, bias_std=0.0, centered=True):
    """Means of ReLU at the population scale of every layer."""
    centres, tau_sq = [], tau0**2
    for _ in range(depth):
        q = weight_std**2 * tau_sq + bias_std**2
        centre = math.sqrt(q / (2.0 * math.pi)) if centered else 0.0
        centres.append(centre)
        tau_sq = q * (0.5 - 1.0 / (2.0 * math.pi)) if centered else q / 2.0
    return centres


def mp_layer(name, parameters, qu, qv, c):
    """Textbook closed forms at the working precision: (E[σσ], E[σ'σ'], E[σ(u)], E[σ(v)]); 1 − ρ² must be exact."""
    su, sv = mp.sqrt(qu), mp.sqrt(qv)
    sides = slopes_of(name, parameters)
    if not su * sv:
        if name == "erf":
            return mpf(0), 4 / mp.pi / mp.sqrt((1 + 2 * qu) * (1 + 2 * qv)), mpf(0), mpf(0)
        both = su + sv
        mean = (mpf(sides[0]) + mpf(sides[1])) / mp.sqrt(2 * mp.pi)
        return mpf(0), None, mean * su if both else mpf(0), mean * sv if both else mpf(0)
    rho = max(mpf(-1), min(mpf(1), c / (su * sv)))
    if name == "sign":
        root = mp.sqrt(1 - rho * rho)
        return 2 / mp.pi * mp.asin(rho), mp.inf if not root else 2 / mp.pi / (su * sv * root), mpf(0), mpf(0)
    if name == "erf":
        bottom = mp.sqrt((1 + 2 * qu) * (1 + 2 * qv))
        return 2 / mp.pi * mp.asin(2 * c / bottom), 4 / mp.pi / mp.sqrt(bottom**2 - 4 * c**2), mpf(0), mpf(0)
    alpha, beta = map(mpf, sides)
    angle = mp.acos(rho)
    same = su * sv * (mp.sin(angle) + (mp.pi - angle) * rho) / (2 * mp.pi)  # E[u⁺ v⁺] = E[u⁻ v⁻]
    other = su * sv * (mp.sin(angle) - angle * rho) / (2 * mp.pi)  # E[u⁺ v⁻]
    value = (alpha**2 + beta**2) * same + 2 * alpha * beta * other
    slope = ((alpha**2 + beta**2) * (mp.pi - angle) - 2 * alpha * beta * angle) / (2 * mp.pi)
    mean = (alpha + beta) / mp.sqrt(2 * mp.pi)
    return value, slope, mean * su, mean * sv


def mp_recursion(layers, x, *, tau0=None, centered=True, weight_std=1.0, bias_std=0.0, dps=50):
    """(CK, NTK) of homogeneous, erf and sign layers, lists of lists of mpf, from the exact float rows `x`.

    `layers` is a list of (name, parameters). Symmetric networks only: one recursion a pair of rows, each carrying its
    own 2×2 block, in twice the digits so that 1 − ρ² of near duplicates is known.
    """
    with mp.workdps(2 * dps + 20):
        rows = [[mpf(float(value)) for value in row] for row in x]
        n = len(rows)
        gram = [[mp.fdot(a, b) for b in rows] for a in rows]
        w2, b2 = mpf(weight_std) ** 2, mpf(bias_std) ** 2
        tau_sq = mp.fsum(gram[i][i] for i in range(n)) / n if tau0 is None else mpf(tau0) ** 2
        centres = []
        for name, parameters in layers:
            q = w2 * tau_sq + b2
            value, _, mean, _ = mp_layer(name, parameters, q, q, q)
            centres.append(mean if centered else mpf(0))
            tau_sq = value - centres[-1] * (2 * mean - centres[-1])
        ck = [[mpf(0)] * n for _ in range(n)]
        ntk = [[mpf(0)] * n for _ in range(n)]
        for i in range(n):
            for j in range(i, n):
                qu, qv, c = gram[i][i], gram[j][j], gram[i][j]
                theta = w2 * c + b2
                kernel = c
                for (name, parameters), centre in zip(layers, centres, strict=True):
                    block = [w2 * value + b2 for value in (qu, qv, c)]
                    kernel, slope, mean_u, mean_v = mp_layer(name, parameters, *block)
                    kernel += centre * (centre - mean_u - mean_v)
                    below = mpf(0) if slope is None or theta == 0 else theta * slope
                    theta = w2 * kernel + b2 + w2 * below
                    c = kernel
                    qu, qv = (
                        mp_layer(name, parameters, q, q, q)[0] + centre * (centre - 2 * mean)
                        for q, mean in ((block[0], mean_u), (block[1], mean_v))
                    )
                ck[i][j] = ck[j][i] = kernel
                ntk[i][j] = ntk[j][i] = theta
        return ck, ntk


def to_floats(matrix):
    return np.array([[float(value) for value in row] for row in matrix])


# Functions of the smooth family in float64, for `dual_in_floats`

FLOAT_FUNCTIONS = {
    "tanh": (np.tanh, lambda t: 1.0 / np.cosh(t) ** 2),
    "sigmoid": (special.expit, lambda t: special.expit(t) * special.expit(-t)),
    "softplus": (lambda t: np.logaddexp(0.0, t), special.expit),
    "silu": (lambda t: t * special.expit(t), lambda t: special.expit(t) * (1.0 + t * special.expit(-t))),
}
