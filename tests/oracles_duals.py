"""Deep kernels of pairs of rows in mpmath, from the textbook formulas at 60 digits: nothing here imports the package.

The formulas are the printed ones (Williams; Cho and Saul; Tsuchida et al.; Isserlis), not the rearranged ones of the
loops, whose cancellations 60 digits outlast: gaps down to 1e-30 and norms up to 1e150 need 30 of them at most for
the difference that matters. They are compared with quadrature in ``test_extremes.py``.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from mpmath import mp, mpf

DIGITS = 60


class Layer(NamedTuple):
    """`mean(λ)`, and `dual(λ_u, λ_v, ρ)` with E[f_u f_v] and E[f'_u f'_v] (inf for jumps at ρ = ±1)."""

    mean: Callable
    dual: Callable


class Pair(NamedTuple):
    """CK, NTK, and their natural units: geometric means of diagonals, the larger of those with and without centring."""

    ck: mpf
    ntk: mpf
    ck_unit: mpf
    ntk_unit: mpf
    centred_unit: mpf


def homogeneous(a, b):
    """A min(t, 0) + b max(t, 0)."""
    a, b = mpf(a), mpf(b)

    def dual(u, v, rho):
        t = mp.acos(rho)
        same, other = (mp.sin(t) + (mp.pi - t) * rho) / (2 * mp.pi), (mp.sin(t) - t * rho) / (2 * mp.pi)
        slope = ((a * a + b * b) * (mp.pi - t) + 2 * a * b * t) / (2 * mp.pi)
        return u * v * ((a * a + b * b) * same - 2 * a * b * other), slope

    return Layer(lambda u: (b - a) * u / mp.sqrt(2 * mp.pi), dual)


def erf(outer, rate, offset):
    outer, rate, offset = mpf(outer), mpf(rate), mpf(offset)

    def dual(u, v, rho):
        a, b, c = (2 * rate**2 * value for value in (u * u, v * v, u * v * rho))
        both = (1 + a) * (1 + b)
        value = outer**2 * 2 / mp.pi * mp.asin(c / mp.sqrt(both)) + offset**2
        return value, outer**2 * rate**2 * 4 / mp.pi / mp.sqrt(both - c * c)

    return Layer(lambda u: offset, dual)


def trig(amplitude, frequency, phase):
    """A sin(f t + φ), φ as sine and cosine."""
    amplitude, f = mpf(amplitude), mpf(frequency)
    s, c = phase

    def dual(u, v, rho):
        half = f * f * (u * u + v * v) / 2
        cov = f * f * u * v * rho
        up, down = mp.exp(cov - half), mp.exp(-cov - half)
        twice = c * c - s * s
        return amplitude**2 * (up - twice * down) / 2, (amplitude * f) ** 2 * (up + twice * down) / 2

    return Layer(lambda u: amplitude * s * mp.exp(-((f * u) ** 2) / 2), dual)


def exponential(amplitude, rate):
    amplitude, rate = mpf(amplitude), mpf(rate)

    def dual(u, v, rho):
        value = amplitude**2 * mp.exp(rate**2 * (u * u + v * v + 2 * u * v * rho) / 2)
        return value, rate**2 * value

    return Layer(lambda u: amplitude * mp.exp((rate * u) ** 2 / 2), dual)


def gaussian(amplitude, rate):
    """A e^{a t²}."""
    amplitude, a = mpf(amplitude), mpf(rate)

    def dual(u, v, rho):
        c = u * v * rho
        bottom = (1 - 2 * a * u * u) * (1 - 2 * a * v * v) - 4 * a * a * c * c
        return amplitude**2 / mp.sqrt(bottom), amplitude**2 * 4 * a * a * c / bottom ** mpf(1.5)

    return Layer(lambda u: amplitude / mp.sqrt(1 - 2 * a * u * u), dual)


def gelu():
    def dual(u, v, rho):
        a, b, c = u * u, v * v, u * v * rho
        p = (1 + a) * (1 + b)
        d = mp.sqrt(p - c * c)
        angle = mp.atan(c / d)
        value = c / 4 + (c * angle + (c * c + a * b * d * d) / (p * d)) / (2 * mp.pi)
        # by parts from E[Φ Φ] = ¼ + atan(c/d)/2π: E[σ'σ'] = ∂/∂c of the value at fixed a, b
        slope = mpf(1) / 4 + (angle + c / d) / (2 * mp.pi)
        top, bottom = c * c + a * b * d * d, p * d
        slope += ((2 * c - 2 * a * b * c) / bottom + top * c / (bottom * d * d)) / (2 * mp.pi)
        return value, slope

    return Layer(lambda u: u * u / mp.sqrt(2 * mp.pi * (1 + u * u)), dual)


@cache
def arc_cosine(n):
    """J_n = P(c) s + Q(c) (π − θ) from (−1)^n s^{2n+1} ((1/s) d/dθ)^n (π − θ)/s (Cho and Saul 2009); P, Q."""
    q, p = [1], []  # over s^{2n+1}: Q (π − θ) + P s
    for k in range(n):
        power = 2 * k + 1
        q_next = _plus(_times(_slope(q), [1, 0, -1]), _times(q, [0, power]))
        p_next = _plus(q, _times(_slope(p), [1, 0, -1]), _times(p, [0, power - 1]))
        q, p = q_next, p_next
    return p, q


def _slope(a):
    return [k * a[k] for k in range(1, len(a))]


def _times(a, b):
    out = [0] * (len(a) + len(b))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def _plus(*parts):
    return [sum(part[k] for part in parts if k < len(part)) for k in range(max(map(len, parts)))]


def _value(coefficients, x):
    return sum((c * x**k for k, c in enumerate(coefficients)), mpf(0))


def rectified(degree):
    def order(n, rho):
        p, q = arc_cosine(n)
        t = mp.acos(rho)
        return (_value(p, rho) * mp.sin(t) + _value(q, rho) * (mp.pi - t)) / (2 * mp.pi)

    def dual(u, v, rho):
        return (u * v) ** degree * order(degree, rho), degree**2 * (u * v) ** (degree - 1) * order(degree - 1, rho)

    half = mpf(degree + 1) / 2
    return Layer(lambda u: u**degree * mpf(2) ** (mpf(degree) / 2 - 1) * mp.gamma(half) / mp.sqrt(mp.pi), dual)


def exp_normalized(gamma, shift):
    gamma, shift = mpf(gamma), mpf(shift)

    def dual(u, v, rho):
        value = mp.exp(gamma * (rho + shift))
        return u * v * value, gamma * value

    return Layer(lambda u: u * mp.exp(gamma * shift / 2), dual)


def polynomial(coefficients):
    """Sums of Isserlis' E[u^i v^j], which holds Σ_k i! j!/(k! m! n! 2^{m+n}) a^m b^n c^k, m = (i−k)/2, n = (j−k)/2."""
    slopes = [k * c for k, c in enumerate(coefficients)][1:]

    def product(left, u, v, rho):
        total = mpf(0)
        for i, x in enumerate(left):
            for j, y in enumerate(left):
                if x == 0 or y == 0 or (i - j) % 2:
                    continue
                for k in range(i % 2, min(i, j) + 1, 2):
                    m, n = (i - k) // 2, (j - k) // 2
                    ways = mp.factorial(i) * mp.factorial(j) / (mp.factorial(k) * mp.factorial(m) * mp.factorial(n))
                    total += x * y * ways / 2 ** (m + n) * u**i * v**j * rho**k
        return total

    def dual(u, v, rho):
        return product(coefficients, u, v, rho), product(slopes, u, v, rho)

    return Layer(lambda u: sum(c * u**i * mp.fac2(i - 1) for i, c in enumerate(coefficients) if i % 2 == 0), dual)


def hermite(degree):
    with mp.workdps(DIGITS):
        before, current = [mpf(1)], [mpf(0), mpf(1)]
        for k in range(1, degree):
            before, current = current, _plus([0, *current], [-k * x for x in before])
        return polynomial([x / mp.sqrt(mp.factorial(degree)) for x in current])


def jump(low, high):
    """A single jump at 0."""
    low, high = mpf(low), mpf(high)

    def dual(u, v, rho):
        t = mp.acos(rho)
        value = ((low * low + high * high) * (mp.pi - t) + 2 * low * high * t) / (2 * mp.pi)
        sine = mp.sqrt((1 - rho) * (1 + rho))
        return value, (high - low) ** 2 / (2 * mp.pi * u * v * sine) if sine else mp.inf

    return Layer(lambda u: (low + high) / 2, dual)


def step(thresholds, levels):
    """Jumps anywhere: tails of the normal law, and Plackett's integral between ρ = 0 and asin ρ."""
    jumps = [mpf(b) - mpf(a) for a, b in itertools.pairwise(levels)]

    def upper(h):
        return mp.ncdf(-h)

    def plackett(h, k, rho):
        """P(u ≥ h, v ≥ k) − P(u ≥ h) P(v ≥ k)."""
        if rho == 1:
            return upper(max(h, k)) - upper(h) * upper(k)
        if rho == -1:
            return max(mpf(0), upper(h) + upper(k) - 1) - upper(h) * upper(k)
        side = mp.sign(rho)
        if abs(rho) > 0.5:  # from ±1 on, over the angle to it, graded: the integrand lives on all scales of that
            start, top = plackett(h, k, side), mp.acos(abs(rho))

            def near(t):
                if t == 0:
                    return mp.exp(-h * h / 2) if h == side * k else mpf(0)
                sine = mp.sin(t)
                return mp.exp(-((h - side * k) ** 2) / (2 * sine**2) - side * h * k / (1 + mp.cos(t)))

            apart = abs(h - side * k) / 8  # below this angle there is nothing
            count = min(60, 1 + max(0, int(mp.log(top / apart, 4)))) if 0 < apart < top else 1
            edges = [mpf(0), *(top * mpf(4) ** -n for n in range(count, -1, -1))]
            with mp.workdps(30):
                return start - side * mp.quad(near, edges, method="gauss-legendre") / (2 * mp.pi)
        angle = mp.asin(rho)

        def inside(t):
            return mp.exp(-(h * h - 2 * h * k * mp.sin(t) + k * k) / (2 * mp.cos(t) ** 2))

        with mp.workdps(30):
            return mp.quad(inside, [0, angle], method="gauss-legendre") / (2 * mp.pi) if angle else mpf(0)

    def mean(u):
        return mpf(levels[0]) + sum(d * upper(mpf(s) / u) for d, s in zip(jumps, thresholds, strict=True))

    def dual(u, v, rho):
        total, slope = mean(u) * mean(v), mpf(0)
        for d, s in zip(jumps, thresholds, strict=True):
            for e, r in zip(jumps, thresholds, strict=True):
                h, k = mpf(s) / u, mpf(r) / v
                total += d * e * plackett(h, k, rho)
                sine_sq = (1 - rho) * (1 + rho)
                if sine_sq:
                    inner = (h * h - 2 * rho * h * k + k * k) / (2 * sine_sq)
                    slope += d * e * mp.exp(-inner) / (2 * mp.pi * u * v * mp.sqrt(sine_sq))
                else:
                    slope = mp.inf
        return total, slope

    return Layer(mean, dual)


def sine_cosine(quarters=0, phase=0.0):
    """(sin φ, cos φ), a multiple of π/2 given as such."""
    exact = ((0, 1), (1, 0), (0, -1), (-1, 0))[quarters % 4]
    return tuple(map(mpf, exact)) if phase == 0.0 else (mp.sin(mpf(phase)), mp.cos(mpf(phase)))


def kernel(layers, x, y, tau0, *, weight_std=1.0, bias_std=0.0, centered=True):
    """CK and NTK of two rows of floats, K_0 = x·y."""
    # two rows of norm s lose 4 log10 s digits at ρ = ±1 in (1 + a)(1 + b) − c², as many at small s in 1 − e^{−a} …
    sizes = [abs(float(value)) for value in (*x, *y) if value]
    digits = DIGITS + int(4 * max((abs(math.log10(size)) for size in (min(sizes), max(sizes))), default=0.0))
    with mp.workdps(digits):
        w2, b2 = mpf(weight_std) ** 2, mpf(bias_std) ** 2
        quu, qvv, quv = (w2 * mp.fdot(s, t) + b2 for s, t in ((x, x), (y, y), (x, y)))
        scale2 = w2 * mpf(tau0) ** 2 + b2
        ntk, unit = quv, mp.sqrt(quu * qvv)
        for layer in layers:
            u, v, one = mp.sqrt(quu), mp.sqrt(qvv), mp.sqrt(scale2)
            rho = quv / (u * v)
            if abs(abs(rho) - 1) < mpf(10) ** (8 - digits):  # parallel: rounding of the 60 digits
                rho = mp.sign(rho)
            centre = layer.mean(one) if centered else mpf(0)
            value, slope = layer.dual(u, v, rho)
            uu, du = layer.dual(u, u, mpf(1))
            vv, dv = layer.dual(v, v, mpf(1))
            tt, _ = layer.dual(one, one, mpf(1))
            mu, mv = layer.mean(u), layer.mean(v)
            ck = value - centre * (mu + mv) + centre**2
            ckuu, ckvv = uu - 2 * centre * mu + centre**2, vv - 2 * centre * mv + centre**2
            ck_unit = mp.sqrt(max(uu, ckuu) * max(vv, ckvv))
            quu, qvv, quv = w2 * ckuu + b2, w2 * ckvv + b2, w2 * ck + b2
            scale2 = w2 * (tt - centre**2) + b2
            if du == mp.inf:  # E[σ'σ'] ∝ 1/sin t, and an angle is known to eps
                du = dv = abs(slope) / mp.sin(mp.acos(rho)) if slope != mp.inf else mp.inf
            unit = w2 * ck_unit + b2 + w2 * unit * mp.sqrt(du * dv)
            ntk = quv + w2 * ntk * slope
        return Pair(ck, ntk, ck_unit, unit, mp.sqrt((uu - mu**2) * (vv - mv**2)))


def units(value: float | mpf, reference: mpf, unit: mpf) -> float:
    """|value − reference| in units of eps · unit."""
    if not mp.isfinite(value):
        return math.inf
    with mp.workdps(DIGITS):
        return float(abs(mpf(value) - reference) / unit / mpf(2) ** -52)
