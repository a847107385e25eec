"""Named activations and the functions that make those with parameters; public through :mod:`rmtntk.activations`."""

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.polynomial import hermite_e
from numpy.typing import ArrayLike
from scipy import special

from rmtntk import _functions as bodies
from rmtntk._activation import NAMED_STEPS, Activation, Function, Value
from rmtntk._validation import check_array, check_integer, check_real


def _nonzero(value: Any, name: str) -> float:
    number = check_real(value, name)
    if number == 0.0:
        raise ValueError(f"`{name}` must not be 0, got {value!r}: the network would be constant")
    return number


# Homogeneous


def _homogeneous(name: str, alpha: float, beta: float, **parameters: float) -> Activation:
    return Activation(
        name,
        tuple(parameters.items()),
        "homogeneous",
        () if alpha == -beta else (0.0,),
        constants=(alpha, beta),
        function=partial(bodies.homogeneous, alpha, beta),
        derivative_function=partial(bodies.homogeneous_slope, alpha, beta),
    )


relu = _homogeneous("relu", 1.0, 0.0)
identity = _homogeneous("identity", 1.0, -1.0)
abs = _homogeneous("abs", 1.0, 1.0)


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """σ(t) = t for t ≥ 0, `negative_slope` · t below."""
    slope = check_real(negative_slope, "negative_slope")
    return _homogeneous("leaky_relu", 1.0, -slope, negative_slope=slope)


def ab_relu(a: float, b: float) -> Activation:
    """σ(t) = a min(t, 0) + b max(t, 0): any function that is linear on both sides of 0."""
    a, b = check_real(a, "a"), check_real(b, "b")
    if a == b == 0.0:
        raise ValueError("`a` or `b` must differ from 0, got 0 and 0: the network would be constant")
    return _homogeneous("ab_relu", b, -a, a=a, b=b)


# Error function, GELU


def _erf_family(
    name: str, amplitude: float, rate: float, offset: float, parameters: tuple[tuple[str, float], ...]
) -> Activation:
    return Activation(
        name,
        parameters,
        "erf",
        constants=(amplitude, rate, offset),
        function=partial(bodies.scaled_erf, amplitude, rate, offset),
        derivative_function=partial(bodies.scaled_erf_slope, amplitude, rate),
    )


def erf_with(amplitude: float = 1.0, rate: float = 1.0, offset: float = 0.0) -> Activation:
    """σ(t) = amplitude · erf(rate · t) + offset; :func:`get` knows it as ``erf`` with parameters."""
    amplitude, rate = _nonzero(amplitude, "amplitude"), _nonzero(rate, "rate")
    offset = check_real(offset, "offset")
    if (amplitude, rate, offset) == (1.0, 1.0, 0.0):
        return erf
    parameters = (("amplitude", amplitude), ("rate", rate), ("offset", offset))
    return _erf_family("erf", amplitude, rate, offset, parameters)


erf = Activation(
    "erf",
    (),
    "erf",
    constants=(1.0, 1.0, 0.0),
    function=special.erf,
    derivative_function=partial(bodies.scaled_erf_slope, 1.0, 1.0),
)
_SIGMOID_LIKE = 1.0 / 2.4020563531719796  # least squared distance from the sigmoid on [−5, 5], as in neural-tangents
sigmoid_like = Activation(
    "sigmoid_like",
    (),
    "erf",
    constants=(0.5, _SIGMOID_LIKE, 0.5),
    function=partial(bodies.sigmoid_like, _SIGMOID_LIKE),
    derivative_function=partial(bodies.scaled_erf_slope, 0.5, _SIGMOID_LIKE),
)
gelu = Activation("gelu", (), "gelu", function=bodies.gelu, derivative_function=bodies.gelu_slope)


# Sines, exponentials


def _trig(
    name: str, constants: tuple[float, float, float], function: Function, slope: Function, **parameters: float
) -> Activation:
    return Activation(
        name, tuple(parameters.items()), "trig", constants=constants, function=function, derivative_function=slope
    )


sin = _trig("sin", (1.0, 1.0, 0.0), np.sin, np.cos)
cos = _trig("cos", (1.0, 1.0, 0.5 * math.pi), np.cos, bodies.negative_sin)


def sin_with(amplitude: float = 1.0, frequency: float = 1.0, phase: float = 0.0) -> Activation:
    """σ(t) = amplitude · sin(frequency · t + phase); :func:`get` knows it as ``sin`` with parameters."""
    a, f, phi = _nonzero(amplitude, "amplitude"), _nonzero(frequency, "frequency"), check_real(phase, "phase")
    if (a, f, phi) == (1.0, 1.0, 0.0):
        return sin
    slope = partial(bodies.cosinusoid, a * f, f, phi)
    return _trig(
        "sin", (a, f, phi), partial(bodies.sinusoid, a, f, phi), slope, amplitude=a, frequency=f, phase=phi
    )  # fmt: skip


def cos_with(amplitude: float = 1.0, frequency: float = 1.0, phase: float = 0.0) -> Activation:
    """σ(t) = amplitude · cos(frequency · t + phase); :func:`get` knows it as ``cos`` with parameters."""
    a, f, phi = _nonzero(amplitude, "amplitude"), _nonzero(frequency, "frequency"), check_real(phase, "phase")
    if (a, f, phi) == (1.0, 1.0, 0.0):
        return cos
    slope = partial(bodies.sinusoid, -a * f, f, phi)
    constants = (a, f, phi + 0.5 * math.pi)
    return _trig(
        "cos", constants, partial(bodies.cosinusoid, a, f, phi), slope, amplitude=a, frequency=f, phase=phi
    )  # fmt: skip


def rbf(gamma: float = 1.0) -> Activation:
    """σ(t) = √2 sin(√(2γ) t + π/4): its dual kernel is the Gaussian exp(−γ E[(u − v)²])."""
    gamma = check_real(gamma, "gamma", low=0.0, open_low=True)
    a, f, phi = math.sqrt(2.0), math.sqrt(2.0 * gamma), 0.25 * math.pi
    slope = partial(bodies.cosinusoid, a * f, f, phi)
    return _trig("rbf", (a, f, phi), partial(bodies.sinusoid, a, f, phi), slope, gamma=gamma)


def exp(rate: float = 1.0, amplitude: float = 1.0) -> Activation:
    """σ(t) = amplitude · exp(rate · t)."""
    rate, amplitude = _nonzero(rate, "rate"), _nonzero(amplitude, "amplitude")
    return Activation(
        "exp",
        (("rate", rate),) if amplitude == 1.0 else (("rate", rate), ("amplitude", amplitude)),
        "exponential",
        constants=(amplitude, rate),
        function=partial(bodies.exponential, amplitude, rate),
        derivative_function=partial(bodies.exponential, amplitude * rate, rate),
    )


def _gaussian_family(name: str, amplitude: float, rate: float, parameters: tuple[tuple[str, float], ...]) -> Activation:
    return Activation(
        name,
        parameters,
        "gaussian",
        constants=(amplitude, rate),
        function=partial(bodies.exp_square, amplitude, rate),
        derivative_function=partial(bodies.exp_square_slope, amplitude, rate),
    )


gaussian = _gaussian_family("gaussian", 1.0, -0.5, ())


def exp_square(rate: float = -1.0, amplitude: float = 1.0) -> Activation:
    """σ(t) = amplitude · exp(rate · t²).

    Its kernel is finite at inputs of variance τ² only if rate < 1/(4τ²), since E[σ²] = (1 − 4 rate τ²)^(−½).
    """
    rate, amplitude = _nonzero(rate, "rate"), _nonzero(amplitude, "amplitude")
    parameters = (("rate", rate),) if amplitude == 1.0 else (("rate", rate), ("amplitude", amplitude))
    return _gaussian_family("exp_square", amplitude, rate, parameters)


def exp_normalized(gamma: float = 1.0, shift: float = -1.0) -> Activation:
    """Return the normalised Gaussian kernel √(q_u q_v) exp(γ (ρ + shift)), ρ = cov/√(q_u q_v).

    It acts as an activation in :class:`rmtntk.Network` but is no elementwise function (it depends on the
    correlation, not on the covariance), so that no finite network has it: calling it raises a ValueError.
    With γ = 1/σ² and shift = −1 it is exp(−‖u − v‖²/(2σ²)) of the normalised arguments (Shankar et al., 2020).

    Parameters
    ----------
    gamma : float
        γ > 0.
    shift : float
        Added to the correlation.
    """
    gamma = check_real(gamma, "gamma", low=0.0, open_low=True)
    shift = check_real(shift, "shift")
    if gamma * (1.0 + shift) > 600.0:
        raise ValueError(
            f"`gamma` · (1 + `shift`) must be at most 600, got {gamma:g} · {1.0 + shift:g}: the kernel would overflow"
        )
    nothing = partial(bodies.no_function, "exp_normalized")
    return Activation(
        "exp_normalized",
        (("gamma", gamma), ("shift", shift)),
        "exp_normalized",
        constants=(gamma, shift),
        function=nothing,
        derivative_function=nothing,
    )


# Polynomials


def _polynomial(
    name: str,
    values: tuple[float, ...],
    parameters: tuple[tuple[str, Value], ...],
    function: Function | None = None,
    slope: Function | None = None,
) -> Activation:
    return Activation(
        name,
        parameters,
        "polynomial",
        constants=values,
        function=function or partial(bodies.polynomial, values),
        derivative_function=slope or partial(bodies.polynomial_slope, values),
    )


def polynomial(coefficients: ArrayLike) -> Activation:
    """σ(t) = Σ_k coefficients[k] t^k, coefficients in ascending order, shape (degree + 1,)."""
    array = check_array(coefficients, "coefficients", 1)
    trimmed = np.trim_zeros(array, "b")
    if trimmed.size == 0:
        raise ValueError("`coefficients` must have a non-zero entry, got zeros only: the network would be constant")
    if trimmed.size > 33:
        raise ValueError(f"`coefficients` must have degree at most 32, got degree {trimmed.size - 1}")
    values = tuple(float(value) for value in trimmed)
    return _polynomial("polynomial", values, (("coefficients", values),))


def monomial(degree: int) -> Activation:
    """σ(t) = t^degree, 1 ≤ degree ≤ 32."""
    degree = check_integer(degree, "degree", low=1, high=32)
    return _polynomial(
        "monomial",
        (0.0,) * degree + (1.0,),
        (("degree", degree),),
        partial(bodies.monomial, 1.0, degree),
        partial(bodies.monomial, float(degree), degree - 1),
    )


def hermite(degree: int) -> Activation:
    """σ(t) = He_degree(t)/√degree!, 1 ≤ degree ≤ 16: orthonormal for the standard normal law.

    At inputs of variance 1 its dual kernel is ρ^degree.
    """
    degree = check_integer(degree, "degree", low=1, high=16)
    factor = 1.0 / math.sqrt(math.factorial(degree))
    integers = hermite_e.herme2poly(np.eye(degree + 1)[degree])
    return _polynomial(
        "hermite",
        tuple(float(value) for value in integers * factor),
        (("degree", degree),),
        partial(bodies.hermite, factor, degree),
        partial(bodies.hermite, factor * degree, degree - 1),
    )


def rectified_monomial(degree: int) -> Activation:
    """σ(t) = max(t, 0)^degree, 0 ≤ degree ≤ 16; degree 0 is ``heaviside``, degree 1 ``relu``."""
    degree = check_integer(degree, "degree", low=0, high=16)
    if degree == 0:
        return heaviside
    if degree == 1:
        return relu
    return Activation(
        "rectified_monomial",
        (("degree", degree),),
        "rectified",
        (0.0,),
        constants=(float(degree),),
        function=partial(bodies.rectified_monomial, degree),
        derivative_function=partial(bodies.rectified_monomial_slope, degree),
    )


# Steps


def _step(
    name: str,
    thresholds: tuple[float, ...],
    levels: tuple[float, ...],
    parameters: tuple[tuple[str, Value], ...],
) -> Activation:
    return Activation(
        name,
        parameters,
        "step",
        thresholds,
        function=partial(bodies.step, thresholds, levels),
        derivative_function=np.zeros_like,
    )


sign = _step("sign", **NAMED_STEPS["sign"], parameters=())
heaviside = _step("heaviside", **NAMED_STEPS["heaviside"], parameters=())


def step(thresholds: ArrayLike, levels: ArrayLike) -> Activation:
    """Return the piecewise-constant function with the given jumps.

    Parameters
    ----------
    thresholds : array_like, shape (k,)
        Strictly increasing, in units of the argument.
    levels : array_like, shape (k + 1,)
        ``levels[j]`` is the value on [thresholds[j-1], thresholds[j]): right-continuous, so that
        ``sign(0) = 1`` here.

    Raises
    ------
    ValueError
        If the lengths do not fit, the thresholds are not increasing, or all levels are equal.
    """
    s = check_array(thresholds, "thresholds", 1)
    levels_ = check_array(levels, "levels", 1)
    if not (np.diff(s) > 0).all():
        raise ValueError(f"`thresholds` must be strictly increasing, got {s.tolist()}")
    if levels_.size != s.size + 1:
        raise ValueError(
            f"`levels` must have one entry more than `thresholds`, {s.size + 1}, got {levels_.size}: {levels_.tolist()}"
        )
    if (np.diff(levels_) == 0).any():
        raise ValueError(f"`levels` next to each other must differ, got {levels_.tolist()}: drop the idle threshold")
    s_tuple, l_tuple = tuple(map(float, s)), tuple(map(float, levels_))
    return _step("step", s_tuple, l_tuple, (("thresholds", s_tuple), ("levels", l_tuple)))


# Smooth: by quadrature


def _smooth(
    name: str,
    function: Function,
    slope: Function,
    breakpoints: tuple[float, ...] = (),
    parameters: tuple[tuple[str, float], ...] = (),
) -> Activation:
    return Activation(name, parameters, "smooth", breakpoints, function=function, derivative_function=slope)


def _elu(name: str, alpha: float, scale: float, parameters: tuple[tuple[str, float], ...] = ()) -> Activation:
    return _smooth(name, partial(bodies.elu, alpha, scale), partial(bodies.elu_slope, alpha, scale), (0.0,), parameters)


def elu_with(alpha: float = 1.0) -> Activation:
    """σ(t) = t for t ≥ 0, alpha · (exp(t) − 1) below; :func:`get` knows it as ``elu`` with a parameter."""
    alpha = check_real(alpha, "alpha")
    return elu if alpha == 1.0 else _elu("elu", alpha, 1.0, (("alpha", alpha),))


tanh = _smooth("tanh", np.tanh, bodies.tanh_slope)
hard_tanh = _smooth("hard_tanh", bodies.hard_tanh, bodies.hard_tanh_slope, (-1.0, 1.0))
sigmoid = _smooth("sigmoid", special.expit, bodies.sigmoid_slope)
softplus = _smooth("softplus", bodies.softplus, special.expit)
softsign = _smooth("softsign", bodies.softsign, bodies.softsign_slope, (0.0,))
silu = _smooth("silu", bodies.silu, bodies.silu_slope)
gelu_tanh = _smooth("gelu_tanh", bodies.gelu_tanh, bodies.gelu_tanh_slope)
elu = _elu("elu", 1.0, 1.0)
selu = _elu("selu", 1.6732632423543772, 1.0507009873554805)  # Klambauer et al. (2017), Self-Normalizing Neural Networks
gabor = _smooth("gabor", bodies.gabor, bodies.gabor_slope)
