r"""Gaussian moments in closed form, one function per family, each for a vector of scales τ.

No formula subtracts what nearly agrees: differences are written as products (1 − e^{−q} through expm1, 1/u − 1/w
through w² − u²), quotients of large squares through hypot. `docs/activations.md` says where the formulas come from.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rmtntk._activation import Activation
from rmtntk._typing import FloatArray
from rmtntk.errors import AccuracyError

__all__ = [
    "CLOSED_FORMS",
    "CLOSED_FORM_ERROR",
    "EPS",
    "MomentArrays",
    "closed_error",
    "hermite_polynomial_coefficients",
    "over",
    "polynomial_series",
    "sine_cosine",
    "slopes",
]

EPS = float(np.finfo(np.float64).eps)
CLOSED_FORM_ERROR = 64.0 * EPS
_SQRT_PI = math.sqrt(math.pi)
_SQRT_2PI = math.sqrt(2.0 * math.pi)


class MomentArrays(NamedTuple):
    """The fields of :class:`rmtntk.moments.Moments` for a vector of scales τ, each of shape (n,)."""

    mean: FloatArray
    d1: FloatArray
    d2: FloatArray
    d3: FloatArray
    variance: FloatArray
    d1_squared: FloatArray
    half_d2_squared: FloatArray
    second: FloatArray
    error: FloatArray


def closed_error(tau: FloatArray) -> FloatArray:
    """Bound that closed forms meet."""
    return np.full_like(tau, CLOSED_FORM_ERROR)


def over(value: FloatArray | float, tau: FloatArray) -> FloatArray:
    """Value / τ, and 0 where τ = 0."""
    return np.divide(value, tau, out=np.zeros_like(tau), where=tau > 0.0)


def _product(a: FloatArray | float, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Dekker's product: a · b as the sum of two floats, the second 0 where the first overflows."""
    a = np.asarray(a)
    high = a * b
    a_high, b_high = 134217729.0 * a, 134217729.0 * b  # 2^27 + 1
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    low = ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low
    return high, np.where(np.isfinite(low), low, 0.0)


def _times_square(rate: float, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return rate · τ² to twice the digits."""
    square, square_low = _product(tau, tau)
    high, low = _product(rate, square)
    return high, low + rate * square_low


# Homogeneous, error function, GELU


def slopes(act: Activation) -> tuple[float, float]:
    """Return (α, β) of a homogeneous activation α max(t, 0) + β max(−t, 0)."""
    alpha, beta = act.constants
    return alpha, beta


def _homogeneous(act: Activation, tau: FloatArray) -> MomentArrays:
    alpha, beta = act.constants
    half = 0.5 * (alpha**2 + beta**2)
    spread = half - (alpha + beta) ** 2 / (2.0 * math.pi)  # at least (1 − 2/π) of `half`
    one = np.ones_like(tau)
    return MomentArrays(
        mean=(alpha + beta) / _SQRT_2PI * tau,
        d1=0.5 * (alpha - beta) * one,
        d2=over((alpha + beta) / _SQRT_2PI, tau),
        d3=np.zeros_like(tau),  # the third derivative is (α + β) δ', odd
        variance=spread * tau**2,
        d1_squared=half * one,
        half_d2_squared=spread * one,
        second=half * tau**2,
        error=closed_error(tau),
    )


def _erf(act: Activation, tau: FloatArray) -> MomentArrays:
    # E[erf(pξ)²] = (2/π) asin(2p²/(1+2p²)); its derivative in p² is g, because the mean does not depend on p.
    outer, rate, offset = act.constants
    p = math.fabs(rate) * tau
    root, other = np.hypot(1.0, 2.0 * p), np.hypot(1.0, math.sqrt(2.0) * p)
    variance = 2.0 / math.pi * outer**2 * np.arctan(p * (2.0 * p / root))
    slope = 2.0 / _SQRT_PI * outer * rate
    return MomentArrays(
        mean=np.full_like(tau, offset),
        d1=slope / other,
        d2=np.zeros_like(tau),
        d3=-2.0 * slope * (rate / other) ** 2 / other,
        variance=variance,
        d1_squared=slope**2 / root,
        half_d2_squared=slope**2 / root / other / other,
        second=variance + offset**2,
        error=closed_error(tau),
    )


def _gelu(act: Activation, tau: FloatArray) -> MomentArrays:
    # With q = τ², a² = 1 + q, r² = 1 + 2q, θ = asin(q/a²):
    # E[σ²]/q = B = ¼ + θ/2π + q/(π a² r), E[σ'²] = ¼ + θ/2π + (q/r² + 2q/a²)/(2π r), and g = (qB)' − E[σ]E[σ''].
    a, r = np.hypot(1.0, tau), np.hypot(1.0, math.sqrt(2.0) * tau)
    share, half_share = (tau / a) ** 2, (tau / r) ** 2
    base = 0.25 + np.arctan(tau * (tau / r)) / (2.0 * math.pi)
    b = base + share / (math.pi * r)
    inverse = (1.0 / a) ** 2
    slope = b + share / (2.0 * math.pi * r) + half_share / (math.pi * r) * (inverse - share**2)
    return MomentArrays(
        mean=tau * (tau / a) / _SQRT_2PI,
        d1=np.full_like(tau, 0.5),
        d2=(1.0 + inverse) / a / _SQRT_2PI,
        d3=np.zeros_like(tau),  # σ'' is even
        variance=tau**2 * (b - share / (2.0 * math.pi)),  # loses a third at most
        d1_squared=base + (half_share + 2.0 * share) / (2.0 * math.pi * r),
        half_d2_squared=slope - share * (1.0 + inverse) / (2.0 * math.pi),
        second=tau**2 * b,
        error=closed_error(tau),
    )


# Sines, exponentials


def sine_cosine(phase: float) -> tuple[float, float]:
    """(sin φ, cos φ), with exact zeros at multiples of π/2: there φ is a rounded float but means the multiple."""
    quarter = round(phase / (0.5 * math.pi))
    if math.fabs(phase - quarter * 0.5 * math.pi) <= 4.0 * EPS * math.fabs(phase):
        return ((0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0))[quarter % 4]
    return math.sin(phase), math.cos(phase)


def _trig(act: Activation, tau: FloatArray) -> MomentArrays:
    # E[e^{i(fτξ + φ)}] = e^{iφ − q/2} with q = (fτ)²; squares through the double angle, sin²φ and cos²φ apart.
    amplitude, frequency, phase = act.constants
    s, c = sine_cosine(phase)
    q = (frequency * tau) ** 2
    decay = np.exp(-0.5 * q)
    lost, lost_twice = -np.expm1(-q), -np.expm1(-2.0 * q)
    power, slope_power = 0.5 * amplitude**2, 0.5 * (amplitude * frequency) ** 2
    return MomentArrays(
        mean=amplitude * s * decay,
        d1=amplitude * frequency * c * decay,
        d2=-amplitude * frequency**2 * s * decay,
        d3=-amplitude * frequency**3 * c * decay,
        variance=power * (c**2 * lost_twice + s**2 * lost**2),
        d1_squared=slope_power * (c**2 * (2.0 - lost_twice) + s**2 * lost_twice),
        half_d2_squared=2.0 * slope_power * (c**2 * np.exp(-2.0 * q) + s**2 * np.exp(-q) * lost),
        second=power * (c**2 * lost_twice + s**2 * (2.0 - lost_twice)),
        error=closed_error(tau),
    )


def _exponential(act: Activation, tau: FloatArray) -> MomentArrays:
    # E[e^{rτξ}] = e^{q/2}, q = (rτ)² kept to twice the digits: e^{2q} would magnify its rounding by 2q.
    amplitude, rate = act.constants
    p, p_low = _product(rate, tau)
    q, q_low = _product(p, p)
    q_low = q_low + 2.0 * p * p_low
    once = np.exp(q) * (1.0 + q_low)
    less_one = np.expm1(q) + np.exp(q) * q_low
    mean = amplitude * np.exp(0.5 * q) * (1.0 + 0.5 * q_low)
    second = amplitude**2 * np.exp(2.0 * q) * (1.0 + 2.0 * q_low)
    return MomentArrays(
        mean=mean,
        d1=rate * mean,
        d2=rate**2 * mean,
        d3=rate**3 * mean,
        variance=amplitude**2 * once * less_one,
        d1_squared=rate**2 * second,
        half_d2_squared=(amplitude * rate) ** 2 * once * (1.0 + 2.0 * less_one),  # r²(2 E[σ²] − m²)
        second=second,
        # g is 2q times its unit E[σ²]/τ² where q is large
        error=closed_error(tau) * np.maximum(1.0, 0.125 * q),
    )


def _gaussian(act: Activation, tau: FloatArray) -> MomentArrays:
    # With q = aτ², w = 1 − 2q, u² = 1 − 4q: E[σ] = A/√w, E[σ²] = A²/u, E[σ'²] = (2aτA)²/u³; differences by
    # w² − u² = 4q² and w² − u³ = q(1 + u + 3u² − u³)/(1 + u).
    amplitude, rate = act.constants
    if rate < 0.0:
        p = math.sqrt(-rate) * tau
        u, root = np.hypot(1.0, 2.0 * p), np.hypot(1.0, math.sqrt(2.0) * p)
        y = -((p / root) ** 2)
    else:
        q, q_low = _times_square(rate, tau)
        u_squared = (1.0 - 4.0 * q) - 4.0 * q_low
        if (u_squared <= 0.0).any():
            worst = float(tau[np.argmin(u_squared)])
            raise AccuracyError(
                f"the activation {act} has no finite E[σ²] at scale τ = {worst:.6g}: `rate` must be below "
                f"1/(4 τ²) = {0.25 / worst**2:.6g}, got {rate:.6g}",
                math.inf,
            )
        u, root = np.sqrt(u_squared), np.sqrt(1.0 - 2.0 * q)
        y = q / root**2
    power = amplitude**2
    inverse = 1.0 / u
    return MomentArrays(
        mean=amplitude / root,
        d1=np.zeros_like(tau),
        d2=2.0 * amplitude * (rate / root / root) / root,
        d3=np.zeros_like(tau),
        variance=4.0 * power * y**2 * inverse / (1.0 + u / root / root),
        d1_squared=power * (2.0 * rate * tau * inverse) ** 2 * inverse,
        half_d2_squared=2.0 * power * (rate / root / root) * y / (1.0 + u)
        * (((inverse + 1.0) * inverse + 3.0) * inverse - 1.0),
        second=power * inverse,
        error=closed_error(tau),
    )  # fmt: skip


# Powers


def _half_moment(k: int) -> float:
    """E[max(ξ, 0)^k] = 2^{k/2 − 1} Γ((k+1)/2)/√π."""
    return 2.0 ** (0.5 * k - 1.0) * math.gamma(0.5 * (k + 1)) / _SQRT_PI


def _rectified(act: Activation, tau: FloatArray) -> MomentArrays:
    k = int(act.constants[0])
    m, second = _half_moment(k), _half_moment(2 * k)
    # the third derivative of max(t, 0)² is 2δ
    d3 = over(2.0 / _SQRT_2PI, tau) if k == 2 else k * (k - 1) * (k - 2) * _half_moment(k - 3) * tau ** (k - 3)
    return MomentArrays(
        mean=m * tau**k,
        d1=k * _half_moment(k - 1) * tau ** (k - 1),
        d2=k * (k - 1) * _half_moment(k - 2) * tau ** (k - 2),
        d3=d3,
        variance=(second - m**2) * tau ** (2 * k),
        d1_squared=k**2 * _half_moment(2 * k - 2) * tau ** (2 * k - 2),
        half_d2_squared=k * (second - m**2) * tau ** (2 * k - 2),  # k times the variance over τ²: both scale alike
        second=second * tau ** (2 * k),
        error=closed_error(tau),
    )


def _exp_normalized(act: Activation, tau: FloatArray) -> MomentArrays:
    # K = q e^{γ(ρ+s)} is a Mehler series with c_k² = q e^{γs} γ^k/k!; E[σ^(k)] = √(k!) c_k/τ^k as for any function.
    # g is what d/dτ² of the variance is at fixed m, the role it has in the recursion.
    gamma, shift = act.constants
    base = math.exp(0.5 * gamma * shift)
    top = math.exp(gamma * (1.0 + shift))
    spread = -math.expm1(-gamma) * top
    one = np.ones_like(tau)
    return MomentArrays(
        mean=base * tau,
        d1=base * math.sqrt(gamma) * one,
        d2=over(base * gamma, tau),
        d3=over(over(base * gamma**1.5, tau), tau),
        variance=spread * tau**2,
        d1_squared=gamma * top * one,
        half_d2_squared=spread * one,
        second=top * tau**2,
        error=closed_error(tau) + 4.0 * EPS * gamma * (1.0 + math.fabs(shift)),  # rounding of the exponents
    )


def hermite_polynomial_coefficients(coefficients: FloatArray, tau: FloatArray) -> FloatArray:
    r"""Orthonormal Hermite coefficients of Σ c_j (τξ)^j, shape (n, degree + 1).

    E[ξ^j he_k(ξ)] = j! / (2^i i!) / √k! with i = (j − k)/2, where j − k is even and not negative.
    """
    degree = len(coefficients) - 1
    out = np.zeros((len(tau), degree + 1))
    for k in range(degree + 1):
        for j in range(k, degree + 1, 2):
            if coefficients[j] == 0.0:  # 0 · τ^j is 0 also where the power overflows
                continue
            i = (j - k) // 2
            weight = math.factorial(j) / (2**i * math.factorial(i) * math.sqrt(math.factorial(k)))
            out[:, k] += coefficients[j] * weight * tau**j
    return out


def _hermite_series(degree: int, tau: FloatArray) -> FloatArray:
    r"""Orthonormal Hermite coefficients of he_degree(τξ), shape (n, degree + 1): one term each, nothing cancels.

    c_k = (τ² − 1)^i τ^k √(degree!/k!) / (2^i i!), i = (degree − k)/2.
    """
    out = np.zeros((len(tau), degree + 1))
    for i in range(degree // 2 + 1):
        k = degree - 2 * i
        weight = math.sqrt(math.factorial(degree) / math.factorial(k)) / (2**i * math.factorial(i))
        out[:, k] = weight * ((tau - 1.0) * (tau + 1.0)) ** i * tau**k
    return out


def polynomial_series(act: Activation, tau: FloatArray) -> FloatArray:
    """Return all orthonormal Hermite coefficients of an activation of the family ``polynomial``, (n, degree + 1)."""
    if act.name == "hermite":
        return _hermite_series(len(act.constants) - 1, tau)
    return hermite_polynomial_coefficients(np.array(act.constants), tau)


def _polynomial(act: Activation, tau: FloatArray) -> MomentArrays:
    if act.name == "hermite":  # he_n' = √n he_{n−1}
        n = len(act.constants) - 1
        series = [
            math.sqrt(math.perm(n, m)) * _hermite_series(n - m, tau) if m <= n else np.zeros((len(tau), 1))
            for m in range(4)
        ]
        error = closed_error(tau)
    else:
        coefficients = np.array(act.constants)
        derivatives = [np.polynomial.polynomial.polyder(coefficients, m) for m in range(4)]
        series = [hermite_polynomial_coefficients(part, tau) for part in derivatives]
        error = CLOSED_FORM_ERROR * _loss(derivatives[:2], series[:2], tau)
    h, h_first, h_second, h_third = series
    width = h_second.shape[1]
    d1_squared = (h_first**2).sum(axis=1)
    return MomentArrays(
        mean=h[:, 0],
        d1=h_first[:, 0],
        d2=h_second[:, 0],
        d3=h_third[:, 0],
        variance=(h[:, 1:] ** 2).sum(axis=1),
        d1_squared=d1_squared,
        # ½((σ−m)²)'' = σ'² + (σ−m)σ''
        half_d2_squared=d1_squared + (h[:, 1:width] * h_second[:, 1:]).sum(axis=1),
        second=(h**2).sum(axis=1),
        error=error,
    )


def _loss(parts: list[FloatArray], series: list[FloatArray], tau: FloatArray) -> FloatArray:
    """What rounding is magnified by where monomials of both signs cancel in a coefficient."""
    loss = np.ones_like(tau)
    for coefficients, h in zip(parts, series, strict=True):
        size = hermite_polynomial_coefficients(np.abs(coefficients), tau)
        unit = np.sqrt((h**2).sum(axis=1))
        ratio = np.divide(np.sqrt((size**2).sum(axis=1)), unit, out=np.ones_like(tau), where=unit > 0.0)
        loss = np.maximum(loss, ratio)
    return loss


CLOSED_FORMS: dict[str, Callable[[Activation, FloatArray], MomentArrays]] = {
    "homogeneous": _homogeneous,
    "erf": _erf,
    "gelu": _gelu,
    "trig": _trig,
    "exponential": _exponential,
    "gaussian": _gaussian,
    "rectified": _rectified,
    "exp_normalized": _exp_normalized,
    "polynomial": _polynomial,
}
