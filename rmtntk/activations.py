r"""Activation functions and what is known of them in closed form.

Every :class:`Activation` belongs to one *family*, which decides how its Gaussian moments and its dual kernel
are computed:

``homogeneous``
    σ(t) = α max(t, 0) + β max(−t, 0): ReLU, leaky ReLU, the absolute value, the identity.
``erf``
    σ(t) = erf(a t).
``polynomial``
    σ(t) = Σ c_k t^k; its Hermite series is finite.
``step``
    piecewise constant, right-continuous: level l_j on [s_j, s_{j+1}).
``smooth``
    anything else: adaptive quadrature and a truncated Hermite series, both with error bounds.
"""

import ast
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from rmtntk._typing import FloatArray
from rmtntk._validation import check_array, check_integer, check_real

__all__ = [
    "Activation",
    "custom",
    "exp",
    "get",
    "leaky_relu",
    "names",
    "parse",
    "polynomial",
    "rectified_monomial",
    "step",
]

Family = Literal["homogeneous", "erf", "polynomial", "step", "smooth"]
Function = Callable[[FloatArray], FloatArray]
Value = float | tuple[float, ...]


@final
@dataclass(frozen=True)
class Activation:
    """An activation function; build one with the functions and names of this module.

    Attributes
    ----------
    name : str
        Name under which :func:`get` finds it; ``"custom"`` for a user's function.
    parameters : tuple of (str, float or tuple of float)
        Parameters of `name`, in order.
    family : str
        How its integrals are computed (see the module's page).
    breakpoints : tuple of float
        Points where the function or its derivative jumps, increasing, in units of the argument.
    tolerance : float
        For the family ``smooth``: error wanted of kernel entries, in units of the kernel's diagonal.
    """

    name: str
    parameters: tuple[tuple[str, Value], ...]
    family: Family
    breakpoints: tuple[float, ...] = ()
    tolerance: float = 1e-10
    function: Function = field(default=np.asarray, repr=False, compare=False)
    derivative_function: Function | None = field(default=None, repr=False, compare=False)
    source: tuple[Any, ...] = field(default=(), repr=False)  # a custom activation is told apart by its callables

    def __call__(self, x: ArrayLike) -> FloatArray:
        """Apply the function elementwise; shape kept, float64."""
        return self.function(np.asarray(x, dtype=np.float64))

    def derivative(self, x: ArrayLike) -> FloatArray:
        """Apply the derivative elementwise; the right-hand one at breakpoints, 0 for steps.

        Raises
        ------
        ValueError
            If the activation is custom and was made without `derivative`.
        """
        if self.derivative_function is None:
            raise ValueError(
                f"`derivative` of the activation {self} is not known: pass derivative=... to activations.custom"
            )
        return self.derivative_function(np.asarray(x, dtype=np.float64))

    def __str__(self) -> str:
        if not self.parameters:
            return self.name
        inside = ", ".join(f"{key}={_show(value)}" for key, value in self.parameters)
        return f"{self.name}({inside})"

    @property
    def is_step(self) -> bool:
        """Whether the function is piecewise constant."""
        return self.family == "step"

    def parameter(self, key: str) -> Value:
        """Return one parameter by name."""
        return dict(self.parameters)[key]

    @property
    def thresholds(self) -> FloatArray:
        """Thresholds s_1 < … < s_k of a step, in units of its argument, shape (k,)."""
        return np.array(self._step_parameter("thresholds"))

    @property
    def levels(self) -> FloatArray:
        """Levels l_0, …, l_k of a step, shape (k + 1,)."""
        return np.array(self._step_parameter("levels"))

    def _step_parameter(self, key: str) -> Value:
        if not self.is_step:
            raise AttributeError(f"only step activations have {key}; {self} is not piecewise constant")
        if self.name == "step":
            return self.parameter(key)
        return _NAMED_STEPS[self.name][key]


def _show(value: Value) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{entry:.6g}" for entry in value) + ("," if len(value) == 1 else "") + ")"
    return f"{value:.6g}"


# Function bodies: module-level, so that activations can be pickled.


def _homogeneous(alpha: float, beta: float, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, alpha * x, -beta * x)


def _homogeneous_slope(alpha: float, beta: float, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, alpha, -beta)


def _erf_slope(x: FloatArray) -> FloatArray:
    return 2.0 / math.sqrt(math.pi) * np.exp(-(x**2))


def _polynomial(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    return np.polynomial.polynomial.polyval(x, np.array(coefficients))


def _polynomial_slope(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    slope = np.polynomial.polynomial.polyder(np.array(coefficients))
    return np.asarray(np.polynomial.polynomial.polyval(x, slope), dtype=np.float64)


def _step(thresholds: tuple[float, ...], levels: tuple[float, ...], x: FloatArray) -> FloatArray:
    return np.array(levels)[np.searchsorted(np.array(thresholds), x, side="right")]


def _gelu(x: FloatArray) -> FloatArray:
    return x * special.ndtr(x)


def _gelu_slope(x: FloatArray) -> FloatArray:
    return special.ndtr(x) + x * np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)


def _negative_sin(x: FloatArray) -> FloatArray:
    return -np.sin(x)


def _tanh_slope(x: FloatArray) -> FloatArray:
    return (1.0 - np.tanh(x)) * (1.0 + np.tanh(x))


def _sigmoid_slope(x: FloatArray) -> FloatArray:
    return special.expit(x) * special.expit(-x)


def _softplus(x: FloatArray) -> FloatArray:
    return np.logaddexp(0.0, x)


def _silu(x: FloatArray) -> FloatArray:
    return x * special.expit(x)


def _silu_slope(x: FloatArray) -> FloatArray:
    return special.expit(x) * (1.0 + x * special.expit(-x))


def _elu(alpha: float, scale: float, x: FloatArray) -> FloatArray:
    return scale * np.where(x >= 0.0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _elu_slope(alpha: float, scale: float, x: FloatArray) -> FloatArray:
    return scale * np.where(x >= 0.0, 1.0, alpha * np.exp(np.minimum(x, 0.0)))


def _gaussian(x: FloatArray) -> FloatArray:
    return np.exp(-0.5 * x**2)


def _gaussian_slope(x: FloatArray) -> FloatArray:
    return -x * np.exp(-0.5 * x**2)


def _exponential(rate: float, x: FloatArray) -> FloatArray:
    return np.exp(rate * x)


def _exponential_slope(rate: float, x: FloatArray) -> FloatArray:
    return rate * np.exp(rate * x)


def _rectified_monomial(degree: int, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, x**degree, 0.0)


def _rectified_monomial_slope(degree: int, x: FloatArray) -> FloatArray:
    return np.where(x >= 0.0, degree * x ** (degree - 1), 0.0)


def _homogeneous_activation(name: str, alpha: float, beta: float, **parameters: float) -> Activation:
    return Activation(
        name,
        tuple(parameters.items()),
        "homogeneous",
        () if alpha == -beta else (0.0,),
        function=partial(_homogeneous, alpha, beta),
        derivative_function=partial(_homogeneous_slope, alpha, beta),
    )


def _smooth(name: str, function: Function, derivative: Function, *, kink: bool = False) -> Activation:
    return Activation(name, (), "smooth", (0.0,) if kink else (), function=function, derivative_function=derivative)


_NAMED_STEPS: dict[str, dict[str, tuple[float, ...]]] = {
    "sign": {"thresholds": (0.0,), "levels": (-1.0, 1.0)},
    "heaviside": {"thresholds": (0.0,), "levels": (0.0, 1.0)},
}


def _step_activation(
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
        function=partial(_step, thresholds, levels),
        derivative_function=np.zeros_like,
    )


relu = _homogeneous_activation("relu", 1.0, 0.0)
identity = _homogeneous_activation("identity", 1.0, -1.0)
abs = _homogeneous_activation("abs", 1.0, 1.0)
erf = Activation("erf", (), "erf", function=special.erf, derivative_function=_erf_slope)
gelu = _smooth("gelu", _gelu, _gelu_slope)
sin = _smooth("sin", np.sin, np.cos)
cos = _smooth("cos", np.cos, _negative_sin)
tanh = _smooth("tanh", np.tanh, _tanh_slope)
sigmoid = _smooth("sigmoid", special.expit, _sigmoid_slope)
softplus = _smooth("softplus", _softplus, special.expit)
silu = _smooth("silu", _silu, _silu_slope)
elu = _smooth("elu", partial(_elu, 1.0, 1.0), partial(_elu_slope, 1.0, 1.0), kink=True)
_SELU = (1.6732632423543772, 1.0507009873554805)  # Klambauer et al. (2017), Self-Normalizing Neural Networks
selu = _smooth("selu", partial(_elu, *_SELU), partial(_elu_slope, *_SELU), kink=True)
gaussian = _smooth("gaussian", _gaussian, _gaussian_slope)
sign = _step_activation("sign", **_NAMED_STEPS["sign"], parameters=())
heaviside = _step_activation("heaviside", **_NAMED_STEPS["heaviside"], parameters=())


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """σ(t) = t for t ≥ 0, `negative_slope` · t below."""
    slope = check_real(negative_slope, "negative_slope")
    return _homogeneous_activation("leaky_relu", 1.0, -slope, negative_slope=slope)


def polynomial(coefficients: ArrayLike) -> Activation:
    """σ(t) = Σ_k coefficients[k] t^k, coefficients in ascending order, shape (degree + 1,)."""
    array = check_array(coefficients, "coefficients", 1)
    trimmed = np.trim_zeros(array, "b")
    if trimmed.size == 0:
        raise ValueError("`coefficients` must have a non-zero entry, got zeros only: the network would be constant")
    if trimmed.size > 33:
        raise ValueError(f"`coefficients` must have degree at most 32, got degree {trimmed.size - 1}")
    values = tuple(float(value) for value in trimmed)
    return Activation(
        "polynomial",
        (("coefficients", values),),
        "polynomial",
        function=partial(_polynomial, values),
        derivative_function=partial(_polynomial_slope, values),
    )


def rectified_monomial(degree: int) -> Activation:
    """σ(t) = max(t, 0)^degree, degree ≥ 1."""
    degree = check_integer(degree, "degree", low=1, high=16)
    if degree == 1:
        return relu
    return Activation(
        "rectified_monomial",
        (("degree", degree),),
        "smooth",
        (0.0,),
        function=partial(_rectified_monomial, degree),
        derivative_function=partial(_rectified_monomial_slope, degree),
    )


def exp(rate: float = 1.0) -> Activation:
    """σ(t) = exp(rate · t)."""
    rate = check_real(rate, "rate")
    return Activation(
        "exp",
        (("rate", rate),),
        "smooth",
        function=partial(_exponential, rate),
        derivative_function=partial(_exponential_slope, rate),
    )


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
    return _step_activation("step", s_tuple, l_tuple, (("thresholds", s_tuple), ("levels", l_tuple)))


def custom(
    function: Callable[[Any], Any],
    *,
    breakpoints: Sequence[float] = (),
    derivative: Callable[[Any], Any] | None = None,
    tolerance: float = 1e-10,
) -> Activation:
    """Wrap any vectorised callable.

    Parameters
    ----------
    function : callable
        Maps a float64 array to an array of the same shape, real and finite.
    breakpoints : sequence of float
        All points where the function or one of its first derivatives jumps, in units of the argument.
    derivative : callable, optional
        Its derivative, vectorised. Needed for the diagonal of the NTK and for finite networks.
    tolerance : float
        Error wanted of kernel entries, in units of the kernel's diagonal.

    Raises
    ------
    TypeError, ValueError
        If `function` is not callable, or does not map a small array to finite values of the same shape.
    """
    if not callable(function):
        raise TypeError(f"`function` must be callable, got {function!r}")
    if derivative is not None and not callable(derivative):
        raise TypeError(f"`derivative` must be callable or None, got {derivative!r}")
    if np.ndim(breakpoints) != 1:
        raise TypeError(f"`breakpoints` must be a sequence of real numbers, got {breakpoints!r}")
    points = tuple(sorted({check_real(point, "breakpoints") for point in breakpoints}))
    tolerance = check_real(tolerance, "tolerance", low=1e-14, high=1e-1)
    probe = np.linspace(-2.0, 2.0, 9)
    for role, candidate in (("function", function), ("derivative", derivative)):
        if candidate is None:
            continue
        value = np.asarray(candidate(probe.copy()))
        if value.shape != probe.shape or value.dtype.kind not in "fiub":
            raise ValueError(
                f"`{role}` must map a real array to a real array of the same shape, got shape {value.shape} "
                f"and dtype {value.dtype} for an input of shape {probe.shape}: write it with NumPy functions"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"`{role}` must be finite on the real line, got {value.tolist()} on {probe.tolist()}")
    return Activation(
        "custom",
        (),
        "smooth",
        points,
        tolerance,
        function=partial(_as_float, function),
        derivative_function=None if derivative is None else partial(_as_float, derivative),
        source=(function, derivative),
    )


def _as_float(function: Function, x: FloatArray) -> FloatArray:
    return np.asarray(function(x), dtype=np.float64)


_PLAIN: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        relu, identity, abs, erf, gelu, sin, cos, tanh, sigmoid, softplus, silu, elu, selu, gaussian, sign, heaviside
    )
}  # fmt: skip
_WITH_PARAMETERS: dict[str, Callable[..., Activation]] = {
    "leaky_relu": leaky_relu,
    "polynomial": polynomial,
    "rectified_monomial": rectified_monomial,
    "exp": exp,
    "step": step,
}


def names() -> tuple[str, ...]:
    """Return every name that :func:`get` knows, sorted."""
    return tuple(sorted([*_PLAIN, *_WITH_PARAMETERS]))


def get(name: str, **parameters: Any) -> Activation:
    """Return an activation by name, for configuration files and the command line.

    Raises
    ------
    ValueError
        If the name is unknown or takes other parameters.
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string, got {name!r}")
    if name in _PLAIN:
        if parameters:
            raise ValueError(f"`{name}` takes no parameters, got {', '.join(parameters)}")
        return _PLAIN[name]
    if name not in _WITH_PARAMETERS:
        raise ValueError(f"`name` must be one of {', '.join(names())}, got {name!r}")
    try:
        return _WITH_PARAMETERS[name](**parameters)
    except TypeError as error:
        raise ValueError(f"`{name}` cannot take the parameters {parameters}: {error}") from None


def parse(text: str) -> tuple[Activation, ...]:
    """Read a comma-separated list such as ``"relu,leaky_relu(negative_slope=0.1),step([0],[-1,1])"``.

    Raises
    ------
    ValueError
        If the text is not such a list or names an unknown activation.
    """
    if not isinstance(text, str):
        raise TypeError(f"`activations` must be a string such as relu,leaky_relu(0.1),tanh, got {text!r}")
    try:
        tree = ast.parse(f"({text},)", mode="eval").body
        if not isinstance(tree, ast.Tuple) or not text.strip():
            raise SyntaxError
        return tuple(_from_node(node) for node in tree.elts)
    except SyntaxError:
        raise ValueError(
            f"`activations` must be a comma-separated list such as relu,leaky_relu(0.1),tanh, got {text!r}"
        ) from None


def _from_node(node: ast.expr) -> Activation:
    if isinstance(node, ast.Name):
        return get(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name not in _WITH_PARAMETERS:
            return get(name, **{f"argument {k}": None for k in range(len(node.args) + len(node.keywords))})
        try:
            arguments = [ast.literal_eval(argument) for argument in node.args]
            keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        except ValueError:
            raise SyntaxError from None
        try:
            return _WITH_PARAMETERS[name](*arguments, **keywords)
        except TypeError as error:
            raise ValueError(f"`{name}` cannot take these arguments: {error}") from None
    raise SyntaxError
