r"""Gaussian moments of an activation at scale τ, and how accurately they are known.

Everything the theory needs of σ are the moments of σ(τξ), ξ ~ N(0, 1). Integration by parts,
E[f'(τξ)] = E[ξ f(τξ)]/τ and E[f''(τξ)] = E[(ξ² − 1) f(τξ)]/τ², gives the derivatives' moments of functions
that have none.
"""

import math
from dataclasses import dataclass

import numpy as np

from rmtntk import quadrature
from rmtntk._moments_closed import (
    CLOSED_FORM_ERROR,
    CLOSED_FORMS,
    MomentArrays,
    hermite_polynomial_coefficients,
    polynomial_series,
    sine_cosine,
    slopes,
)
from rmtntk._moments_step import interval_probabilities, normal_density, scaled_thresholds, step_moments
from rmtntk._typing import FloatArray, IntArray
from rmtntk._validation import check_real
from rmtntk.activations import Activation
from rmtntk.errors import AccuracyError

__all__ = [
    "MomentArrays",
    "Moments",
    "hermite_polynomial_coefficients",
    "interval_probabilities",
    "moment_arrays",
    "moments",
    "normal_density",
    "polynomial_series",
    "scaled_thresholds",
    "sine_cosine",
    "slopes",
    "weighted_values",
]


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
        Closed forms to 1e-13 for every family but ``smooth`` (without cancelling terms); for that one adaptive
        quadrature, with its own error bound.

    Raises
    ------
    TypeError, ValueError
        If `act` is not an Activation or `tau` is not a positive number.
    AccuracyError
        If the quadrature does not converge, or E[σ²] diverges or overflows float64.

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
    other fields are their limits for τ → 0 where the closed form gives one, else 0.

    Raises
    ------
    AccuracyError
        If a quadrature does not converge, or a mean square diverges or overflows float64.
    """
    if act.family == "smooth":
        with np.errstate(under="ignore"):
            return _by_quadrature(act, tau)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        fields = step_moments(act, tau) if act.is_step else CLOSED_FORMS[act.family](act, tau)
    bad = ~np.isfinite(fields.second)
    if bad.any():
        raise AccuracyError(
            f"the activation {act} has moments at scale τ = {tau[np.argmax(bad)]:.6g} that overflow float64", math.inf
        )
    return fields


_QUADRATURE_TOLERANCE = 1e-14


def weighted_values(
    act: Activation, xi: FloatArray, tau: FloatArray, *, slope: bool = False, density: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return σ(τξ) (or σ') and φ(ξ); values beyond the normal density's range that overflow are set to 0."""
    x = xi * tau[:, None]
    if density is None:
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
    points = np.array([point for point in act.breakpoints if point != 0.0])  # 0 is an edge anyway
    breaks = [np.concatenate([points / t, _graded(t)]) if points.size or t > 4.0 else points for t in positive]
    jumps = has_jump(act)
    slope_known = act.derivative_function is not None and not jumps

    table = np.zeros((len(scales), 9))
    if len(positive):
        # About a first estimate of the mean, so that the variance has no cancellation.
        centre, spread = _estimate(act, positive, breaks)

        def integrand(xi: FloatArray, problem: IntArray) -> FloatArray:
            values, density = weighted_values(act, xi, positive[problem])
            values = values - centre[problem, None]
            second = xi * xi - 1.0
            fields = np.empty((8 if slope_known else 6, *xi.shape))
            np.multiply(values, density, out=fields[0])
            np.multiply(fields[0], xi, out=fields[1])
            np.multiply(fields[0], second, out=fields[2])
            np.multiply(fields[1], second - 2.0, out=fields[3])
            np.multiply(fields[0], values, out=fields[4])
            np.multiply(fields[4], second, out=fields[5])
            if slope_known:
                slope = weighted_values(act, xi, positive[problem], slope=True, density=density)[0]
                np.multiply(slope, density, out=fields[7])
                np.multiply(fields[7], slope, out=fields[6])
            return np.moveaxis(fields, 0, -1)

        # Values are rounded relative to themselves, not to their distance from the centre.
        floor = np.zeros((len(positive), 8 if slope_known else 6))
        floor[:, :4] = np.abs(centre)[:, None]
        floor[:, 4:6] = (np.abs(centre) * spread)[:, None]
        raw, error = quadrature.integrate(integrand, breaks, tolerance=_QUADRATURE_TOLERANCE, floor=floor)
        rest = raw[:, 0]
        mean = centre + rest
        variance = raw[:, 4] - rest**2
        bend = raw[:, 5] - 2.0 * rest * raw[:, 2]
        second = variance + mean**2
        unit = np.sqrt(second)
        if jumps:
            d1_squared, slope_error = np.full_like(positive, np.inf), np.zeros_like(positive)
        else:
            slopes_of = (raw[:, 6:8], error[:, 6:8]) if slope_known else _slope_from_values(act, positive, breaks)
            d1_squared, slope_error = slopes_of[0][:, 0], slopes_of[1][:, 0]
            _check_slope(act, slopes_of[0][:, 1], raw[:, 1] / positive, np.sqrt(d1_squared) + unit / positive)
        linear = error[:, :4].max(axis=1)
        square = error[:, 4:6].max(axis=1) + 2.0 * np.abs(rest) * linear
        relative = np.maximum.reduce(
            [
                linear / np.maximum(unit, 1e-300),
                # of the second moment: what the square of the mean adds
                (square + 2.0 * np.abs(mean) * error[:, 0]) / np.maximum(second, 1e-300),
                slope_error / np.maximum(d1_squared, 1e-300),
            ]
        )
        table[scales > 0.0] = np.stack(
            [
                mean,
                raw[:, 1] / positive,
                raw[:, 2] / positive**2,
                raw[:, 3] / positive**3,
                variance,
                d1_squared,
                0.5 * bend / positive**2,
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


def _estimate(act: Activation, tau: FloatArray, breaks: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of σ(τξ) by 20 nodes on each panel between −10 and 10."""
    mean, square = np.zeros_like(tau), np.zeros_like(tau)
    pieces = [quadrature.panel_edges(points, reach=10.0) for points in breaks]
    problem = np.repeat(np.arange(len(tau)), [len(piece[0]) for piece in pieces])
    left, right = (np.concatenate([piece[side] for piece in pieces]) for side in (0, 1))
    for start in range(0, len(problem), 1024):
        part = slice(start, start + 1024)
        xi, weights = quadrature.gauss_panels(left[part], right[part])
        with np.errstate(under="ignore"):
            values, density = weighted_values(act, xi, tau[problem[part]])
            weights = weights * density
            mean += np.bincount(problem[part], (weights * values).sum(axis=1), len(tau))
            square += np.bincount(problem[part], (weights * values**2).sum(axis=1), len(tau))
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))


def has_jump(act: Activation) -> bool:
    """Whether the function jumps at a declared breakpoint (its derivative may jump without harm)."""
    if act.family != "smooth":
        return act.is_step
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
