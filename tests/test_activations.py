import math
import pickle
from pathlib import Path

import numpy as np
import oracles_named
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from numpy.testing import assert_allclose
from scipy import special

import rmtntk as rn
from rmtntk import activations

EPS = float(np.finfo(np.float64).eps)
PARAMETERS = {
    "ab_relu": {"a": -0.3, "b": 1.7},
    "leaky_relu": {"negative_slope": 0.1},
    "polynomial": {"coefficients": (1.0, 2.0, -1.0, 0.5)},
    "monomial": {"degree": 3},
    "hermite": {"degree": 6},
    "rectified_monomial": {"degree": 3},
    "rbf": {"gamma": 2.0},
    "exp": {"rate": 0.3},
    "exp_square": {"rate": -1.0},
    "exp_normalized": {"gamma": 1.5, "shift": -1.0},
    "step": {"thresholds": (-0.4, 0.9), "levels": (-1.0, 0.0, 1.0)},
}
# Names that stand for one function, and with parameters for its relatives
SCALED = {
    "erf": {"amplitude": 1.5, "rate": 0.7, "offset": -0.4},
    "sin": {"amplitude": 1.5, "frequency": 0.7, "phase": -0.4},
    "cos": {"amplitude": -2.0, "frequency": 1.3, "phase": 0.5},
    "elu": {"alpha": 0.5},
    "exp": {"rate": -1.1, "amplitude": -0.6},
    "exp_square": {"rate": 0.055, "amplitude": 2.0},
    "hermite": {"degree": 16},
    "monomial": {"degree": 1},
}
EVERY = {name: activations.get(name, **PARAMETERS.get(name, {})) for name in activations.names()}
MORE = [*((name, PARAMETERS.get(name, {})) for name in EVERY), *SCALED.items()]
KERNELS = ("exp_normalized",)  # no functions
FUNCTIONS = [name for name in EVERY if name not in KERNELS]
PLAIN = [name for name in EVERY if name not in PARAMETERS]
POINTS = np.array([-30.0, -3.1, -0.41, -1e-3, 1e-3, 0.35, 0.8, 2.7, 20.0])


@pytest.mark.parametrize("name, parameters", [pair for pair in MORE if pair[0] not in KERNELS])
def test_values_and_derivatives_against_mpmath(name, parameters):
    act = activations.get(name, **parameters)
    with mp.workdps(40):
        f = oracles_named.function(name, parameters)
        value = [float(f.value(mp.mpf(t))) for t in POINTS]
        slope = [0.0 if f.slope is None else float(f.slope(mp.mpf(t))) for t in POINTS]
    # rtol: roundings, times t²/2 ≤ 450 in an exponent; atol: slopes that vanish as differences (tanh)
    assert_allclose(act(POINTS), value, rtol=1e-13)
    assert_allclose(act.derivative(POINTS), slope, rtol=1e-13, atol=EPS)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (2, 1, 3)])
def test_shape_is_kept_and_the_type_is_float64(name, shape):
    x = np.linspace(-2, 2, int(np.prod(shape))).reshape(shape)
    for result in (EVERY[name](x), EVERY[name].derivative(x)):
        assert np.shape(result) == shape
        assert np.asarray(result).dtype == np.float64


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lists_integers_and_single_precision_are_taken(name):
    act = EVERY[name]
    want = act(np.array([-1.0, 0.0, 2.0]))
    for x in ([-1, 0, 2], np.array([-1, 0, 2]), np.array([-1.0, 0.0, 2.0], dtype=np.float32)):
        assert (act(x) == want).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_argument_is_not_written_to(name):
    x = np.array([-1.0, 0.5, 2.0])
    x.setflags(write=False)
    EVERY[name](x)
    EVERY[name].derivative(x)
    assert (x == [-1.0, 0.5, 2.0]).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_breakpoints_are_where_the_slope_jumps(name):
    act = EVERY[name]
    grid = np.linspace(-2.0, 2.0, 401)
    jump = np.abs(act.derivative(grid[1:]) - act.derivative(grid[:-1])) + np.abs(act(grid[1:]) - act(grid[:-1]))
    for k in np.flatnonzero(jump > 0.3):  # smooth ones move by less than 0.3 over 0.01 here
        assert any(grid[k] - 1e-9 <= point <= grid[k + 1] + 1e-9 for point in act.breakpoints)
    assert list(act.breakpoints) == sorted(act.breakpoints)


def test_values_that_can_be_checked_by_hand():
    assert activations.ab_relu(-0.5, 2.0)([-2.0, 3.0]).tolist() == [1.0, 6.0]
    assert activations.erf_with(2.0, 1.0, 3.0)(0.0) == 3.0
    assert activations.sigmoid_like(0.0) == 0.5
    assert activations.cos_with(2.0, 3.0, 0.0)(0.0) == 2.0
    assert activations.sin_with(2.0, 3.0, 0.5)(0.0) == pytest.approx(2.0 * math.sin(0.5), rel=2 * EPS)
    assert activations.rbf(2.0)(0.0) == pytest.approx(1.0, rel=2 * EPS)
    assert activations.exp_square()(2.0) == pytest.approx(math.exp(-4.0), rel=2 * EPS)
    assert activations.monomial(3)(-2.0) == -8.0
    assert activations.hermite(2)(3.0) == pytest.approx(8.0 / math.sqrt(2.0), rel=4 * EPS)
    assert activations.elu_with(0.5)(-1000.0) == -0.5
    assert activations.softsign(-3.0) == -0.75
    assert activations.hard_tanh([-3.0, 0.25, 3.0]).tolist() == [-1.0, 0.25, 1.0]
    assert activations.gabor(-1.0) == pytest.approx(-math.exp(-1.0) * math.sin(1.0), rel=2 * EPS)
    assert activations.relu([-1.0, 0.0, 2.0]).tolist() == [0.0, 0.0, 2.0]
    assert activations.abs(-3.0) == 3.0
    assert activations.leaky_relu(0.1)(-2.0) == pytest.approx(-0.2, rel=EPS)
    assert activations.leaky_relu()(-1.0) == -0.01
    assert activations.identity([-2.5]).tolist() == [-2.5]
    assert activations.polynomial([1.0, 0.0, 2.0])(3.0) == 19.0
    assert activations.rectified_monomial(2)([-3.0, 3.0]).tolist() == [0.0, 9.0]
    assert activations.exp(2.0)(0.5) == pytest.approx(math.e, rel=2 * EPS)
    assert activations.gaussian(2.0) == pytest.approx(math.exp(-2.0), rel=2 * EPS)
    assert activations.softplus(0.0) == pytest.approx(math.log(2.0), rel=2 * EPS)
    assert activations.softplus(1000.0) == 1000.0
    assert activations.sigmoid(-1000.0) == 0.0
    assert activations.elu(-1e-12) == pytest.approx(-1e-12, rel=1e-11)  # expm1, not exp − 1


def test_steps_are_right_continuous():
    act = activations.step([-0.5, 1.0], [-1.0, 0.0, 2.0])
    assert act([-0.6, -0.5, 0.0, 1.0, 1.1]).tolist() == [-1.0, 0.0, 0.0, 2.0, 2.0]
    assert activations.sign(0.0) == 1.0
    assert activations.sign([-2.0, 3.0]).tolist() == [-1.0, 1.0]
    assert activations.heaviside([-1e-300, 0.0]).tolist() == [0.0, 1.0]
    assert act.derivative([-0.5, 0.0, 1.0]).tolist() == [0.0, 0.0, 0.0]


def test_derivatives_at_kinks_come_from_the_right():
    assert activations.relu.derivative(0.0) == 1.0
    assert activations.abs.derivative(0.0) == 1.0
    assert activations.elu.derivative(0.0) == 1.0


def test_steps_show_their_thresholds_and_levels():
    act = activations.step((-0.5, 1), [-1, 0, 2])
    assert act.is_step
    assert act.thresholds.tolist() == [-0.5, 1.0]
    assert act.levels.tolist() == [-1.0, 0.0, 2.0]
    assert act.breakpoints == (-0.5, 1.0)
    assert activations.sign.thresholds.tolist() == [0.0]
    assert activations.sign.levels.tolist() == [-1.0, 1.0]
    assert activations.heaviside.levels.tolist() == [0.0, 1.0]
    act.levels[0] = 7.0  # a copy: the activation is frozen
    assert act.levels[0] == -1.0
    for name in ("thresholds", "levels"):
        with pytest.raises(AttributeError, match=name):
            getattr(activations.relu, name)


@given(
    thresholds=st.lists(st.floats(-5, 5), min_size=1, max_size=6, unique=True).map(sorted),
    data=st.data(),
)
def test_a_step_counts_thresholds_passed(thresholds, data):
    levels = [float(k * (-1) ** k) for k in range(len(thresholds) + 1)]
    act = activations.step(thresholds, levels)
    x = data.draw(st.floats(-6, 6))
    assert act(x) == levels[sum(x >= s for s in thresholds)]


def test_names_and_get():
    assert activations.names() == tuple(sorted(set(activations.names())))
    wanted = """
        relu leaky_relu ab_relu abs identity erf sigmoid_like gelu gelu_tanh sin cos rbf exp gaussian exp_square
        exp_normalized rectified_monomial polynomial monomial hermite sign heaviside step
        tanh hard_tanh sigmoid softplus softsign silu elu selu gabor
    """
    assert set(activations.names()) == set(wanted.split())
    for name in PLAIN:
        assert activations.get(name) is getattr(activations, name)
    assert activations.get("leaky_relu", negative_slope=0.1) == activations.leaky_relu(0.1)
    assert activations.get("step", thresholds=[0], levels=[0, 1]) == activations.step([0.0], [0.0, 1.0])


def test_one_name_for_a_function_and_its_relatives():
    assert activations.get("sin", frequency=2) == activations.sin_with(frequency=2.0) != activations.sin
    assert activations.get("cos", phase=1) == activations.cos_with(1.0, 1.0, 1.0)
    assert activations.get("erf", rate=2) == activations.erf_with(1.0, 2.0, 0.0)
    assert activations.get("elu", alpha=0.5) == activations.elu_with(0.5)
    assert activations.parse("sin(1, 2),elu(0.5),elu") == (
        activations.sin_with(1.0, 2.0),
        activations.elu_with(0.5),
        activations.elu,
    )
    # what changes nothing is the function itself
    assert activations.sin_with() is activations.sin
    assert activations.cos_with(1.0, 1, 0.0) is activations.cos
    assert activations.erf_with(offset=0) is activations.erf
    assert activations.elu_with(1) is activations.elu
    assert activations.rectified_monomial(0) is activations.heaviside
    assert activations.rectified_monomial(1) is activations.relu


@pytest.mark.parametrize(
    "act, family, constants",
    [
        (activations.relu, "homogeneous", (1.0, 0.0)),
        (activations.abs, "homogeneous", (1.0, 1.0)),
        (activations.identity, "homogeneous", (1.0, -1.0)),
        (activations.leaky_relu(0.1), "homogeneous", (1.0, -0.1)),
        (activations.ab_relu(-0.3, 1.7), "homogeneous", (1.7, 0.3)),
        (activations.erf, "erf", (1.0, 1.0, 0.0)),
        (activations.erf_with(1.5, 0.7, -0.4), "erf", (1.5, 0.7, -0.4)),
        (activations.sigmoid_like, "erf", (0.5, 1.0 / 2.4020563531719796, 0.5)),
        (activations.gelu, "gelu", ()),
        (activations.sin, "trig", (1.0, 1.0, 0.0)),
        (activations.cos_with(2.0, 3.0, 0.5), "trig", (2.0, 3.0, 0.5 + math.pi / 2)),
        (activations.rbf(2.0), "trig", (math.sqrt(2.0), 2.0, math.pi / 4)),
        (activations.exp(0.3, 2.0), "exponential", (2.0, 0.3)),
        (activations.gaussian, "gaussian", (1.0, -0.5)),
        (activations.exp_square(), "gaussian", (1.0, -1.0)),
        (activations.rectified_monomial(3), "rectified", (3.0,)),
        (activations.exp_normalized(2.0, -0.5), "exp_normalized", (2.0, -0.5)),
        (activations.polynomial([1, 2, 0]), "polynomial", (1.0, 2.0)),
        (activations.monomial(3), "polynomial", (0.0, 0.0, 0.0, 1.0)),
        (activations.hermite(2), "polynomial", (-1.0 / math.sqrt(2.0), 0.0, 1.0 / math.sqrt(2.0))),
        (activations.sign, "step", ()),
        (activations.gabor, "smooth", ()),
    ],
    ids=str,
)
def test_constants_are_the_numbers_of_the_family(act, family, constants):
    assert act.family == family
    assert act.constants == constants


# The families' formulas, from `constants` alone: what compiled loops rely on
FORMULAS = {
    "homogeneous": lambda t, alpha, beta: alpha * np.maximum(t, 0.0) + beta * np.maximum(-t, 0.0),
    "erf": lambda t, a, rate, c: a * special.erf(rate * t) + c,
    "gelu": lambda t: t * special.ndtr(t),
    "trig": lambda t, a, f, phase: a * np.sin(f * t + phase),
    "exponential": lambda t, a, rate: a * np.exp(rate * t),
    "gaussian": lambda t, a, rate: a * np.exp(rate * t**2),
    "rectified": lambda t, k: np.maximum(t, 0.0) ** k,
    "polynomial": lambda t, *c: np.polynomial.polynomial.polyval(t, c),
}


@pytest.mark.parametrize("name, parameters", [pair for pair in MORE if pair[0] not in KERNELS])
def test_constants_give_the_function(name, parameters):
    act = activations.get(name, **parameters)
    if act.family in ("step", "smooth"):
        assert act.constants == ()
        return
    t = np.linspace(-3.0, 3.0, 61)
    # atol: a phase of π/2 + φ rounds the argument; powers up to 3¹⁶/√16! = 9 cancel to eps times Σ|c_k| 3^k ≤ 4e3
    assert_allclose(FORMULAS[act.family](t, *act.constants), act(t), rtol=1e-13, atol=2e-12)


def test_a_kernel_is_no_function():
    act = activations.exp_normalized(1.5)
    assert not act.is_function
    assert activations.rbf(1.0).is_function
    for use in (act, act.derivative):
        with pytest.raises(ValueError, match="`exp_normalized` is a kernel and no elementwise function"):
            use([0.0, 1.0])


# pickle looks for SciPy's ufuncs in every loaded module, mpmath's deprecated ones included
@pytest.mark.filterwarnings("ignore:the .* module is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name, parameters", MORE)
def test_activations_are_values(name, parameters):
    act, again = (activations.get(name, **parameters) for _ in range(2))
    assert act.name == name
    assert activations.get(act.name, **dict(act.parameters)) == act  # how models are stored
    copy = pickle.loads(pickle.dumps(act))
    assert copy == act == again
    assert len({copy, act, again}) == 1  # hashes agree
    if act.is_function:
        assert_allclose(copy(POINTS), act(POINTS), rtol=0.0)
        assert_allclose(copy.derivative(POINTS), act.derivative(POINTS), rtol=0.0)
    assert str(act) == str(again)
    assert str(act).startswith(name)
    with pytest.raises(AttributeError):
        act.name = "other"


def test_parameters_make_the_difference():
    assert activations.leaky_relu(0.1).parameters != activations.leaky_relu(0.2).parameters
    assert activations.leaky_relu(0.1) != activations.leaky_relu(0.2)
    assert activations.leaky_relu(0.1).parameter("negative_slope") == 0.1
    assert str(activations.leaky_relu(0.1)) == "leaky_relu(negative_slope=0.1)"
    assert str(activations.step([0.5], [0, 1])) == "step(thresholds=(0.5,), levels=(0, 1))"


@pytest.mark.parametrize(
    "text, want",
    [
        ("relu", ("relu",)),
        ("relu,relu , tanh", ("relu", "relu", "tanh")),
        ("leaky_relu(0.1)", ("leaky_relu(negative_slope=0.1)",)),
        ("leaky_relu(negative_slope=0.1),erf", ("leaky_relu(negative_slope=0.1)", "erf")),
        ("step([-0.5, 1], [-1, 0, 1])", ("step(thresholds=(-0.5, 1), levels=(-1, 0, 1))",)),
        ("polynomial((0, 1, 2)),relu", ("polynomial(coefficients=(0, 1, 2))", "relu")),
        ("leaky_relu()", ("leaky_relu(negative_slope=0.01)",)),
    ],
)
def test_parse(text, want):
    assert tuple(map(str, activations.parse(text))) == want


@pytest.mark.parametrize("name, parameters", MORE)
def test_what_str_writes_parse_reads(name, parameters):
    act = activations.get(name, **parameters)
    assert activations.parse(f"relu,{act}") == (activations.relu, act)  # all parameters here have six digits at most


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ",",
        "relu,", "relu,,relu", "relu relu", "relu)", "(relu", "1", "'relu'", "relu.__class__", "step(x, y)",
        "step([0], [0, 1]).levels", "lambda: 1", "relu if 1 else erf", "leaky_relu(open('x'))", "relu\nerf",
    ],
)  # fmt: skip
def test_parse_wants_a_list(text):
    with pytest.raises(ValueError, match="`activations` must be a comma-separated list"):
        activations.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "rleu",
        "relu,rleu",
        "relu(0.1)",
        "leaky_relu(0.1, 0.2)",
        "leaky_relu(slope=0.1)",
        "open('x')",
        "leaky_relu('a')",
        "step([1, 0], [0, 1, 2])",
        "rectified_monomial(0.5)",
        "leaky_relu(1e999)",
    ],
)
def test_parse_names_what_it_does_not_know(text):
    with pytest.raises(ValueError, match="`"):
        activations.parse(text)


@pytest.mark.parametrize("text", [None, 3, ["relu"], b"relu"])
def test_parse_wants_text(text):
    with pytest.raises((TypeError, ValueError), match="`"):
        activations.parse(text)


# Bad input


@pytest.mark.parametrize(
    "name, error",
    [
        ("rleu", ValueError),
        ("", ValueError),
        ("custom", ValueError),
        ("RELU", ValueError),
        (None, TypeError),
        (3, TypeError),
        (activations.relu, TypeError),
    ],
)
def test_get_names_what_it_does_not_know(name, error):
    with pytest.raises(error, match="`name`"):
        activations.get(name)


def test_get_checks_parameters():
    with pytest.raises(ValueError, match="`relu` takes no parameters, got slope"):
        activations.get("relu", slope=0.1)
    with pytest.raises(ValueError, match="`leaky_relu` cannot take"):
        activations.get("leaky_relu", slope=0.1)
    with pytest.raises(ValueError, match="`step` cannot take"):
        activations.get("step")


@pytest.mark.parametrize(
    "slope, error",
    [
        ("0.1", TypeError),
        (None, TypeError),
        (True, TypeError),
        (1j, TypeError),
        ([0.1], TypeError),
        (math.nan, ValueError),
        (math.inf, ValueError),
    ],
)
def test_bad_slopes(slope, error):
    with pytest.raises(error, match="`negative_slope`"):
        activations.leaky_relu(slope)


@pytest.mark.parametrize(
    "rate, error",
    [("1", TypeError), (True, TypeError), (math.nan, ValueError), (-math.inf, ValueError), (np.ones(1), TypeError)],
)
def test_bad_rates(rate, error):
    with pytest.raises(error, match="`rate`"):
        activations.exp(rate)


@pytest.mark.parametrize(
    "degree, error",
    [
        (-1, ValueError),
        (33, ValueError),
        (2.0, TypeError),
        ("2", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
@pytest.mark.parametrize("make", [activations.rectified_monomial, activations.monomial, activations.hermite])
def test_bad_degrees(make, degree, error):
    with pytest.raises(error, match=r"`degree`.*, got"):
        make(degree)


@pytest.mark.parametrize(
    "name, parameters, error, message",
    [
        ("rectified_monomial", {"degree": 17}, ValueError, "`degree` must be at least 0 and at most 16, got 17"),
        ("hermite", {"degree": 17}, ValueError, "`degree` must be at least 1 and at most 16, got 17"),
        ("hermite", {"degree": 0}, ValueError, "`degree` must be at least 1"),
        ("monomial", {"degree": 0}, ValueError, "`degree` must be at least 1"),
        ("ab_relu", {"a": 0, "b": 0.0}, ValueError, "`a` or `b` must differ from 0, got 0 and 0"),
        ("ab_relu", {"a": math.nan, "b": 0.0}, ValueError, "`a`.*got nan"),
        ("ab_relu", {"a": 1.0, "b": math.inf}, ValueError, "`b`.*got inf"),
        ("ab_relu", {"a": 1.0}, ValueError, "`ab_relu` cannot take"),
        ("erf", {"amplitude": 0}, ValueError, "`amplitude` must not be 0, got 0"),
        ("erf", {"rate": 0.0}, ValueError, "`rate` must not be 0, got 0.0"),
        ("erf", {"offset": math.inf}, ValueError, "`offset`.*got inf"),
        ("erf", {"scale": 2.0}, ValueError, "`erf` cannot take"),
        ("sin", {"frequency": 0}, ValueError, "`frequency` must not be 0"),
        ("sin", {"amplitude": 0.0}, ValueError, "`amplitude` must not be 0"),
        ("cos", {"frequency": 0}, ValueError, "`frequency` must not be 0"),
        ("cos", {"amplitude": math.nan}, ValueError, "`amplitude`.*got nan"),
        ("cos", {"phase": math.nan}, ValueError, "`phase`.*got nan"),
        ("rbf", {"gamma": 0.0}, ValueError, r"`gamma` must be a finite number in \(0, inf\), got 0.0"),
        ("rbf", {"gamma": -1}, ValueError, r"`gamma` must be a finite number in \(0, inf\), got -1.0"),
        ("exp", {"rate": 0.0}, ValueError, "`rate` must not be 0"),
        ("exp", {"amplitude": 0.0}, ValueError, "`amplitude` must not be 0"),
        ("exp_square", {"rate": 0.0}, ValueError, "`rate` must not be 0"),
        ("exp_square", {"amplitude": 0.0}, ValueError, "`amplitude` must not be 0"),
        ("exp_normalized", {"gamma": 0.0}, ValueError, r"`gamma` must be a finite number in \(0, inf\), got 0.0"),
        ("exp_normalized", {"shift": math.inf}, ValueError, "`shift`.*got inf"),
        ("exp_normalized", {"gamma": 100.0, "shift": 10.0}, ValueError, "must be at most 600, got 100 · 11"),
        ("elu", {"alpha": math.nan}, ValueError, "`alpha`.*got nan"),
    ],
)
def test_parameters_outside_their_domain(name, parameters, error, message):
    with pytest.raises(error, match=message):
        activations.get(name, **parameters)


@pytest.mark.parametrize(
    "make, name",
    [
        (activations.erf_with, "amplitude"),
        (activations.sin_with, "amplitude"),
        (activations.cos_with, "amplitude"),
        (activations.elu_with, "alpha"),
        (activations.rbf, "gamma"),
        (activations.exp_square, "rate"),
        (activations.exp_normalized, "gamma"),
    ],
)
@pytest.mark.parametrize("value", ["1", None, True, 1j, [1.0]])
def test_parameters_are_real_numbers(make, name, value):
    with pytest.raises(TypeError, match=f"`{name}` must be a"):
        make(value)


@pytest.mark.parametrize(
    "coefficients, error",
    [
        ([], ValueError),
        ([0.0, 0.0], ValueError),
        ([[1.0]], ValueError),
        (1.0, ValueError),
        ([1.0, math.nan], ValueError),
        ([1.0, math.inf], ValueError),
        (["a"], TypeError),
        ([1j], TypeError),
        (np.ones(40), ValueError),
    ],
)
def test_bad_polynomials(coefficients, error):
    with pytest.raises(error, match="`coefficients`"):
        activations.polynomial(coefficients)


def test_polynomials_drop_leading_zeros():
    assert activations.polynomial([1.0, 2.0, 0.0]).parameters == activations.polynomial([1.0, 2.0]).parameters
    assert activations.polynomial([5.0]).derivative([1.0, 2.0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "thresholds, levels, error, name",
    [
        ([], [1.0], ValueError, "thresholds"),
        ([0.0, 0.0], [0.0, 1.0, 2.0], ValueError, "thresholds"),
        ([1.0, 0.0], [0.0, 1.0, 2.0], ValueError, "thresholds"),
        ([math.nan], [0.0, 1.0], ValueError, "thresholds"),
        ([math.inf], [0.0, 1.0], ValueError, "thresholds"),
        ([[0.0]], [0.0, 1.0], ValueError, "thresholds"),
        (["a"], [0.0, 1.0], TypeError, "thresholds"),
        (0.0, [0.0, 1.0], ValueError, "thresholds"),
        ([0.0], [0.0], ValueError, "levels"),
        ([0.0], [0.0, 1.0, 2.0], ValueError, "levels"),
        ([0.0], [1.0, 1.0], ValueError, "levels"),
        ([0.0, 1.0], [0.0, 1.0, 1.0], ValueError, "levels"),
        ([0.0], [0.0, math.nan], ValueError, "levels"),
        ([0.0], [0.0, 1j], TypeError, "levels"),
        ([0.0], [], ValueError, "levels"),
    ],
)
def test_bad_steps(thresholds, levels, error, name):
    with pytest.raises(error, match=f"`{name}`"):
        activations.step(thresholds, levels)


@pytest.mark.parametrize(
    "function, options, error, name",
    [
        ("tanh", {}, TypeError, "function"),
        (None, {}, TypeError, "function"),
        (np.tanh, {"derivative": "tanh"}, TypeError, "derivative"),
        (np.sum, {}, ValueError, "function"),
        (lambda t: t + 1j, {}, ValueError, "function"),
        (lambda t: t.astype(str), {}, ValueError, "function"),
        (lambda t: t * np.nan, {}, ValueError, "function"),
        (lambda t: np.full_like(t, np.inf), {}, ValueError, "function"),
        (lambda t: 1.0, {}, ValueError, "function"),
        (np.tanh, {"derivative": np.sum}, ValueError, "derivative"),
        (np.tanh, {"derivative": lambda t: t * np.nan}, ValueError, "derivative"),
        (np.tanh, {"breakpoints": (math.nan,)}, ValueError, "breakpoints"),
        (np.tanh, {"breakpoints": ("0",)}, TypeError, "breakpoints"),
        (np.tanh, {"breakpoints": 0.0}, TypeError, "breakpoints"),
        (np.tanh, {"breakpoints": None}, TypeError, "breakpoints"),
        (np.tanh, {"tolerance": 0.0}, ValueError, "tolerance"),
        (np.tanh, {"tolerance": 1.0}, ValueError, "tolerance"),
        (np.tanh, {"tolerance": math.nan}, ValueError, "tolerance"),
        (np.tanh, {"tolerance": "tight"}, TypeError, "tolerance"),
    ],
)
def test_bad_custom_functions(function, options, error, name):
    with pytest.raises(error, match=f"`{name}`"):
        activations.custom(function, **options)


def test_custom_keeps_what_it_was_given():
    act = activations.custom(np.tanh, breakpoints=[1, -1, 1.0], tolerance=1e-6)
    assert act.breakpoints == (-1.0, 1.0)
    assert act.tolerance == 1e-6
    assert (act(POINTS) == np.tanh(POINTS)).all()
    with pytest.raises(ValueError, match="`derivative`"):
        act.derivative(POINTS)
    whole = activations.custom(lambda t: (t > 0).astype(int), breakpoints=(0,))
    assert whole([-1.0, 1.0]).dtype == np.float64


def test_every_name_has_its_row_in_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "activations.md").read_text(encoding="utf-8")
    lines = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("| `")]
    rows = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[1:-1]] for line in lines}
    assert len(lines) == len(rows)
    assert set(rows) == set(activations.names())
    for name, cells in rows.items():
        act = EVERY[name]
        assert cells[3] == act.family
        assert cells[5] == ("no" if act.family == "smooth" else "yes")
        for key, _ in act.parameters:
            assert key in cells[2]


def test_the_package_exports_them():
    assert rn.activations is activations
    assert rn.Activation is activations.Activation
