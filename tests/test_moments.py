import json
import math
from pathlib import Path

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import activations, quadrature
from rmtntk._moments_closed import CLOSED_FORMS
from rmtntk.hermite import hermite_coefficients
from rmtntk.moments import moment_arrays, polynomial_series, sine_cosine

EPS = float(np.finfo(np.float64).eps)
TABLE = json.loads((Path(__file__).parent / "data" / "moments.json").read_text(encoding="utf-8"))
SIGNED = {"mean", "d1", "d2", "d3", "half_d2_squared"}  # sums of terms of either sign
SMOOTH = tuple(name for name in activations.names() if getattr(getattr(activations, name), "family", "") == "smooth")
# One or more of every family with closed forms and a function
CLOSED_FUNCTIONS = (
    activations.relu,
    activations.ab_relu(-0.3, 1.7),
    activations.erf,
    activations.erf_with(1.5, 0.7, -0.4),
    activations.sigmoid_like,
    activations.gelu,
    activations.sin,
    activations.cos,
    activations.sin_with(1.5, 0.7, -0.4),
    activations.cos_with(-2.0, 1.3, 0.5),
    activations.rbf(2.0),
    activations.exp(0.3),
    activations.exp(-1.1, -0.6),
    activations.gaussian,
    activations.exp_square(-1.0),
    activations.exp_square(0.03, 2.0),
    activations.rectified_monomial(2),
    activations.rectified_monomial(5),
    activations.polynomial((1.0, 2.0, -1.0, 0.5)),
    activations.monomial(4),
    activations.hermite(6),
)


def label(row):
    inside = ",".join(f"{key}={value}" for key, value in row["parameters"].items())
    return f"{row['name']}({inside})@{row['tau']:g}"


def activation(row):
    return activations.get(row["name"], **row["parameters"])


def units(second, tau):
    s = math.sqrt(second)
    table = {"mean": s, "d1": s / tau, "d2": s / tau**2, "d3": s / tau**3}
    return table | {"variance": second, "half_d2_squared": second / tau**2, "second": second}


CLOSED = [row for row in TABLE["rows"] if activation(row).family != "smooth"]
INTEGRATED = [row for row in TABLE["rows"] if activation(row).family == "smooth"]


def test_table_says_where_it_comes_from():
    assert TABLE["script"] == "validation/reference_moments.py"
    assert TABLE["dps"] >= 50
    assert len(CLOSED) > 190
    assert len(INTEGRATED) > 60
    assert {activation(row).family for row in CLOSED} == {*CLOSED_FORMS, "step"}


@pytest.mark.parametrize("row", CLOSED, ids=label)
def test_closed_forms_agree_with_mpmath(row):
    got = rn.moments(activation(row), row["tau"])
    unit = units(float(row["second"]), row["tau"])
    for field in oracles.FIELDS:
        want = float(row[field])
        # rtol: a few eps of exp and erfc, times r² ≤ 430 where exp(−r²/2) > 1e-93 magnifies the rounding of r = s/τ;
        # below 1e-93, r² eps itself. atol: sums that cancel by (near) symmetry are good to a few eps of their unit.
        r_squared = -2.0 * math.log(abs(want)) if 0.0 < abs(want) < 1e-93 else 0.0
        rtol = max(1e-13, r_squared * EPS)
        atol = 4.0 * EPS * unit[field] if field in SIGNED else 0.0
        assert_allclose(getattr(got, field), want, rtol=rtol, atol=max(atol, 1e-290), err_msg=field)
    act = activation(row)
    far = act.is_step and np.abs(act.thresholds).min() > 5.0 * row["tau"]  # moments that are tails
    assert got.error <= (1e-8 if far else 1e-12)


@pytest.mark.parametrize("row", CLOSED, ids=label)
def test_closed_forms_keep_their_own_bound(row):
    got = rn.moments(activation(row), row["tau"])
    unit = units(float(row["second"]), row["tau"]) | {"d1_squared": float(row["d1_squared"])}
    for field in oracles.FIELDS:
        # atol: the bound the package reports, in its documented units
        assert_allclose(getattr(got, field), float(row[field]), rtol=0.0, atol=got.error * unit[field], err_msg=field)


@pytest.mark.parametrize("row", INTEGRATED, ids=label)
def test_quadrature_keeps_its_own_bound(row):
    got = rn.moments(activation(row), row["tau"])
    assert got.error <= 1e-12
    unit = units(float(row["second"]), row["tau"]) | {"d1_squared": float(row["d1_squared"])}
    for field in oracles.FIELDS:
        # atol: the bound the package reports, in its documented units
        assert_allclose(getattr(got, field), float(row[field]), rtol=0.0, atol=got.error * unit[field], err_msg=field)


def test_values_that_can_be_checked_by_hand():
    relu = rn.moments(activations.relu, 2.0)
    assert relu.mean == pytest.approx(2.0 / math.sqrt(2.0 * math.pi), rel=4 * EPS)  # one product, one division
    assert (relu.d1, relu.d1_squared, relu.second) == (0.5, 0.5, 2.0)
    sign = rn.moments(activations.sign, 3.0)
    assert (sign.mean, sign.variance, sign.d1_squared) == (0.0, 1.0, math.inf)
    assert sign.d1 == pytest.approx(2.0 / (3.0 * math.sqrt(2.0 * math.pi)), rel=4 * EPS)
    # Klambauer et al. chose the constants of SELU so that N(0, 1) is a fixed point
    assert rn.moments(activations.selu, 1.0).second == pytest.approx(1.0, abs=1e-13)
    assert rn.moments(activations.selu, 1.0).mean == pytest.approx(0.0, abs=1e-13)


@pytest.mark.parametrize("tau", [1e4, 1e5, 1e7])
def test_saturated_functions_see_their_narrow_slope(tau):
    # tanh'(τξ) lives on |ξ| < 20/τ: E[f(τξ)] = (φ(0)/τ) ∫ f + O(τ⁻³), with ∫ sech² = 2 and ∫ sech⁴ = 4/3
    peak = 1.0 / (tau * math.sqrt(2.0 * math.pi))
    m = rn.moments(activations.tanh, tau)
    assert_allclose(m.d1, 2.0 * peak, rtol=1e-7)  # the next term is below 1/τ² ≤ 1e-8
    assert_allclose(m.d1_squared, 4.0 / 3.0 * peak, rtol=1e-7)
    assert_allclose(m.variance, 1.0 - 2.0 * peak, rtol=1e-7)
    assert rn.moments(activations.sigmoid, tau).d1 == pytest.approx(peak, rel=1e-7)


def test_rectified_monomial_of_degree_one_is_relu():
    assert activations.rectified_monomial(1) is activations.relu


@pytest.mark.parametrize("name", ["relu", "erf", "tanh", "gelu", "sign", "gaussian", "cos", "softplus", "hard_tanh"])
def test_arrays_of_scales_hold_the_scalars(name):
    act = activations.get(name)
    taus = np.array([0.3, 1.0, 1.0, 2.5, 0.3])
    table = moment_arrays(act, taus)
    for k, tau in enumerate(taus):
        one = rn.moments(act, tau)
        for field in (*oracles.FIELDS, "error"):
            # atol: adaptive quadrature splits a batch and a single scale alike, rounding apart
            assert_allclose(getattr(table, field)[k], getattr(one, field), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    "act", [*CLOSED_FUNCTIONS, *(activations.get(name) for name in (*SMOOTH, "abs", "sign", "heaviside"))], ids=str
)
def test_at_scale_zero_the_input_does_not_vary(act):
    table = moment_arrays(act, np.array([0.0]))
    at_zero = float(act(np.zeros(1))[0])
    assert_allclose(table.mean, at_zero, rtol=4 * EPS)  # A sin φ, and its square as a sum of two
    assert_allclose(table.second, at_zero**2, rtol=8 * EPS)
    assert table.variance[0] == 0.0
    if not act.is_step and act.family != "homogeneous":  # a kink at 0 itself has two slopes
        slope = 1.0 if act.name in ("elu", "selu") else float(act.derivative(np.zeros(1))[0])
        slope *= 1.0507009873554805 if act.name == "selu" else 1.0
        assert_allclose(table.d1_squared, slope**2, rtol=8 * EPS)


# Closed forms against other routes


@pytest.mark.parametrize("tau", [0.03, 0.5, 1.0, 2.0, 30.0])
@pytest.mark.parametrize("act", CLOSED_FUNCTIONS, ids=str)
def test_closed_forms_agree_with_the_quadrature(act, tau):
    if act.family == "exponential" and act.constants[1] ** 2 * tau**2 > 20.0:
        return  # the mass of exp(r t)² about ξ = 2 r τ leaves the range of the rule
    if act.family == "gaussian" and act.constants[1] * tau**2 > 0.2:
        return  # diverges: see test_exp_square_ends_at_a_quarter
    numeric = activations.custom(act.function, breakpoints=act.breakpoints, derivative=act.derivative_function)
    got, want = rn.moments(act, tau), rn.moments(numeric, tau)
    unit = units(want.second, tau) | {"d1_squared": want.d1_squared}
    for field in oracles.FIELDS:
        bound = (got.error + want.error) * unit[field]  # the two reported bounds
        assert_allclose(getattr(got, field), getattr(want, field), rtol=0.0, atol=bound, err_msg=field)


@pytest.mark.parametrize("act", [*CLOSED_FUNCTIONS, activations.tanh, activations.softsign], ids=str)
def test_moments_grow_as_integration_by_parts_says(act):
    # dE[f(√q ξ)]/dq = ½E[f''] for f = σ, (σ − m)²; the mean third derivative is 2 dE[σ']/dq
    tau, step = 0.9, 1e-4

    def at(q):
        m = rn.moments(act, math.sqrt(q))
        return np.array([m.mean, m.variance + (m.mean - here.mean) ** 2, m.d1])

    here = rn.moments(act, tau)
    slope = (at(tau**2 + step) - at(tau**2 - step)) / (2.0 * step)
    want = np.array([0.5 * here.d2, here.half_d2_squared, 0.5 * here.d3])
    # O(step²) = 1e-8 times third derivatives in q, below 1e3 of the size here (powers up to q⁶)
    assert_allclose(slope, want, rtol=1e-6, atol=1e-7 * np.abs(want).max())


@pytest.mark.parametrize("tau", [1e-150, 1e-80, 1e-6])
@pytest.mark.parametrize("act", CLOSED_FUNCTIONS, ids=str)
def test_small_scales_keep_the_digits_of_the_variance(act, tau):
    m = rn.moments(act, tau) if tau > 1e-70 else moment_arrays(act, np.array([tau]))
    slope = act.derivative(0.0)
    if act.family in ("homogeneous", "rectified") or act.name in ("monomial", "hermite"):
        return  # no expansion at the kink; powers: exact, and in the table
    bend = (act.derivative(1e-4) - act.derivative(-1e-4)) / 2e-4
    # σ(τξ) = σ(0) + σ'(0) τξ + ½σ''(0) τ²(ξ² − 1) + …: O(τ²) more, and the difference quotient is good to 1e-7
    want = (slope * tau) ** 2 + 0.5 * (bend * tau * tau) ** 2
    rtol = 1e-10 if slope != 0.0 else 1e-6
    assert_allclose(m.variance, want, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("tau", [1e-150, 1e-60, 1.0, 1e60, 1e150])
@pytest.mark.parametrize("act", [*CLOSED_FUNCTIONS, activations.exp_normalized(2.0), activations.sign], ids=str)
def test_closed_forms_hold_wherever_they_fit_float64(act, tau):
    # no warning either: pytest turns them into errors
    # E[σ²] grows like τ^2k, or like an exponential
    power = {"polynomial": len(act.constants) - 1, "rectified": sum(act.constants), "exponential": math.inf}
    grows = math.inf if act == activations.exp_square(0.03, 2.0) else power.get(act.family, 0)
    if tau > 1.0 and 2.0 * grows * math.log10(tau) > 308.0:
        with pytest.raises(rn.AccuracyError, match=r"overflow|finite E\[σ²\]"):
            moment_arrays(act, np.array([tau]))
        return
    fields = moment_arrays(act, np.array([1.0, tau]))
    for name in ("mean", "variance", "second", "error"):
        assert np.isfinite(getattr(fields, name)).all()
    assert (fields.variance >= 0.0).all()
    assert (fields.d1_squared >= 0.0).all()


def test_large_scales_are_known_limits():
    tau = 1e9
    relu, gelu, erf = (rn.moments(activations.get(name), tau) for name in ("relu", "gelu", "erf"))
    for field in oracles.FIELDS:  # GELU is ReLU from afar, to O(1/τ)
        assert_allclose(getattr(gelu, field), getattr(relu, field), rtol=1e-8)
    assert erf.variance == pytest.approx(1.0, rel=1e-8)
    assert rn.moments(activations.rbf(0.5), tau).variance == pytest.approx(1.0, rel=4 * EPS)  # √2² is rounded
    assert rn.moments(activations.gaussian, tau).second == pytest.approx(1.0 / (math.sqrt(2.0) * tau), rel=1e-8)


@pytest.mark.parametrize("tau", [1e-3, 0.7, 1.0, 5.0])
def test_relations_between_names(tau):
    def same(act, other, at=tau, factor=1.0, rtol=8 * EPS):
        m, w = rn.moments(act, tau), rn.moments(other, at)
        powers = {"mean": 0, "variance": 0, "second": 0, "d1": 1, "d2": 2, "d3": 3}
        powers |= {"d1_squared": 2, "half_d2_squared": 2}
        unit = units(m.second, tau)
        for field, power in powers.items():
            atol = rtol * unit[field] if field in SIGNED else 0.0
            assert_allclose(getattr(m, field), getattr(w, field) * factor**power, rtol=rtol, atol=atol, err_msg=field)

    same(activations.ab_relu(0.1, 1.0), activations.leaky_relu(0.1))
    same(activations.ab_relu(-1.0, 1.0), activations.abs)
    same(activations.exp_square(-0.5), activations.gaussian)
    same(activations.erf_with(1.0, 2.0), activations.erf, 2.0 * tau, 2.0)
    same(activations.sin_with(1.0, 2.0), activations.sin, 2.0 * tau, 2.0)
    same(activations.cos_with(1.0, 0.5), activations.cos, 0.5 * tau, 0.5)
    same(activations.exp_square(-2.0), activations.gaussian, 2.0 * tau, 2.0)
    same(activations.exp_square(0.08 / 25.0), activations.exp_square(0.02 / 25.0), 2.0 * tau, 2.0)
    same(activations.exp(0.5), activations.exp(0.25), 2.0 * tau, 2.0)
    same(activations.monomial(1), activations.identity)
    same(activations.monomial(3), activations.polynomial([0.0, 0.0, 0.0, 1.0]))
    same(activations.sin_with(1.0, 1.0, 0.5 * math.pi), activations.cos)
    # 1 of the variance 1/2(1 − e^{−q})² of the cosine; the phase keeps ½ of either
    rbf = rn.moments(activations.rbf(0.3), tau)
    assert rbf.second == pytest.approx(1.0, rel=8 * EPS)
    assert rbf.d1_squared == pytest.approx(0.6, rel=8 * EPS)
    # powers cancel in he_11 up to Σ|c_j| E|τξ|^j: the bound that `polynomial` reports
    coefficients = activations.hermite(11).constants
    same(
        activations.hermite(11),
        activations.polynomial(coefficients),
        rtol=rn.moments(activations.polynomial(coefficients), tau).error,
    )


def test_phases_that_mean_multiples_of_a_right_angle():
    right = 0.5 * math.pi
    assert [sine_cosine(k * right) for k in range(-2, 3)] == [(0, -1), (-1, 0), (0, 1), (1, 0), (0, -1)]
    assert sine_cosine(1e-9) == (math.sin(1e-9), 1.0)
    assert sine_cosine(right + 1e-9) == (math.sin(right + 1e-9), math.cos(right + 1e-9))
    m = rn.moments(activations.cos, 1e-20)
    assert m.d1 == m.d3 == 0.0
    assert m.d1_squared == pytest.approx(1e-40, rel=1e-14)  # cos φ = 6e-17 would be 4e-33


@pytest.mark.parametrize("rate", [0.25, 0.3, 0.49])
def test_exp_square_ends_at_a_quarter(rate):
    # The square of e^{at²} against e^{−t²/2τ²}: E[σ²] is finite for a < 1/(4τ²), E[σ] for a < 1/(2τ²).
    def square(reach):
        xi = np.linspace(-reach, reach, 200_001)
        return float(np.trapezoid(np.exp((2.0 * rate - 0.5) * xi**2), xi)) / math.sqrt(2.0 * math.pi)

    assert square(20.0) > 1.9 * square(10.0)  # no limit: at a = ¼ it grows like the range
    for tau, a in ((1.0, rate), (2.0, rate / 4.0), (0.5, 4.0 * rate)):
        act = activations.exp_square(a)
        with pytest.raises(rn.AccuracyError, match=r"`rate` must be below 1/\(4 τ²\)"):
            rn.moments(act, tau)
        with pytest.raises(rn.AccuracyError, match=f"at scale τ = {tau:g}"):
            moment_arrays(act, np.array([tau / 100.0, tau]))


def test_exp_square_is_exact_up_to_its_end():
    rate = 0.25 - 1e-12
    left = 4.0 * (0.25 - rate)  # exact: 1 − 4a by subtraction of nearby numbers
    assert rn.moments(activations.exp_square(rate), 1.0).second == pytest.approx(left**-0.5, rel=4 * EPS)
    # 4 · 0.1 · τ² with τ² not a float: to twice the digits, by mpmath
    tau = math.sqrt(2.5) * (1.0 - 1e-13)
    with mp.workdps(40):
        want = float(1 / mp.sqrt(1 - 4 * mp.mpf(0.1) * mp.mpf(tau) ** 2))
    assert rn.moments(activations.exp_square(0.1), tau).second == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize("tau", [0.5, 3.0])
def test_exp_normalized_is_its_kernel_on_the_diagonal(tau):
    gamma, shift = 1.7, -0.6
    m = rn.moments(activations.exp_normalized(gamma, shift), tau)
    assert m.second == pytest.approx(tau**2 * math.exp(gamma * (1.0 + shift)), rel=8 * EPS)
    # ρ = 0: the kernel is the product of the means; its slope there, that of the first Hermite coefficients
    assert m.mean**2 == pytest.approx(tau**2 * math.exp(gamma * shift), rel=8 * EPS)
    assert (tau * m.d1) ** 2 == pytest.approx(gamma * tau**2 * math.exp(gamma * shift), rel=8 * EPS)
    assert m.d1_squared == pytest.approx(gamma * math.exp(gamma * (1.0 + shift)), rel=8 * EPS)
    assert m.variance == pytest.approx(m.second - m.mean**2, rel=1e-14)
    assert m.half_d2_squared == pytest.approx(m.variance / tau**2, rel=8 * EPS)


# Custom functions


@pytest.mark.parametrize("tau", [0.03, 0.5, 1.0, 2.0, 30.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_custom_with_derivative_equals_the_named_function(name, tau):
    act = activations.get(name)
    same = activations.custom(act.function, breakpoints=act.breakpoints, derivative=act.derivative_function)
    got, want = rn.moments(same, tau), rn.moments(act, tau)
    assert got == want  # the same arithmetic on the same values


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", [*SMOOTH, "relu", "abs", "erf", "identity"])
def test_custom_without_derivative_finds_the_same_moments(name, tau):
    act = activations.get(name)
    got = rn.moments(activations.custom(act.function, breakpoints=act.breakpoints), tau)
    want = rn.moments(act, tau)
    unit = units(want.second, tau)
    for field in oracles.FIELDS:
        if field != "d1_squared":
            # atol: both bounds, in natural units
            bound = (1e-12 + want.error) * unit[field]
            assert_allclose(getattr(got, field), getattr(want, field), rtol=0.0, atol=bound, err_msg=field)
    # rtol: ten times the tolerance of 1e-10 that E[σ'²] is asked for when σ is differentiated numerically
    assert_allclose(got.d1_squared, want.d1_squared, rtol=1e-9)
    assert got.error <= 1e-8


@pytest.mark.parametrize("name, tau", [*((name, tau) for name in SMOOTH for tau in (1e-3, 30.0)), ("tanh", 1e3)])
def test_custom_without_derivative_is_never_silently_wrong(name, tau):
    act = activations.get(name)
    try:
        got = rn.moments(activations.custom(act.function, breakpoints=act.breakpoints), tau)
    except rn.AccuracyError:
        return  # refused: not silent
    want = rn.moments(act, tau)
    unit = units(want.second, tau) | {"d1_squared": want.d1_squared}
    for field in oracles.FIELDS:
        bound = (got.error + want.error) * unit[field]  # the two reported bounds
        assert_allclose(getattr(got, field), getattr(want, field), rtol=0.0, atol=bound, err_msg=field)


def ramp(t):
    return np.clip(t, -0.5, 1.25)


def ramp_slope(t):
    return np.where((t >= -0.5) & (t < 1.25), 1.0, 0.0)


@pytest.mark.parametrize("tau", [0.3, 1.0, 5.0])
def test_declared_breakpoints_are_used(tau):
    got = rn.moments(activations.custom(ramp, breakpoints=(-0.5, 1.25), derivative=ramp_slope), tau)
    # by hand: E[σ'] = E[σ'²] = P(−½ ≤ τξ < 1¼), E[σ''] = (φ(½/τ) − φ(1¼/τ))/τ
    low, high = -0.5 / tau, 1.25 / tau
    share = 0.5 * (math.erf(high / math.sqrt(2.0)) - math.erf(low / math.sqrt(2.0)))
    bend = (math.exp(-0.5 * low**2) - math.exp(-0.5 * high**2)) / (tau * math.sqrt(2.0 * math.pi))
    for value, want in ((got.d1, share), (got.d1_squared, share), (got.d2, bend)):
        assert_allclose(value, want, rtol=1e-12, atol=1e-13)  # ten times the quadrature's 1e-14, and more for 1/τ²


def test_a_declared_kink_far_from_the_data_costs_nothing():
    far = activations.custom(np.tanh, breakpoints=(1e6,))
    assert rn.moments(far, 1.0).variance == pytest.approx(rn.moments(activations.tanh, 1.0).variance, rel=1e-13)


@pytest.mark.parametrize("derivative", [None, np.zeros_like])
@pytest.mark.parametrize("point", [0.0, 0.3, -2.0])
def test_a_declared_jump_has_infinite_squared_slope(point, derivative):
    act = activations.custom(lambda t: np.where(t >= point, 1.0, -0.5), breakpoints=(point,), derivative=derivative)
    got, want = rn.moments(act, 1.3), rn.moments(activations.step([point], [-0.5, 1.0]), 1.3)
    assert got.d1_squared == math.inf
    for field in set(oracles.FIELDS) - {"d1_squared"}:
        assert_allclose(getattr(got, field), getattr(want, field), rtol=1e-12, atol=1e-14)  # quadrature's request × 10


def test_a_jump_on_a_slope_has_infinite_squared_slope():
    saw = activations.custom(lambda t: t - (t >= 0.5), breakpoints=(0.5,), derivative=np.ones_like)
    assert rn.moments(saw, 1.0).d1_squared == math.inf


def test_an_undeclared_kink_is_refused():
    with pytest.raises(rn.AccuracyError, match="breakpoints"):
        rn.moments(activations.custom(lambda t: np.abs(t - 0.3)), 1.0)


@pytest.mark.parametrize("derivative", [None, np.zeros_like])
@pytest.mark.parametrize("point", [0.0, 0.3, 1.0])
def test_an_undeclared_jump_is_refused(point, derivative):
    # Its E[σ'²] is infinite; the derivative that comes with it says 0.
    act = activations.custom(lambda t: np.where(t >= point, 1.0, 0.0), derivative=derivative)
    with pytest.raises(rn.AccuracyError):
        rn.moments(act, 1.0)


def test_a_wrong_derivative_is_refused():
    # Stein: E[σ'] = E[ξσ]/τ. A factor of two would pass into every kernel unseen.
    with pytest.raises((rn.AccuracyError, ValueError)):
        rn.moments(activations.custom(np.tanh, derivative=lambda t: 2.0 / np.cosh(t) ** 2), 1.0)


def test_a_staircase_without_breakpoints_is_refused():
    with pytest.raises(rn.AccuracyError):
        rn.moments(activations.custom(np.floor), 1.0)


@pytest.mark.parametrize("rate", [0.25, 0.3, 1.0])
def test_moments_that_diverge_are_refused(rate):
    # E[exp(2 rate ξ²)] is infinite from rate = ¼ on
    act = activations.custom(lambda t: np.exp(rate * t**2), derivative=lambda t: 2.0 * rate * t * np.exp(rate * t**2))
    with pytest.raises(rn.AccuracyError):
        rn.moments(act, 1.0)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.24])
def test_heavy_but_finite_moments_are_found(rate):
    act = activations.custom(lambda t: np.exp(rate * t**2), derivative=lambda t: 2.0 * rate * t * np.exp(rate * t**2))
    got = rn.moments(act, 1.0)
    # rtol: the reported bound; E[exp(aξ²)] = (1 − 2a)^-½, and the integrand of the square decays slowly
    assert_allclose(got.mean, (1.0 - 2.0 * rate) ** -0.5, rtol=1e-12 + got.error)
    assert_allclose(got.second, (1.0 - 4.0 * rate) ** -0.5, rtol=1e-12 + got.error)


def test_the_zero_function_has_zero_moments():
    got = rn.moments(activations.custom(np.zeros_like, derivative=np.zeros_like), 1.0)
    assert (got.mean, got.d1, got.variance, got.d1_squared, got.second) == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert not math.isnan(got.error)


# Laws


@st.composite
def steps(draw):
    count = draw(st.integers(1, 5))
    gaps = draw(st.lists(st.floats(0.05, 2.0), min_size=count, max_size=count))
    start = draw(st.floats(-3.0, 1.0))
    jumps = draw(st.lists(st.floats(0.1, 2.0), min_size=count, max_size=count))
    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=count, max_size=count))
    levels = np.concatenate([[draw(st.floats(-2.0, 2.0))], np.array(jumps) * signs])
    return activations.step(start + np.cumsum(gaps), np.cumsum(levels))


@st.composite
def polynomials(draw):
    lower = draw(st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=6))
    return activations.polynomial([*lower, draw(st.floats(0.1, 3.0))])


@given(act=st.one_of(steps(), polynomials()), tau=st.floats(0.2, 5.0))
def test_variance_obeys_the_hermite_bound(act, tau):
    m = rn.moments(act, tau)
    bound = m.d1**2 * tau**2 + 0.5 * m.d2**2 * tau**4 + m.d3**2 * tau**6 / 6.0
    assert m.variance >= bound * (1.0 - 1e-12)  # polynomials of degree 3 attain it: rounding only
    assert m.second == pytest.approx(m.variance + m.mean**2, rel=1e-12)  # rounding of m² against E[σ²]


@given(act=polynomials(), tau=st.floats(0.2, 5.0))
def test_polynomials_by_gauss_hermite(act, tau):
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)  # exact up to degree 31
    weights = weights / weights.sum()
    value, slope = act(tau * nodes), act.derivative(tau * nodes)
    m = rn.moments(act, tau)
    assert_allclose(m.mean, weights @ value, rtol=1e-11, atol=1e-12 * math.sqrt(m.second))  # rounding of the rule
    assert_allclose(m.second, weights @ value**2, rtol=1e-11)
    assert_allclose(m.d1_squared, weights @ slope**2, rtol=1e-11, atol=1e-12)
    assert_allclose(m.d1, weights @ slope, rtol=1e-11, atol=1e-12 * math.sqrt(m.d1_squared))


@given(act=steps(), tau=st.floats(0.2, 5.0), factor=st.sampled_from([0.25, 2.0, 8.0]))
def test_steps_scale_with_their_argument(act, tau, factor):
    wide = activations.step(factor * act.thresholds, act.levels)
    m, w = rn.moments(act, tau), rn.moments(wide, factor * tau)
    # powers of two: exact
    assert (w.mean, w.variance, w.d1 * factor, w.d2 * factor**2) == (m.mean, m.variance, m.d1, m.d2)


@given(negative_slope=st.floats(-2.0, 2.0), tau=st.floats(1e-3, 1e3))
def test_homogeneous_moments_scale_with_tau(negative_slope, tau):
    act = activations.leaky_relu(negative_slope)
    m, unit = rn.moments(act, tau), rn.moments(act, 1.0)
    assert_allclose(m.variance, unit.variance * tau**2, rtol=8 * EPS, atol=1e-300)  # a product or two
    assert_allclose(m.mean, unit.mean * tau, rtol=8 * EPS, atol=1e-300)
    assert (m.d1, m.d1_squared, m.half_d2_squared) == (unit.d1, unit.d1_squared, unit.half_d2_squared)


@pytest.mark.parametrize("name", ["erf", "sin", "sign", "identity", "tanh"])
def test_odd_functions_have_no_even_moments(name):
    m = rn.moments(activations.get(name), 0.8)
    assert abs(m.mean) <= 1e-15  # the two halves cancel to rounding
    assert abs(m.d2) <= 1e-15


@pytest.mark.parametrize("name", ["abs", "cos", "gaussian"])
def test_even_functions_have_no_odd_moments(name):
    m = rn.moments(activations.get(name), 0.8)
    assert abs(m.d1) <= 1e-15  # as above
    assert abs(m.d3) <= 1e-14


@pytest.mark.parametrize("name", ["softplus", "sign", "hard_tanh", "gabor"])
def test_half_d2_squared_is_the_derivative_of_the_variance_at_fixed_centre(name):
    # Price: d/dq E[(σ(√q ξ) − m)²] = ½ E[((σ − m)²)''], m held fixed
    act, tau, step = activations.get(name), 0.9, 1e-4
    centre = rn.moments(act, tau).mean

    def spread(q):
        m = rn.moments(act, math.sqrt(q))
        return m.variance + (m.mean - centre) ** 2

    slope = (spread(tau**2 + step) - spread(tau**2 - step)) / (2.0 * step)
    assert rn.moments(act, tau).half_d2_squared == pytest.approx(slope, rel=1e-6, abs=1e-10)  # O(step²) and rounding


# Hermite series and quadrature below


@pytest.mark.parametrize("name", ["gelu", "tanh", "softplus", "elu", "cos"])
def test_hermite_coefficients_by_gauss_hermite(name):
    act, tau = activations.get(name), np.array([0.4, 1.0, 1.0])
    got = hermite_coefficients(act, tau)
    nodes, weights = np.polynomial.hermite_e.hermegauss(160)
    weights = weights / weights.sum()
    table = [np.ones_like(nodes), nodes]
    for k in range(1, 12):
        table.append((nodes * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1.0))
    # atol: 160 nodes on ELU's kink are off by 1e-6, on analytic functions (in this strip) by 1e-12
    atol = 1e-5 if name == "elu" else 1e-11
    for row, t in enumerate(tau):
        want = [weights @ (act(t * nodes) * table[k]) for k in range(12)]
        assert_allclose(got[row, :12], want, rtol=0.0, atol=atol)
    assert_allclose(got[1], got[2], rtol=0.0, atol=1e-15)  # one matrix product: its rounding


@pytest.mark.parametrize("act", [*(activations.get(name) for name in SMOOTH), *CLOSED_FUNCTIONS], ids=str)
def test_hermite_coefficients_hold_the_moments(act):
    if act.family == "polynomial":
        return  # `polynomial_series`, below
    tau = np.array([0.2, 0.9, 1.5])
    table = hermite_coefficients(act, tau)
    for c, t in zip(table, tau, strict=True):
        m = rn.moments(act, t)
        unit = math.sqrt(m.second)
        assert (c**2).sum() <= m.second * (1.0 + 2e-14)  # rounding of the integrals
        # atol: rounding of the integrals, 1e-13 of E[σ²]^½
        assert_allclose(c[:2], [m.mean, t * m.d1], rtol=0.0, atol=1e-13 * unit)
        assert_allclose(c[2], t**2 * m.d2 / math.sqrt(2.0), rtol=0.0, atol=1e-13 * unit)
        assert_allclose(c[3], t**3 * m.d3 / math.sqrt(6.0), rtol=0.0, atol=1e-13 * unit)


def test_polynomials_have_finite_series():
    act = activations.polynomial([1.0, 2.0, -1.0, 0.5])
    # t³ = τ³(He_3 + 3 He_1), t² = τ²(He_2 + 1)
    want = [[1.0, 0.0, 0.0, 0.0], [1.0 - 4.0, 4.0 + 12.0, -4.0 * math.sqrt(2.0), 4.0 * math.sqrt(6.0)]]
    assert_allclose(polynomial_series(act, np.array([0.0, 2.0])), want, rtol=1e-14)


def test_hermite_polynomials_are_orthonormal_at_scale_one():
    for degree in range(1, 17):
        series = polynomial_series(activations.hermite(degree), np.array([1.0]))[0]
        assert series.tolist() == [0.0] * degree + [1.0]
    # he_2(2ξ) = (4ξ² − 1)/√2 = 4 he_2(ξ) + 3/√2
    got = polynomial_series(activations.hermite(2), np.array([2.0]))[0]
    assert_allclose(got, [3.0 / math.sqrt(2.0), 0.0, 4.0], rtol=4 * EPS)


def test_quadrature_by_hand():
    def integrand(xi, problem):
        density = np.exp(-0.5 * xi**2) / math.sqrt(2.0 * math.pi)
        return np.stack([density, density * xi**4, density * (xi > problem[:, None])], axis=-1)

    values, bounds = quadrature.integrate(integrand, [np.array([0.0]), np.array([1.0])], tolerance=1e-13)
    tail = 0.5 * math.erfc(1.0 / math.sqrt(2.0))
    assert_allclose(values, [[1.0, 3.0, 0.5], [1.0, 3.0, tail]], rtol=1e-13)
    assert (bounds <= 1e-12 * np.array([1.0, 3.0, 1.0])).all()


def test_quadrature_reports_what_it_missed():
    def pole(xi, problem):
        return (np.exp(-0.5 * xi**2) / np.abs(xi - 0.3))[..., None]

    with pytest.raises(rn.AccuracyError, match=r"near ξ = 0\.3") as caught:
        quadrature.integrate(pole, [np.zeros(1)], tolerance=1e-12)
    assert caught.value.bound > 0.0


# Bad input


@pytest.mark.parametrize("act", ["relu", None, np.tanh, 3])
def test_moments_wants_an_activation(act):
    with pytest.raises(TypeError, match="`act`"):
        rn.moments(act, 1.0)


@pytest.mark.parametrize("tau", ["1", None, 1j, True, [1.0], np.ones(2)])
def test_moments_wants_one_real_scale(tau):
    with pytest.raises(TypeError, match="`tau`"):
        rn.moments(activations.relu, tau)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_moments_wants_a_positive_scale(tau):
    with pytest.raises(ValueError, match="`tau`"):
        rn.moments(activations.relu, tau)


@pytest.mark.parametrize("tau", [1e-200, 1e200])
@pytest.mark.parametrize("name", ["relu", "erf", "sign", "tanh", "gelu", "gaussian"])
def test_scales_at_the_ends_of_float64_give_numbers_or_a_reason(name, tau):
    try:
        m = rn.moments(activations.get(name), tau)
    except ValueError:
        return
    fields = [getattr(m, field) for field in oracles.FIELDS if field != "d1_squared"]
    assert np.isfinite([*fields, m.error]).all()


def test_a_function_that_is_nan_somewhere_is_refused():
    holes = activations.custom(lambda t: np.where(np.abs(t) > 3.0, np.nan, t))
    with pytest.raises(rn.AccuracyError, match="nan at t ="):
        rn.moments(holes, 1.0)
