"""Values and slopes of the activations: plain NumPy, at module level so that activations can be pickled.

Parameters come first and the argument `x`, a float64 array, last; slopes at breakpoints are those from the right.
"""

import math

import numpy as np
from scipy import special

from rmtntk._typing import FloatArray

_SQRT_PI = math.sqrt(math.pi)
_SQRT_2PI = math.sqrt(2.0 * math.pi)
_TANH_FACTOR, _TANH_CUBE = math.sqrt(2.0 / math.pi), 0.044715  # Hendrycks and Gimpel (2016)


def homogeneous(alpha: float, beta: float, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, alpha * x, -beta * x)


def homogeneous_slope(alpha: float, beta: float, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, alpha, -beta)


def scaled_erf(amplitude: float, rate: float, offset: float, x: FloatArray) -> FloatArray:
    return amplitude * special.erf(rate * x) + offset


def scaled_erf_slope(amplitude: float, rate: float, x: FloatArray) -> FloatArray:
    return 2.0 * amplitude * rate / _SQRT_PI * np.exp(-((rate * x) ** 2))


def sigmoid_like(rate: float, x: FloatArray) -> FloatArray:
    # ½ erf(x) + ½ without the cancellation of the lower tail
    return 0.5 * special.erfc(-rate * x)


def polynomial(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    return np.asarray(np.polynomial.polynomial.polyval(x, np.array(coefficients)), dtype=np.float64)


def polynomial_slope(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    slope = np.polynomial.polynomial.polyder(np.array(coefficients))
    return np.asarray(np.polynomial.polynomial.polyval(x, slope), dtype=np.float64)


def monomial(factor: float, degree: int, x: FloatArray) -> FloatArray:
    return factor * x**degree


def hermite(factor: float, degree: int, x: FloatArray) -> FloatArray:
    """He_degree(x), scaled, by Clenshaw's recursion: powers of x would cancel between the zeros."""
    return np.asarray(np.polynomial.hermite_e.hermeval(x, np.eye(degree + 1)[degree] * factor), dtype=np.float64)


def step(thresholds: tuple[float, ...], levels: tuple[float, ...], x: FloatArray) -> FloatArray:
    return np.array(levels)[np.searchsorted(np.array(thresholds), x, side="right")]


def rectified_monomial(degree: int, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, x**degree, 0.0)


def rectified_monomial_slope(degree: int, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, degree * x ** (degree - 1), 0.0)


def gelu(x: FloatArray) -> FloatArray:
    return x * special.ndtr(x)


def gelu_slope(x: FloatArray) -> FloatArray:
    return special.ndtr(x) + x * np.exp(-0.5 * x**2) / _SQRT_2PI


def gelu_tanh(x: FloatArray) -> FloatArray:
    # ½(1 + tanh z) = expit(2z) keeps the digits of the lower tail
    return x * special.expit(2.0 * _TANH_FACTOR * x * (1.0 + _TANH_CUBE * x * x))


def gelu_tanh_slope(x: FloatArray) -> FloatArray:
    z = 2.0 * _TANH_FACTOR * x * (1.0 + _TANH_CUBE * x * x)
    bend = 2.0 * _TANH_FACTOR * x * (1.0 + 3.0 * _TANH_CUBE * x * x)
    return special.expit(z) * (1.0 + special.expit(-z) * bend)


def sinusoid(amplitude: float, frequency: float, phase: float, x: FloatArray) -> FloatArray:
    return amplitude * np.sin(frequency * x + phase)


def cosinusoid(amplitude: float, frequency: float, phase: float, x: FloatArray) -> FloatArray:
    return amplitude * np.cos(frequency * x + phase)


def negative_sin(x: FloatArray) -> FloatArray:
    return -np.sin(x)


def exponential(amplitude: float, rate: float, x: FloatArray) -> FloatArray:
    return amplitude * np.exp(rate * x)


def exp_square(amplitude: float, rate: float, x: FloatArray) -> FloatArray:
    return amplitude * np.exp(rate * x**2)


def exp_square_slope(amplitude: float, rate: float, x: FloatArray) -> FloatArray:
    return 2.0 * amplitude * rate * x * np.exp(rate * x**2)


def gabor(x: FloatArray) -> FloatArray:
    return np.exp(-(x**2)) * np.sin(x)


def gabor_slope(x: FloatArray) -> FloatArray:
    return np.exp(-(x**2)) * (np.cos(x) - 2.0 * x * np.sin(x))


def tanh_slope(x: FloatArray) -> FloatArray:
    value = np.tanh(x)
    return (1.0 - value) * (1.0 + value)


def hard_tanh(x: FloatArray) -> FloatArray:
    return np.clip(x, -1.0, 1.0)


def hard_tanh_slope(x: FloatArray) -> FloatArray:
    return np.where((x >= -1.0) & (x < 1.0), 1.0, 0.0)


def softsign(x: FloatArray) -> FloatArray:
    return x / (1.0 + np.abs(x))


def softsign_slope(x: FloatArray) -> FloatArray:
    return 1.0 / (1.0 + np.abs(x)) ** 2


def sigmoid_slope(x: FloatArray) -> FloatArray:
    value = special.expit(-np.abs(x))
    return value * (1.0 - value)


def softplus(x: FloatArray) -> FloatArray:
    return np.logaddexp(0.0, x)


def silu(x: FloatArray) -> FloatArray:
    return x * special.expit(x)


def silu_slope(x: FloatArray) -> FloatArray:
    return special.expit(x) * (1.0 + x * special.expit(-x))


def elu(alpha: float, scale: float, x: FloatArray) -> FloatArray:
    return scale * np.where(x >= 0.0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def elu_slope(alpha: float, scale: float, x: FloatArray) -> FloatArray:
    return scale * np.where(x >= 0.0, 1.0, alpha * np.exp(np.minimum(x, 0.0)))


def no_function(text: str, x: FloatArray) -> FloatArray:
    raise ValueError(
        f"`{text}` is a kernel and no elementwise function: it cannot be applied to an array; take `rmtntk.nngp`, `ck` "
        "or `ntk` of a network of it, or `rbf(gamma)` for a function whose kernel is a Gaussian"
    )
