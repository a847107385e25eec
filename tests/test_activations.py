import math
import pickle

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import activations

EPS = float(np.finfo(np.float64).eps)
PARAMETERS = {
    "leaky_relu": {"negative_slope": 0.1},
    "polynomial": {"coefficients": (1.0, 2.0, -1.0, 0.5)},
    "rectified_monomial": {"degree": 3},
    "exp": {"rate": 0.3},
    "step": {"thresholds": (-0.4, 0.9), "levels": (-1.0, 0.0, 1.0)},
}
EVERY = {name: activations.get(name, **PARAMETERS.get(name, {})) for name in activations.names()}
PLAIN = [name for name in EVERY if name not in PARAMETERS]
POINTS = np.array([-30.0, -3.1, -0.41, -1e-3, 1e-3, 0.35, 0.8, 2.7, 20.0])


@pytest.mark.parametrize("name", EVERY)
def test_values_and_derivatives_against_mpmath(name):
    act = EVERY[name]
    with mp.workdps(40):
        f = oracles.function(name, PARAMETERS.get(name, {}))
        value = [float(f.value(mp.mpf(t))) for t in POINTS]
        slope = [0.0 if f.slope is None else float(f.slope(mp.mpf(t))) for t in POINTS]
    # rtol: roundings, times t²/2 ≤ 450 in an exponent; atol: slopes that vanish as differences (tanh)
    assert_allclose(act(POINTS), value, rtol=1e-13)
    assert_allclose(act.derivative(POINTS), slope, rtol=1e-13, atol=EPS)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (2, 1, 3)])
def test_shape_is_kept_and_the_type_is_float64(name, shape):
    x = np.linspace(-2, 2, int(np.prod(shape))).reshape(shape)
    for result in (EVERY[name](x), EVERY[name].derivative(x)):
        assert np.shape(result) == shape
        assert np.asarray(result).dtype == np.float64


@pytest.mark.parametrize("name", EVERY)
def test_lists_integers_and_single_precision_are_taken(name):
    act = EVERY[name]
    want = act(np.array([-1.0, 0.0, 2.0]))
    for x in ([-1, 0, 2], np.array([-1, 0, 2]), np.array([-1.0, 0.0, 2.0], dtype=np.float32)):
        assert (act(x) == want).all()


@pytest.mark.parametrize("name", EVERY)
def test_the_argument_is_not_written_to(name):
    x = np.array([-1.0, 0.5, 2.0])
    x.setflags(write=False)
    EVERY[name](x)
    EVERY[name].derivative(x)
    assert (x == [-1.0, 0.5, 2.0]).all()


@pytest.mark.parametrize("name", EVERY)
def test_breakpoints_are_where_the_slope_jumps(name):
    act = EVERY[name]
    grid = np.linspace(-2.0, 2.0, 401)
    jump = np.abs(act.derivative(grid[1:]) - act.derivative(grid[:-1])) + np.abs(act(grid[1:]) - act(grid[:-1]))
    for k in np.flatnonzero(jump > 0.3):  # smooth ones move by less than 0.3 over 0.01 here
        assert any(grid[k] - 1e-9 <= point <= grid[k + 1] + 1e-9 for point in act.breakpoints)
    assert list(act.breakpoints) == sorted(act.breakpoints)


def test_values_that_can_be_checked_by_hand():
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
    assert activations.names() == tuple(sorted(activations.names()))
    wanted = {
        "relu",
        "identity",
        "abs",
        "erf",
        "gelu",
        "sin",
        "cos",
        "tanh",
        "sigmoid",
        "softplus",
        "silu",
        "elu",
        "selu",
    }
    wanted |= {"sign", "heaviside", "gaussian", "leaky_relu", "polynomial", "rectified_monomial", "exp", "step"}
    assert wanted <= set(activations.names())
    for name in PLAIN:
        assert activations.get(name) is getattr(activations, name)
    assert activations.get("leaky_relu", negative_slope=0.1) == activations.leaky_relu(0.1)
    assert activations.get("step", thresholds=[0], levels=[0, 1]) == activations.step([0.0], [0.0, 1.0])


# pickle looks for SciPy's ufuncs in every loaded module, mpmath's deprecated ones included
@pytest.mark.filterwarnings("ignore:the .* module is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", EVERY)
def test_activations_are_values(name):
    act = EVERY[name]
    again = activations.get(name, **PARAMETERS.get(name, {}))
    assert act.name == name
    assert pickle.loads(pickle.dumps(act)).name == name
    assert_allclose(pickle.loads(pickle.dumps(act))(POINTS), act(POINTS), rtol=0.0)
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


@pytest.mark.parametrize("name", EVERY)
def test_what_str_writes_parse_reads(name):
    assert [str(act) for act in activations.parse(str(EVERY[name]))] == [str(EVERY[name])]


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
        (0, ValueError),
        (-1, ValueError),
        (17, ValueError),
        (2.0, TypeError),
        ("2", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_bad_degrees(degree, error):
    with pytest.raises(error, match="`degree`"):
        activations.rectified_monomial(degree)


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


def test_the_package_exports_them():
    assert rn.activations is activations
    assert rn.Activation is activations.Activation
