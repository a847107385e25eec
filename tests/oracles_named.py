"""More of :mod:`oracles`: functions and moments of every named activation and its parameters, in mpmath."""

import oracles
from mpmath import mp, mpf
from oracles import FIELDS, Function

SIGMOID_LIKE = 2.4020563531719796
ANALYTIC = ("sin", "cos", "rbf", "exp", "gaussian", "exp_square", "exp_normalized")


first_function = oracles.function


def number(parameters, key, default):
    return mpf(parameters.get(key, default))


def slopes_of(name, parameters):
    """(α, β) of σ(t) = α max(t, 0) + β max(−t, 0), or None."""
    return (parameters["b"], -parameters["a"]) if name == "ab_relu" else oracles.slopes_of(name, parameters)


def wave(name, parameters):
    """(A, f, φ) of A sin(ft + φ)."""
    if name == "rbf":
        return mp.sqrt(2), mp.sqrt(2 * mpf(parameters["gamma"])), mp.pi / 4
    shift = mp.pi / 2 if name == "cos" else mpf(0)
    return (
        number(parameters, "amplitude", 1),
        number(parameters, "frequency", 1),
        number(parameters, "phase", 0) + shift,
    )


def bell(name, parameters):
    """(A, a) of A exp(a t²)."""
    if name == "gaussian":
        return mpf(1), mpf(-0.5)
    return number(parameters, "amplitude", 1), mpf(parameters["rate"])


def function(name, parameters):
    """σ and σ' in mpmath, at the working precision of the caller."""
    if name == "ab_relu":
        a, b = mpf(parameters["a"]), mpf(parameters["b"])
        return Function(lambda x: b * x if x >= 0 else a * x, lambda x: b if x >= 0 else a, (0.0,))
    if name == "sigmoid_like":  # ½ erf(t/scale) + ½ without its cancellation
        scale = mpf(SIGMOID_LIKE)
        return Function(
            lambda x: mp.erfc(-x / scale) / 2, lambda x: mp.exp(-((x / scale) ** 2)) / (scale * mp.sqrt(mp.pi))
        )
    if name == "erf":
        amplitude, rate = number(parameters, "amplitude", 1), number(parameters, "rate", 1)
        offset = number(parameters, "offset", 0)
        return Function(
            lambda x: amplitude * mp.erf(rate * x) + offset,
            lambda x: amplitude * rate * 2 / mp.sqrt(mp.pi) * mp.exp(-((rate * x) ** 2)),
        )
    if name in ("sin", "cos", "rbf"):
        amplitude, frequency, phase = wave(name, parameters)
        return Function(
            lambda x: amplitude * mp.sin(frequency * x + phase),
            lambda x: amplitude * frequency * mp.cos(frequency * x + phase),
        )
    if name in ("gaussian", "exp_square"):
        amplitude, rate = bell(name, parameters)
        return Function(
            lambda x: amplitude * mp.exp(rate * x * x), lambda x: 2 * amplitude * rate * x * mp.exp(rate * x * x)
        )
    if name == "exp":
        amplitude, rate = number(parameters, "amplitude", 1), mpf(parameters["rate"])
        return Function(lambda x: amplitude * mp.exp(rate * x), lambda x: amplitude * rate * mp.exp(rate * x))
    if name == "monomial":
        degree = parameters["degree"]
        return Function(lambda x: x**degree, lambda x: degree * x ** (degree - 1))
    if name == "hermite":
        degree = parameters["degree"]
        scale = 1 / mp.sqrt(mp.factorial(degree))
        return Function(lambda x: scale * hermite(degree, x), lambda x: scale * degree * hermite(degree - 1, x))
    if name == "elu":
        alpha = number(parameters, "alpha", 1)
        return Function(
            lambda x: x if x >= 0 else alpha * mp.expm1(x), lambda x: mpf(1) if x >= 0 else alpha * mp.exp(x), (0.0,)
        )
    if name == "gelu_tanh":
        c, d = mp.sqrt(2 / mp.pi), mpf(0.044715)
        return Function(
            lambda x: x / (1 + mp.exp(-2 * c * (x + d * x**3))),
            lambda x: (
                gate(2 * c * (x + d * x**3))
                + x * gate(2 * c * (x + d * x**3)) * gate(-2 * c * (x + d * x**3)) * 2 * c * (1 + 3 * d * x**2)
            ),
        )
    others = {
        "hard_tanh": (lambda x: max(mpf(-1), min(mpf(1), x)), lambda x: mpf(-1 <= x < 1), (-1.0, 1.0)),
        "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2, (0.0,)),
        "gabor": (
            lambda x: mp.exp(-x * x) * mp.sin(x),
            lambda x: mp.exp(-x * x) * (mp.cos(x) - 2 * x * mp.sin(x)),
        ),
    }
    return Function(*others[name]) if name in others else first_function(name, parameters)


def gate(x):
    return 1 / (1 + mp.exp(-x))


def hermite(degree, x):
    """He_degree(x), leading coefficient 1."""
    before, here = mpf(0), mpf(1)
    for k in range(degree):
        before, here = here, x * here - k * before
    return here


def table(mean, d1, d2, d3, second, d1_squared, growth):
    """All fields; `growth` is dE[σ²]/dτ², and dE[(σ − m)²]/dτ² at fixed m differs from it by m E[σ''] (Price)."""
    return dict(zip(FIELDS, (mean, d1, d2, d3, second - mean**2, d1_squared, growth - mean * d2, second), strict=True))


def analytic_moments(name, parameters, tau):
    """Textbook closed forms, subtractions and all, in digits enough for them."""
    with mp.workdps(90):
        q = mpf(tau) ** 2
        if name == "exp_normalized":
            gamma, shift = mpf(parameters["gamma"]), mpf(parameters["shift"])
            squares = [q * mp.exp(gamma * shift) * gamma**k / mp.factorial(k) for k in range(200)]
            root = [mp.sqrt(value) for value in squares[:4]]
            derivatives = [root[k] * mp.sqrt(mp.factorial(k)) / mpf(tau) ** k for k in range(4)]
            slope = mp.fsum(k * value for k, value in enumerate(squares)) / q
            result = table(*derivatives, mp.fsum(squares), slope, mpf(0))
            # no one function at all scales: the variance is proportional to τ²
            return result | {"half_d2_squared": result["variance"] / q}
        if name in ("sin", "cos", "rbf"):
            amplitude, frequency, phase = wave(name, parameters)
            power, decay = frequency**2 * q, mp.exp(-(frequency**2) * q / 2)
            # π/2 is rounded: what is 0 there is left at the working precision
            sine, cosine = (mpf(0) if abs(x) < mpf(10) ** -80 else x for x in (mp.sin(phase), mp.cos(phase)))
            high, low = amplitude * sine * decay, amplitude * cosine * decay
            double = mp.cos(2 * phase) * mp.exp(-2 * power)
            return table(
                high,
                frequency * low,
                -(frequency**2) * high,
                -(frequency**3) * low,
                amplitude**2 / 2 * (1 - double),
                (amplitude * frequency) ** 2 / 2 * (1 + double),
                (amplitude * frequency) ** 2 * double,
            )
        if name == "exp":
            amplitude, rate = number(parameters, "amplitude", 1), mpf(parameters["rate"])
            mean, second = amplitude * mp.exp(rate**2 * q / 2), amplitude**2 * mp.exp(2 * rate**2 * q)
            return table(
                mean, rate * mean, rate**2 * mean, rate**3 * mean, second, rate**2 * second, 2 * rate**2 * second
            )
        amplitude, rate = bell(name, parameters)
        w, v = 1 - 2 * rate * q, 1 - 4 * rate * q
        second = amplitude**2 / mp.sqrt(v)
        return table(
            amplitude / mp.sqrt(w),
            mpf(0),
            2 * rate * amplitude / w ** mpf(1.5),
            mpf(0),
            second,
            4 * rate**2 * q * second / v,
            2 * rate * second / v,
        )


def reference_moments(name, parameters, tau, **precision):
    """The independent closed form where the integral needs too many panels, digits or reach, else the integral."""
    if oracles.step_of(name, parameters) is not None:
        return oracles.reference_moments(name, parameters, tau)
    if name in ANALYTIC:
        return analytic_moments(name, parameters, tau)
    return moments_by_quadrature(name, parameters, tau, **precision)


def moments_by_quadrature(name, parameters, tau, **precision):
    """:func:`oracles.moments_by_quadrature` of any named function."""
    oracles.function = function  # it looks the function up by its name
    try:
        return oracles.moments_by_quadrature(name, parameters, tau, **precision)
    finally:
        oracles.function = first_function
