r"""Gaussian moments of an activation at scale τ, and how accurately they are known.

Everything the theory needs of σ are the moments of σ(τξ), ξ ~ N(0, 1). Integration by parts,
E[f'(τξ)] = E[ξ f(τξ)]/τ and E[f''(τξ)] = E[(ξ² − 1) f(τξ)]/τ², gives the derivatives' moments of functions
that have none.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from rmtntk import quadrature
from rmtntk._typing import FloatArray, IntArray
from rmtntk._validation import check_real
from rmtntk.activations import Activation
from rmtntk.errors import AccuracyError

__all__ = ["MomentArrays", "Moments", "moment_arrays", "moments"]

EPS = float(np.finfo(np.float64).eps)
CLOSED_FORM_ERROR = 64.0 * EPS
_SQRT_2PI = math.sqrt(2.0 * math.pi)


@dataclass(frozen=True)
class Moments:
    r"""Moments of σ(τξ), ξ ~ N(0, 1), written with m = E[σ].

    Attributes
    ----------
    mean : float
        m = E[σ].
    d1, d2, d3 : float
        E[σ'], E[σ''] and the mean of the third derivative.
    variance : float
        E[σ²] − m².
    d1_squared : float
        E[σ'²]; ``inf`` for a function with jumps.
    half_d2_squared : float
        ½ E[((σ − m)²)''], the g of the recursion for a4.
    second : float
        E[σ²].
    error : float
        Bound on the error of every field, each in its natural unit: with s² = E[σ²], the units are s for
        `mean`, s/τ for `d1`, s/τ² for `d2`, s/τ³ for `d3`, s² for `variance` and `second`, s²/τ² for `half_d2_squared`;
        `d1_squared` is in units of itself.
    """

    mean: float
    d1: float
    d2: float
    d3: float
    variance: float
    d1_squared: float
    half_d2_squared: float
    second: float
    error: float


class MomentArrays(NamedTuple):
    """The fields of :class:`Moments` for a vector of scales τ, each of shape (n,)."""

    mean: FloatArray
    d1: FloatArray
    d2: FloatArray
    d3: FloatArray
    variance: FloatArray
    d1_squared: FloatArray
    half_d2_squared: FloatArray
    second: FloatArray
    error: FloatArray


def moments(act: Activation, tau: float) -> Moments:
    """Return the Gaussian moments of an activation.

    Parameters
    ----------
    act : Activation
        The function σ.
    tau : float
        Standard deviation of its argument, positive.

    Returns
    -------
    Moments
        Closed forms to 1e-13 relative for the families ``homogeneous``, ``erf``, ``polynomial`` and
        ``step`` (without cancelling terms); adaptive quadrature otherwise, with its own error bound.

    Raises
    ------
    TypeError, ValueError
        If `act` is not an Activation or `tau` is not a positive number.
    AccuracyError
        If the quadrature does not converge.

    References
    ----------
    NTK-LC (Gu et al., NeurIPS 2022), Theorem 1, after its formulas are corrected (docs/errata.md).

    Examples
    --------
    >>> import rmtntk as rn
    >>> rn.moments(rn.activations.relu, 2.0).d1
    0.5
    """
    if not isinstance(act, Activation):
        raise TypeError(f"`act` must be an Activation (see rmtntk.activations), got {act!r}")
    tau = check_real(tau, "tau", low=0.0, open_low=True)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        result = Moments(*(float(field[0]) for field in moment_arrays(act, np.array([tau]))))
    fields = (result.mean, result.d1, result.d2, result.d3, result.variance, result.half_d2_squared, result.second)
    if not np.isfinite([*fields, result.error]).all():
        raise ValueError(f"`tau` must be a scale at which the moments of {act} fit float64, got {tau!r}")
    return result


def moment_arrays(act: Activation, tau: FloatArray) -> MomentArrays:
    """Return the moments at every scale of `tau`, shape (n,); τ = 0 is allowed and means ξ-free input.

    At τ = 0 only `mean`, `variance`, `second` and, for smooth functions, `d1_squared` have a meaning; the
    other fields are 0 there.
    """
    with np.errstate(under="ignore"):
        if act.family == "homogeneous":
            return _homogeneous(act, tau)
        if act.family == "erf":
            return _erf(tau)
        if act.family == "polynomial":
            return _polynomial(act, tau)
        if act.family == "step":
            return _step(act, tau)
        return _by_quadrature(act, tau)


def slopes(act: Activation) -> tuple[float, float]:
    """Return (α, β) of a homogeneous activation α max(t, 0) + β max(−t, 0)."""
    values = act.function(np.array([1.0, -1.0]))
    return float(values[0]), float(values[1])


def _closed(tau: FloatArray) -> FloatArray:
    return np.full_like(tau, CLOSED_FORM_ERROR)


def _over(value: FloatArray | float, tau: FloatArray) -> FloatArray:
    """Value / τ, and 0 where τ = 0."""
    return np.divide(value, tau, out=np.zeros_like(tau), where=tau > 0.0)


def _homogeneous(act: Activation, tau: FloatArray) -> MomentArrays:
    alpha, beta = slopes(act)
    half = 0.5 * (alpha**2 + beta**2)
    spread = half - (alpha + beta) ** 2 / (2.0 * math.pi)
    one = np.ones_like(tau)
    return MomentArrays(
        mean=(alpha + beta) / _SQRT_2PI * tau,
        d1=0.5 * (alpha - beta) * one,
        d2=_over((alpha + beta) / _SQRT_2PI, tau),
        d3=np.zeros_like(tau),  # the third derivative is (α + β) δ', odd
        variance=spread * tau**2,
        d1_squared=half * one,
        half_d2_squared=spread * one,
        second=half * tau**2,
        error=_closed(tau),
    )


def _erf(tau: FloatArray) -> MomentArrays:
    # E[erf(τξ)²] = (2/π) asin(2τ²/(1+2τ²)); its derivative in τ² is g, because the mean is zero.
    q = tau**2
    root = np.sqrt(1.0 + 4.0 * q)
    second = 2.0 / math.pi * np.arctan2(2.0 * q, root)
    return MomentArrays(
        mean=np.zeros_like(tau),
        d1=2.0 / math.sqrt(math.pi) / np.sqrt(1.0 + 2.0 * q),
        d2=np.zeros_like(tau),
        d3=-4.0 / math.sqrt(math.pi) / (1.0 + 2.0 * q) ** 1.5,
        variance=second,
        d1_squared=4.0 / math.pi / root,
        half_d2_squared=4.0 / math.pi / ((1.0 + 2.0 * q) * root),
        second=second,
        error=_closed(tau),
    )


def hermite_polynomial_coefficients(coefficients: FloatArray, tau: FloatArray) -> FloatArray:
    r"""Orthonormal Hermite coefficients of Σ c_j (τξ)^j, shape (n, degree + 1).

    E[ξ^j he_k(ξ)] = j! / (2^i i!) / √k! with i = (j − k)/2, where j − k is even and not negative.
    """
    degree = len(coefficients) - 1
    out = np.zeros((len(tau), degree + 1))
    for k in range(degree + 1):
        for j in range(k, degree + 1, 2):
            i = (j - k) // 2
            weight = math.factorial(j) / (2**i * math.factorial(i) * math.sqrt(math.factorial(k)))
            out[:, k] += coefficients[j] * weight * tau**j
    return out


def _polynomial(act: Activation, tau: FloatArray) -> MomentArrays:
    parameter = act.parameter("coefficients")
    coefficients = np.atleast_1d(np.array(parameter, dtype=np.float64))
    derivatives = [np.asarray(np.polynomial.polynomial.polyder(coefficients, m), dtype=np.float64) for m in (1, 2, 3)]
    first, second, third = derivatives
    h = hermite_polynomial_coefficients(coefficients, tau)
    h_first = hermite_polynomial_coefficients(first, tau)
    h_second = hermite_polynomial_coefficients(second, tau)
    d1_squared = (h_first**2).sum(axis=1)
    width = h_second.shape[1]
    return MomentArrays(
        mean=h[:, 0],
        d1=h_first[:, 0],
        d2=h_second[:, 0],
        d3=hermite_polynomial_coefficients(third, tau)[:, 0],
        variance=(h[:, 1:] ** 2).sum(axis=1),
        d1_squared=d1_squared,
        # ½((σ−m)²)'' = σ'² + (σ−m)σ''
        half_d2_squared=d1_squared + (h[:, 1:width] * h_second[:, 1:]).sum(axis=1),
        second=(h**2).sum(axis=1),
        error=_closed(tau),
    )


def scaled_thresholds(act: Activation, tau: FloatArray) -> FloatArray:
    """Thresholds in units of τ, shape (n, k); ±inf where τ = 0, with 0 counting as passed."""
    s = act.thresholds
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        r = s / tau[:, None]
    at_zero = np.where(s > 0.0, np.inf, -np.inf)
    return np.where(tau[:, None] > 0.0, r, at_zero)


_NARROW_NODES, _NARROW_WEIGHTS = np.polynomial.legendre.leggauss(16)


def interval_probabilities(r: FloatArray) -> FloatArray:
    """P(r_j ≤ ξ < r_{j+1}) for j = 0..k, shape (n, k + 1), to full relative accuracy.

    Intervals narrower than one are integrated (16 nodes, a sum of positive terms); wider ones are differences
    of tails on the side where these do not cancel.
    """
    low = np.concatenate([np.full((len(r), 1), -np.inf), r], axis=1)
    high = np.concatenate([r, np.full((len(r), 1), np.inf)], axis=1)
    wide = np.where(low > 0.0, special.ndtr(-low) - special.ndtr(-high), special.ndtr(high) - special.ndtr(low))
    with np.errstate(invalid="ignore"):  # ∞ − ∞ at τ = 0
        width = high - low
        narrow = width < 1.0
    half = np.where(narrow, 0.5 * width, 0.0)
    centre = np.where(narrow, low, 0.0) + half
    points = centre[..., None] + half[..., None] * _NARROW_NODES
    return np.where(narrow, half * (normal_density(points) @ _NARROW_WEIGHTS), wide)


def _step_mean(r: FloatArray, levels: FloatArray) -> FloatArray:
    """l_0 + Σ Δ_j P(ξ ≥ r_j), each probability as 0, ½ or 1 plus what is small, so that constants add exactly."""
    jumps = np.diff(levels)
    inner = np.abs(r) < 1.0
    constant = np.where(inner, 0.5, np.where(r < 0.0, 1.0, 0.0))
    rest = np.where(
        inner,
        -0.5 * special.erf(np.where(inner, r, 0.0) / math.sqrt(2.0)),
        np.where(r < 0.0, -special.ndtr(r), special.ndtr(-r)),
    )
    return np.asarray((levels[0] + constant @ jumps) + rest @ jumps)


def _density_sum(r: FloatArray, weights: FloatArray) -> FloatArray:
    """Σ_j w_j φ(r_j), thresholds near 0 by their difference from φ(0), so that opposite weights cancel exactly."""
    inner = np.abs(r) < 1.0
    near = np.where(inner, r, 0.0)
    total = inner @ weights + np.expm1(-0.5 * near**2) @ weights
    return np.asarray(total / _SQRT_2PI + np.where(inner, 0.0, normal_density(r)) @ weights)


def normal_density(r: FloatArray) -> FloatArray:
    """φ(r), 0 at infinity."""
    with np.errstate(under="ignore", over="ignore"):
        return np.exp(-0.5 * r * r) / _SQRT_2PI


def _step(act: Activation, tau: FloatArray) -> MomentArrays:
    levels = act.levels
    jumps = np.diff(levels)
    r = scaled_thresholds(act, tau)
    p = interval_probabilities(r)
    density = normal_density(r)
    r_density = np.where(np.isfinite(r), r, 0.0) * density
    difference = levels[:, None] - levels[None, :]
    centred = p @ difference.T  # l_j − m = Σ_a p_a (l_j − l_a): nothing cancels
    variance = 0.5 * np.einsum("na,ab,nb->n", p, difference**2, p)
    tau_sq = tau**2
    return MomentArrays(
        mean=_step_mean(r, levels),
        d1=_over(_density_sum(r, jumps), tau),
        d2=_over(r_density @ jumps, tau_sq),
        d3=_over((r_density * np.where(np.isfinite(r), r, 0.0)) @ jumps - _density_sum(r, jumps), tau_sq * tau),
        variance=variance,
        d1_squared=np.full_like(tau, np.inf),
        half_d2_squared=_over(0.5 * ((centred[:, 1:] + centred[:, :-1]) * r_density) @ jumps, tau_sq),
        second=p @ levels**2,
        error=_closed(tau),
    )


_QUADRATURE_TOLERANCE = 1e-14


def weighted_values(
    act: Activation, xi: FloatArray, tau: FloatArray, *, slope: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Return σ(τξ) (or σ') and φ(ξ); values beyond the normal density's range that overflow are set to 0."""
    x = xi * tau[:, None]
    density = normal_density(xi)
    with np.errstate(over="ignore", invalid="ignore"):
        values = act.derivative(x) if slope else act.function(x)
        squares = values**2 * density
    bad = ~np.isfinite(squares)
    if bad.any():
        # exp(rate·t) overflows where φ is already below 1e-290: harmless. Elsewhere the moment diverges.
        if not np.isfinite(values).all() and (np.abs(xi[bad]) < 37.0).any():
            k = int(np.argmax(bad.ravel()))
            raise AccuracyError(
                f"the activation {act} gives {values.ravel()[k]} at t = {x.ravel()[k]:.6g}: its Gaussian moments "
                "at this scale diverge or overflow float64",
                math.inf,
            )
        values = np.where(bad, 0.0, values)
    return values, density


def _graded(tau: float) -> FloatArray:
    """± 2^k/τ up to 1, in units of ξ; none for τ ≤ 4."""
    if tau <= 4.0:
        return np.zeros(0)
    points = 2.0 ** np.arange(math.ceil(math.log2(tau))) / tau
    return np.concatenate([points, -points])


def _by_quadrature(act: Activation, tau: FloatArray) -> MomentArrays:
    scales, inverse = np.unique(tau, return_inverse=True)
    positive = scales[scales > 0.0]
    # Beyond τ = 4 panels are graded towards 0 down to t = ±1, where functions turn: a rule on [0, 2] would miss a slope
    # that lives on |ξ| < 1/τ altogether.
    breaks = [np.array([0.0, *(b / t for b in act.breakpoints), *_graded(t)]) for t in positive]
    jumps = has_jump(act)
    slope_known = act.derivative_function is not None and not jumps

    def integrand(xi: FloatArray, problem: IntArray) -> FloatArray:
        values, density = weighted_values(act, xi, positive[problem])
        fields = [values, xi * values, (xi * xi - 1.0) * values, values**2, (xi * xi - 1.0) * values**2]
        fields.append((xi * xi - 3.0) * xi * values)
        if slope_known:
            slope = weighted_values(act, xi, positive[problem], slope=True)[0]
            fields.extend([slope**2, slope])
        return np.stack(fields, axis=-1) * density[..., None]

    table = np.zeros((len(scales), 9))
    if len(positive):
        raw, error = quadrature.integrate(integrand, breaks, tolerance=_QUADRATURE_TOLERANCE)
        second = raw[:, 3]
        unit = np.sqrt(second)
        scale = np.maximum(unit, 1e-300)
        mean = raw[:, 0]
        d2 = raw[:, 2] / positive**2

        # The variance by a second pass, centred: E[(σ−m)²] has no cancellation.
        def centred(xi: FloatArray, problem: IntArray) -> FloatArray:
            values, density = weighted_values(act, xi, positive[problem])
            deviation = (values - mean[problem][:, None]) ** 2
            return np.stack([deviation, (xi * xi - 1.0) * deviation], axis=-1) * density[..., None]

        spread, spread_error = quadrature.integrate(centred, breaks, tolerance=_QUADRATURE_TOLERANCE)
        if jumps:
            d1_squared, slope_error = np.full_like(positive, np.inf), np.zeros_like(positive)
        else:
            slopes_of = (raw[:, 6:8], error[:, 6:8]) if slope_known else _slope_from_values(act, positive, breaks)
            d1_squared, slope_error = slopes_of[0][:, 0], slopes_of[1][:, 0]
            _check_slope(act, slopes_of[0][:, 1], raw[:, 1] / positive, np.sqrt(d1_squared) + unit / positive)
        relative = np.maximum.reduce(
            [
                error[:, 0] / scale,
                error[:, 1] / scale,
                error[:, 2] / scale,
                error[:, 5] / scale,
                error[:, 3] / np.maximum(second, 1e-300),
                spread_error.max(axis=1) / np.maximum(second, 1e-300),
                slope_error / np.maximum(d1_squared, 1e-300),
            ]
        )
        table[scales > 0.0] = np.stack(
            [
                mean,
                raw[:, 1] / positive,
                d2,
                raw[:, 5] / positive**3,
                spread[:, 0],
                d1_squared,
                0.5 * spread[:, 1] / positive**2,
                second,
                relative,
            ],
            axis=1,
        )
    if (scales == 0.0).any():
        at_zero = float(act.function(np.zeros(1))[0])
        slope = float(_slope_at_zero(act)) ** 2
        table[scales == 0.0] = [at_zero, 0.0, 0.0, 0.0, 0.0, slope, 0.0, at_zero**2, CLOSED_FORM_ERROR]
    full = table[inverse.reshape(-1)]
    return MomentArrays(*(np.ascontiguousarray(full[:, k]) for k in range(9)))


def has_jump(act: Activation) -> bool:
    """Whether the function jumps at a declared breakpoint (its derivative may jump without harm)."""
    if act.is_step:
        return True
    for point in act.breakpoints:
        delta = 1e-7 * max(1.0, abs(point))
        a, b, c, d = act.function(np.array([point - 2 * delta, point - delta, point + delta, point + 2 * delta]))
        # Across a kink the value moves no more than it does on both sides together.
        if abs(c - b) > 10.0 * (abs(d - c) + abs(b - a)) + 1e-12 * max(abs(b), abs(c)):
            return True
    return False


def _slope_at_zero(act: Activation) -> float:
    if act.derivative_function is not None:
        return float(act.derivative(np.zeros(1))[0])
    delta = 1e-4  # fourth-order one-sided difference: error about 1e-12
    values = act.function(delta * np.arange(5.0))
    return float(np.dot([-25.0, 48.0, -36.0, 16.0, -3.0], values) / (12.0 * delta))


def _slope_from_values(act: Activation, tau: FloatArray, breaks: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """E[σ'²] and E[σ'] without a derivative: σ' is that of the polynomial through each panel's 20 nodes."""

    def integrand(xi: FloatArray, problem: IntArray) -> FloatArray:
        values, density = weighted_values(act, xi, tau[problem])
        half_width = (xi[:, -1] - xi[:, 0]) / quadrature.NODE_SPAN
        slope = values @ quadrature.DIFFERENTIATION.T / (half_width * tau[problem])[:, None]
        return np.stack([slope**2, slope], axis=-1) * density[..., None]

    return quadrature.integrate(integrand, breaks, tolerance=1e-10)


def _check_slope(act: Activation, of_slope: FloatArray, by_parts: FloatArray, unit: FloatArray) -> None:
    """E[σ'] must be E[ξσ]/τ: a wrong derivative, or a jump nobody declared, shows here."""
    gap = np.abs(of_slope - by_parts) / np.maximum(unit, 1e-300)
    worst = float(gap.max(initial=0.0))
    if worst > 1e-6:
        raise AccuracyError(
            f"the derivative of the activation {act} does not integrate to the function (E[σ'] is off by {worst:.1e}): "
            "declare the points where the function jumps in `breakpoints`, or correct `derivative`",
            worst,
        )
