r"""Activation functions and what is known of them in closed form.

Every :class:`Activation` belongs to one *family*, which decides how its Gaussian moments and its dual kernel
are computed; `Activation.constants` holds the numbers of the family's formula, in this order:

``homogeneous`` (α, β)
    σ(t) = α max(t, 0) + β max(−t, 0): ReLU, leaky ReLU, the absolute value, the identity.
``erf`` (A, a, c)
    σ(t) = A erf(a t) + c.
``gelu`` ()
    σ(t) = t Φ(t), with Φ the normal distribution function.
``trig`` (A, f, φ)
    σ(t) = A sin(f t + φ): sine, cosine, random Fourier features.
``exponential`` (A, r)
    σ(t) = A exp(r t).
``gaussian`` (A, a)
    σ(t) = A exp(a t²).
``rectified`` (k,)
    σ(t) = max(t, 0)^k, k ≥ 2 (k = 1 is homogeneous, k = 0 a step).
``exp_normalized`` (γ, s)
    no function but a kernel, √(q_u q_v) exp(γ (ρ + s)).
``polynomial`` (c_0, c_1, …)
    σ(t) = Σ c_k t^k; its Hermite series is finite.
``step`` ()
    piecewise constant, right-continuous: level l_j on [s_j, s_{j+1}); see `thresholds` and `levels`.
``smooth`` ()
    anything else: adaptive quadrature and a truncated Hermite series, both with error bounds.

``docs/activations.md`` lists every name with its formula, its dual kernel and where that was published.
"""

import ast
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from rmtntk._activation import Activation, Function
from rmtntk._named import (
    ab_relu,
    abs,
    cos,
    cos_with,
    elu,
    elu_with,
    erf,
    erf_with,
    exp,
    exp_normalized,
    exp_square,
    gabor,
    gaussian,
    gelu,
    gelu_tanh,
    hard_tanh,
    heaviside,
    hermite,
    identity,
    leaky_relu,
    monomial,
    polynomial,
    rbf,
    rectified_monomial,
    relu,
    selu,
    sigmoid,
    sigmoid_like,
    sign,
    silu,
    sin,
    sin_with,
    softplus,
    softsign,
    step,
    tanh,
)
from rmtntk._typing import FloatArray
from rmtntk._validation import check_real

__all__ = [
    "Activation",
    "ab_relu",
    "abs",
    "cos",
    "cos_with",
    "custom",
    "elu",
    "elu_with",
    "erf",
    "erf_with",
    "exp",
    "exp_normalized",
    "exp_square",
    "gabor",
    "gaussian",
    "gelu",
    "gelu_tanh",
    "get",
    "hard_tanh",
    "heaviside",
    "hermite",
    "identity",
    "leaky_relu",
    "monomial",
    "names",
    "parse",
    "polynomial",
    "rbf",
    "rectified_monomial",
    "relu",
    "selu",
    "sigmoid",
    "sigmoid_like",
    "sign",
    "silu",
    "sin",
    "sin_with",
    "softplus",
    "softsign",
    "step",
    "tanh",
]


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
        try:
            value = np.asarray(candidate(probe.copy()))
        except (TypeError, ValueError) as error:  # as of `max(t, 0)` or math.tanh
            raise ValueError(f"`{role}` must take an array, but fails ({error}): write it with NumPy") from error
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
    value = np.asarray(function(x))
    if value.shape != x.shape or value.dtype.kind not in "fiub":
        raise ValueError(
            f"a custom activation must map a real array to a real array of the same shape, got shape {value.shape} and "
            f"dtype {value.dtype} for an input of shape {x.shape}: write it with NumPy functions"
        )
    return np.asarray(value, dtype=np.float64)


_PLAIN: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        relu, identity, abs, erf, sigmoid_like, gelu, gelu_tanh, sin, cos, gaussian, sign, heaviside,
        tanh, hard_tanh, sigmoid, softplus, softsign, silu, elu, selu, gabor,
    )
}  # fmt: skip
_WITH_PARAMETERS: dict[str, Callable[..., Activation]] = {
    "ab_relu": ab_relu,
    "cos": cos_with,
    "elu": elu_with,
    "erf": erf_with,
    "exp": exp,
    "exp_normalized": exp_normalized,
    "exp_square": exp_square,
    "hermite": hermite,
    "leaky_relu": leaky_relu,
    "monomial": monomial,
    "polynomial": polynomial,
    "rbf": rbf,
    "rectified_monomial": rectified_monomial,
    "sin": sin_with,
    "step": step,
}


def names() -> tuple[str, ...]:
    """Return every name that :func:`get` knows, sorted."""
    return tuple(sorted({*_PLAIN, *_WITH_PARAMETERS}))


def get(name: str, **parameters: Any) -> Activation:
    """Return an activation by name, for configuration files and the command line.

    Raises
    ------
    ValueError
        If the name is unknown or takes other parameters.

    Examples
    --------
    >>> from rmtntk import activations
    >>> print(activations.get("leaky_relu", negative_slope=0.1))
    leaky_relu(negative_slope=0.1)
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string, got {name!r}")
    if name not in _WITH_PARAMETERS:
        if name not in _PLAIN:
            raise ValueError(f"`name` must be one of {', '.join(names())}, got {name!r}")
        if parameters:
            raise ValueError(f"`{name}` takes no parameters, got {', '.join(parameters)}")
        return _PLAIN[name]
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
