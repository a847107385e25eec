import json
import math
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import oracles
import pytest
from cases import slow, thinned
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import activations

EPS = float(np.finfo(np.float64).eps)
DUALS = json.loads((Path(__file__).parent / "data" / "duals.json").read_text(encoding="utf-8"))
FAMILIES = {
    "relu": activations.relu,
    "leaky": activations.leaky_relu(0.1),
    "abs": activations.abs,
    "identity": activations.identity,
    "erf": activations.erf,
    "sign": activations.sign,
    "heaviside": activations.heaviside,
    "step3": activations.step([-0.4, 0.9], [-1.0, 0.0, 1.0]),
    "step4": activations.step([0.3, 0.5, 2.0], [0.0, 1.0, -0.5, 3.0]),
    "polynomial": activations.polynomial([1.0, 2.0, -1.0, 0.5]),
    "tanh": activations.tanh,
    "gelu": activations.gelu,
    "custom": activations.custom(
        lambda t: t * np.exp(-0.3 * t**2), derivative=lambda t: (1 - 0.6 * t**2) * np.exp(-0.3 * t**2)
    ),
}  # fmt: skip
JUMPING = ("sign", "heaviside", "step3", "step4")


def label(row):
    parameters = ",".join(str(value) for value in row["parameters"].values())
    return f"{row['name']}({parameters})"


ROWS = {name: [row for row in DUALS["rows"] if label(row) == name] for name in map(label, DUALS["rows"])}


def activation(row):
    return activations.get(row["name"], **row["parameters"])


def kernels(net, x, y=None):
    """CK and NTK; the infinite entries of steps are inf."""
    return rn.ck_ntk(net, x, y, diagonal=math.inf)


def data(n, p, seed=0, norm=1.0):
    x = np.random.default_rng(seed).standard_normal((n, p))
    return norm * x / np.sqrt(p)


# Entries against mpmath


def test_table_says_where_it_comes_from():
    assert DUALS["script"] == "validation/reference_moments.py"
    assert DUALS["dps"] >= 30
    assert len(DUALS["rows"]) > 500


@pytest.mark.parametrize("name", ROWS)
def test_one_layer_against_conditioning(name):
    for row in ROWS[name]:
        check_value(row)


def check_value(row):
    where = f"ρ = {row['rho']}, y = {row['y']}"
    x, y = np.array([row["x"]]), np.array([row["y"]])
    act = activation(row)
    if row["name"] == "selu":  # its series is cut: take it as it comes and add the bound
        act = replace(act, tolerance=1e-4)
    net = rn.Network([act], centered=False, tau0=1.0)
    scale = math.sqrt(float(row["second_x"]) * float(row["second_y"]))
    value, mean_x, mean_y = float(row["value"]), float(row["mean_x"]), float(row["mean_y"])
    error = rn.ck(net, x, y, return_error=True)[1]
    # closed forms: a few dozen roundings in units of the diagonal. Steps: a sum over pairs of jumps, of which each
    # brings a few eps, and the expansion for |ρ| > 0.925 is good to 1e-15 a pair.
    jumps = float(np.abs(np.diff(act.levels)).sum()) ** 2 if act.is_step else 0.0
    atol = 64.0 * EPS * max(scale, jumps) + error
    ck = float(rn.ck(net, x, y)[0, 0])
    assert_allclose(ck, value, rtol=0.0, atol=atol, err_msg=where)
    assert float(rn.ck(net, y, x)[0, 0]) == pytest.approx(ck, rel=0.0, abs=atol), where
    # centred at tau0 = 1, not at the rows' own scales
    centre = rn.moments(act, 1.0).mean
    want = value - centre * (mean_x + mean_y) + centre**2
    got = float(rn.ck(rn.Network([act], tau0=1.0), x, y)[0, 0])
    assert_allclose(got, want, rtol=0.0, atol=atol + 16.0 * EPS * centre**2, err_msg=where)


@pytest.mark.parametrize("name", ROWS)
def test_one_layer_slope_against_conditioning(name):
    for row in ROWS[name]:
        check_slope(row)


def check_slope(row):
    where = f"ρ = {row['rho']}, y = {row['y']}"
    x, y = np.array([row["x"]]), np.array([row["y"]])
    act = activation(row)
    if row["name"] == "selu":
        act = replace(act, tolerance=1e-1)
    net = rn.Network([act], centered=False, tau0=1.0)
    cov = float(x[0] @ y[0])
    if row["slope"] == "inf":  # a step at |ρ| = 1
        assert abs(row["rho"]) == 1.0
        # ρ = 1: s/λ differ for rows of different norm unless s = 0; where none coincide the slope is 0
        both = [(s / np.linalg.norm(x), t / np.linalg.norm(y)) for s in act.thresholds for t in act.thresholds]
        meet = any(a == math.copysign(1.0, row["rho"]) * b for a, b in both)
        got = float(kernels(net, x, y)[1][0, 0])
        assert math.isinf(got) if meet else got == pytest.approx(float(row["value"]), abs=1e-13), where
        return
    try:
        _ck, error = rn.ck(net, x, y, return_error=True)
        ntk, error = rn.ntk(net, x, y, diagonal=math.inf if act.is_step else None, return_error=True)
    except rn.AccuracyError:
        # The derivative of SELU jumps: its own series ends at 1e-4 of E[σ'²] or so, and says so.
        assert row["name"] == "selu"
        assert abs(row["rho"]) > 0.95
        return
    want, value = float(row["slope"]), float(row["value"])
    scale = math.sqrt(float(row["second_x"]) * float(row["second_y"]))
    if act.is_step:
        # The density of thresholds h, k goes like exp(−(h − k)²/2(1 − ρ²))/√(1 − ρ²): rounding 1 − |ρ| by eps (or by
        # eps relative, below 1e-4) moves it by as much as the exponent and 1/(1 − ρ²) say.
        gap = max(1.0 - abs(row["rho"]), 1e-4)
        atol = 64.0 * EPS * (abs(want) * 8.0 / gap + scale)
    else:
        slope_scale = math.sqrt(
            rn.moments(act, np.linalg.norm(x)).d1_squared * rn.moments(act, np.linalg.norm(y)).d1_squared
        )
        # E[σ'σ'] of a kinked σ moves like √(1 − |ρ|): eps becomes eps/√1e-4 where 1 − |ρ| is taken from the product
        atol = 64.0 * EPS * (slope_scale * abs(cov) + scale) + error
    assert_allclose(float(ntk[0, 0]), value + cov * want, rtol=0.0, atol=atol, err_msg=where)


RHOS = [-1.0, -1.0 + 1e-12, -0.999, -0.95, -0.5, 0.0, 1e-9, 0.3, 0.75, 0.93, 0.95, 0.999, 1.0 - 1e-12, 1.0]


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "silu"])
def test_smooth_layers_against_a_product_rule(name, rho):
    x = np.array([[0.8, 0.0]])
    y = 1.3 * np.array([[rho, math.sqrt((1.0 - rho) * (1.0 + rho))]])
    net = rn.Network([name], centered=False, tau0=1.0)
    cov = float(x[0] @ y[0])
    value, slope = oracles.dual_in_floats(*oracles.FLOAT_FUNCTIONS[name], float(x[0] @ x[0]), float(y[0] @ y[0]), cov)
    ck, ck_error = rn.ck(net, x, y, return_error=True)
    ntk, ntk_error = rn.ntk(net, x, y, return_error=True)
    # atol: the rule is exact to rounding of 700² terms, about 1e-14; the series to its bound
    assert_allclose(ck[0, 0], value, rtol=0.0, atol=3e-14 + ck_error)
    assert_allclose(ntk[0, 0], value + cov * slope, rtol=0.0, atol=3e-14 + ntk_error)
    assert ck_error <= 1e-10
    assert ntk_error <= 1e-10


@pytest.mark.parametrize("rho", RHOS)
def test_custom_layers_against_a_product_rule(rho):
    act = FAMILIES["custom"]
    x = np.array([[0.8, 0.0]])
    y = 1.3 * np.array([[rho, math.sqrt((1.0 - rho) * (1.0 + rho))]])
    net = rn.Network([act], centered=False, tau0=1.0)
    value, slope = oracles.dual_in_floats(
        act, act.derivative, float(x[0] @ x[0]), float(y[0] @ y[0]), float(x[0] @ y[0])
    )
    assert_allclose(rn.ck(net, x, y)[0, 0], value, rtol=0.0, atol=3e-14 + act.tolerance)  # the tolerance asked for
    assert_allclose(
        rn.ntk(net, x, y)[0, 0], value + float(x[0] @ y[0]) * slope, rtol=0.0, atol=3e-14 + 2 * act.tolerance
    )


@pytest.mark.parametrize("name", ["relu", "abs", "erf"])
def test_custom_copies_of_closed_forms_agree_within_their_bound(name):
    act = activations.get(name)
    copy = activations.custom(
        act.function, breakpoints=act.breakpoints, derivative=act.derivative_function, tolerance=1e-2
    )
    x = data(5, 4)
    for kernel in (rn.ck, rn.ntk):
        got, bound = kernel(rn.Network([copy, copy]), x, return_error=True)
        gap = np.abs(got - kernel(rn.Network([act, act]), x)).max()
        assert gap <= bound + 1e-13  # rounding
        assert bound < 0.1  # and the bound is not an idle one


# Several layers, from exact float rows


def special_rows():
    """Generic rows, near and exact duplicates, antipodes, multiples and zero."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 5)) / np.sqrt(5.0)
    near = x[0] * (1.0 + 1e-9 * rng.standard_normal(5))
    return np.stack([*x, near, x[0], -x[1], 3.0 * x[1], 2.0 * x[2], -near, np.zeros(5)])


RECURSIONS = {
    "relu": [("relu", {})],
    "leaky": [("leaky_relu", {"negative_slope": 0.1})],
    "leaky-negative": [("leaky_relu", {"negative_slope": -0.6})],
    "abs": [("abs", {})],
    "identity": [("identity", {})],
    "erf": [("erf", {})],
    "erf-relu": [("erf", {}), ("relu", {})],
    "relu-erf-abs": [("relu", {}), ("erf", {}), ("abs", {})],
    "identity-abs": [("identity", {}), ("abs", {})],
}


def assert_kernels(got, want, floor=0.0):
    """Entries within 64 eps a layer of √(K_ii K_jj): the unit in which the forward error of the recursion is stated."""
    for kernel, reference in zip(got, want, strict=True):
        unit = np.sqrt(np.abs(np.diag(reference)))
        error = np.abs(kernel - reference)
        worst = np.unravel_index(np.argmax(error / (np.outer(unit, unit) + 1e-300)), error.shape)
        allowed = floor * np.outer(unit, unit) + 1e-300
        assert (error <= allowed).all(), (
            f"entry {tuple(map(int, worst))}: {kernel[worst]!r} for {reference[worst]!r}, "
            f"{error[worst] / (unit[worst[0]] * unit[worst[1]] + 1e-300):.2e} of the diagonal, {floor:.1e} allowed"
        )


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("depth", [1, 2, slow(3), slow(4), slow(5), 6])
@pytest.mark.parametrize("kind", RECURSIONS)
def test_deep_kernels_against_mpmath(kind, depth, centered):
    odd = centered and kind in ("identity", "erf")  # nothing is subtracted: the same as uncentred
    depth_layers = min(depth, 2) if odd else depth
    cycle = RECURSIONS[kind]
    layers = [cycle[k % len(cycle)] for k in range(depth_layers)]
    x = special_rows()
    net = rn.Network([activations.get(name, **parameters) for name, parameters in layers], centered=centered, tau0=1.1)
    want = [oracles.to_floats(m) for m in oracles.mp_recursion(layers, x, tau0=1.1, centered=centered)]
    assert_kernels(rn.ck_ntk(net, x), want, floor=64.0 * EPS * depth_layers)
    assert_kernels(rn.ck_ntk(net, x, x), want, floor=64.0 * EPS * depth_layers)


@pytest.mark.parametrize(
    ("kind", "scales"), thinned(["relu", "abs", "erf", "erf-relu"], [(1.4, 0.0), (1.0, 0.3), (0.7, 0.5)])
)
def test_scaled_and_biased_kernels_against_mpmath(kind, scales):
    cycle = RECURSIONS[kind]
    layers = [cycle[k % len(cycle)] for k in range(3)]
    x = special_rows()
    options = {"weight_std": scales[0], "bias_std": scales[1]}
    net = rn.Network([activations.get(name) for name, _ in layers], tau0=0.9, **options)
    want = [oracles.to_floats(m) for m in oracles.mp_recursion(layers, x, tau0=0.9, **options)]
    assert_kernels(rn.ck_ntk(net, x), want, floor=3 * 64.0 * EPS)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_deep_sign_kernels_against_mpmath(depth):
    # sign turns an angle θ into a correlation 1 − 2θ/π: angles of near duplicates are rounded to eps absolutely, so
    # 1e-4 is as near as digits allow here. NTK entries grow like 1/θ and are compared relative to themselves.
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 5)) / np.sqrt(5.0)
    near = x[0] * (1.0 + 1e-4 * rng.standard_normal(5))
    x = np.stack([*x, near, x[0], -x[1], 4.0 * x[1], -near])
    layers = [("sign", {})] * depth
    ck, ntk = (oracles.to_floats(m) for m in oracles.mp_recursion(layers, x, tau0=1.0))
    got_ck, got_ntk = kernels(rn.Network(["sign"] * depth), x)
    np.fill_diagonal(ck, 1.0)
    parallel = np.eye(8, dtype=bool)
    for i, j in ((0, 4), (1, 5), (1, 6), (5, 6), (3, 7)):
        parallel[i, j] = parallel[j, i] = True
    assert (~np.isfinite(got_ntk) == parallel).all()
    assert_allclose(got_ck[parallel], ck[parallel], rtol=0.0, atol=1e-15)
    # eps/θ relative in the angle; a layer's 1 − ρ ∝ θ is then known to eps/θ too, in the next one half of it
    assert_allclose(got_ck[~parallel], ck[~parallel], rtol=0.0, atol=1e-12)
    assert_allclose(got_ntk[~parallel], ntk[~parallel], rtol=1e-10)


CHAINS = {
    "step3": ("step", {"thresholds": (-0.4, 0.9), "levels": (-1.0, 0.0, 1.0)}),
    "step4": ("step", {"thresholds": (0.3, 0.5, 2.0), "levels": (0.0, 1.0, -0.5, 3.0)}),
    "heaviside": ("heaviside", {}),
    "polynomial": ("polynomial", {"coefficients": (1.0, 2.0, -1.0, 0.5)}),
    "gelu": ("gelu", {}),
}


@lru_cache
def chain(kinds, x, y, tau0):
    """(CK, NTK) of one pair through layers, every dual by conditioning, every moment by mpmath; to 18 digits or so."""
    few = {"dps": 20, "count": 24, "reach": 12}
    with mp.workdps(30):
        var_u, var_v, cov = oracles.exact_gram(x, y)
        ntk, tau = cov, mpf(tau0)
        for kind in kinds:
            name, parameters = CHAINS.get(kind, (kind, {}))
            typical = oracles.reference_moments(name, parameters, tau, **few)
            centre, tau = typical["mean"], mp.sqrt(typical["variance"])
            value, slope = oracles.dual(name, parameters, var_u, var_v, cov, dps=20, count=20)
            tables = [oracles.reference_moments(name, parameters, mp.sqrt(q), **few) for q in (var_u, var_v)]
            cov = value - centre * (tables[0]["mean"] + tables[1]["mean"]) + centre**2
            ntk = cov + ntk * slope
            var_u, var_v = (t["second"] - 2 * centre * t["mean"] + centre**2 for t in tables)
        return float(cov), float(ntk)


def pair(rho):
    return (0.9, 0.0), (1.2 * rho, 1.2 * math.sqrt((1.0 - rho) * (1.0 + rho)))


@pytest.mark.parametrize(("kind", "rho"), thinned(list(CHAINS), [-0.96, 0.95]))
def test_two_layers_against_conditioning_twice(kind, rho):
    x = np.array(pair(rho))
    name, parameters = CHAINS[kind]
    act = activations.get(name, **parameters)
    net = rn.Network([act, act], tau0=1.0)
    ck, ntk = chain((kind, kind), *pair(rho), 1.0)
    got_ck, got_ntk = rn.ck_ntk(net, x[:1], x[1:])
    unit = rn.kernel_diagonals(net, x)
    scale = math.sqrt(unit.ck[0] * unit.ck[1])
    slack = 1e-10 if act.family == "smooth" else 256 * EPS  # the tolerance of the series; two layers of roundings
    assert_allclose(got_ck[0, 0], ck, rtol=0.0, atol=slack * scale)
    scale = scale if act.is_step else math.sqrt(unit.ntk[0] * unit.ntk[1])
    assert_allclose(got_ntk[0, 0], ntk, rtol=20 * slack, atol=slack * scale)  # a step's densities: 1/(1 − ρ²) ≤ 10 more


@pytest.mark.parametrize(
    "name", ["relu", "leaky", "abs", "erf", "sign", "heaviside", "step3", "step4", "polynomial", "gelu"]
)
def test_the_diagonal_is_the_moment(name):
    act = FAMILIES[name]
    x = data(6, 4)
    net = rn.Network([act], tau0=1.0)
    diagonals = rn.kernel_diagonals(net, x)
    centre = rn.moments(act, 1.0).mean
    for k, row in enumerate(x):
        m = rn.moments(act, float(np.linalg.norm(row)))
        ck = m.variance + (m.mean - centre) ** 2
        assert diagonals.ck[k] == pytest.approx(ck, rel=32 * EPS)  # a few roundings of the scale
        if name in JUMPING:
            assert math.isinf(diagonals.ntk[k])
        else:
            assert diagonals.ntk[k] == pytest.approx(ck + row @ row * m.d1_squared, rel=32 * EPS)
    assert (np.diag(rn.ck(net, x)) == diagonals.ck).all()
    if name not in JUMPING:
        assert (np.diag(rn.ntk(net, x)) == diagonals.ntk).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_duplicates_and_the_diagonal_agree(name):
    x = data(5, 4)
    net = rn.Network([FAMILIES[name]] * 2, tau0=1.0)
    ck = rn.ck(net, np.concatenate([x, x]))
    unit = np.diag(ck).max()
    # the entry of two equal rows is the diagonal's: closed forms to rounding, series to their bound
    assert_allclose(
        np.diag(ck[:5, 5:]),
        np.diag(ck)[:5],
        rtol=0.0,
        atol=64 * EPS * unit + (1e-10 * unit if FAMILIES[name].family == "smooth" else 0),
    )
    if name not in JUMPING:
        ntk = rn.ntk(net, np.concatenate([x, x]))
        atol = 64 * EPS + (1e-10 if FAMILIES[name].family == "smooth" else 0)
        assert_allclose(np.diag(ntk[:5, 5:]), np.diag(ntk)[:5], rtol=0.0, atol=atol * np.diag(ntk).max())


# Plain NumPy recursions


@pytest.mark.parametrize("input_scaling", ["unit", "fan_in"])
@pytest.mark.parametrize(
    "weight_std, bias_std, centered", [(1.0, 0.0, True), (1.3, 0.0, True), (0.8, 0.4, False), (1.5, 0.2, True)]
)
def test_options_against_plain_numpy(weight_std, bias_std, centered, input_scaling):
    x = data(7, 6, norm=1.0 if input_scaling == "unit" else math.sqrt(6.0))
    gram = x @ x.T / (1.0 if input_scaling == "unit" else 6.0)
    tau0 = math.sqrt(np.trace(gram) / 7)
    options = {"weight_std": weight_std, "bias_std": bias_std}
    centres = oracles.relu_centres(3, tau0, centered=centered, **options)
    want_ck, want_ntk = oracles.numpy_recursion(gram, ["relu"] * 3, centres=centres, **options)
    net = rn.Network(["relu"] * 3, centered=centered, input_scaling=input_scaling, **options)
    ck, ntk = rn.ck_ntk(net, x)
    # atol: arccos(1 − eps) in the NumPy route is off by √eps on the diagonal only; off it, by a few eps / angle
    off = ~np.eye(7, dtype=bool)
    assert_allclose(ck[off], want_ck[off], rtol=0.0, atol=1e-13)
    assert_allclose(ntk[off], want_ntk[off], rtol=0.0, atol=1e-13)
    assert_allclose(ck, want_ck, rtol=0.0, atol=1e-7)
    assert_allclose(rn.nngp(net, x), weight_std**2 * ck + bias_std**2, rtol=4 * EPS)
    assert_allclose(rn.ck(net, x), ck, rtol=0.0, atol=0.0)
    assert_allclose(rn.ntk(net, x), ntk, rtol=0.0, atol=0.0)


def test_erf_networks_against_plain_numpy():
    x = data(6, 5)
    want_ck, want_ntk = oracles.numpy_recursion(x @ x.T, ["erf"] * 4, weight_std=1.2, bias_std=0.1)
    ck, ntk = rn.ck_ntk(rn.Network(["erf"] * 4, weight_std=1.2, bias_std=0.1), x)
    assert_allclose(ck, want_ck, rtol=0.0, atol=64 * EPS * ck.max())  # roundings of four layers, in either route
    assert_allclose(ntk, want_ntk, rtol=0.0, atol=64 * EPS * ntk.max())


def test_neural_tangents_convention_in_one_number():
    # (Dense, ReLU, Dense) at x = y: nngp = w² q/2 + b² with q = w² ‖x‖²/p + b²; ntk = nngp + w² q/2 (slope ½)
    x = np.array([[1.0, -2.0, 0.5, 1.0]])
    net = rn.Network(["relu"], weight_std=1.5, bias_std=0.1, centered=False, input_scaling="fan_in")
    q = 2.25 * float(x[0] @ x[0]) / 4.0 + 0.01
    assert rn.nngp(net, x)[0, 0] == pytest.approx(2.25 * q / 2.0 + 0.01, rel=8 * EPS)
    assert rn.ntk(net, x)[0, 0] == pytest.approx(2.25 * q / 2.0 + 0.01 + 2.25 * q / 2.0, rel=8 * EPS)


def test_tau0_is_the_root_mean_square_norm_of_the_first_array():
    x, y = data(6, 4), data(3, 4, seed=1, norm=2.0)
    tau0 = math.sqrt((x**2).sum() / 6)
    free, fixed = rn.Network(["relu", "erf"]), rn.Network(["relu", "erf"], tau0=tau0)
    assert_allclose(rn.ck(free, x), rn.ck(fixed, x), rtol=16 * EPS, atol=16 * EPS)
    assert_allclose(rn.ck(free, x, y), rn.ck(fixed, x, y), rtol=16 * EPS, atol=16 * EPS)  # from x, not from y
    other = rn.ck(rn.Network(["relu", "erf"], tau0=2.0 * tau0), x)
    assert np.abs(other - rn.ck(free, x)).max() > 1e-3


# Laws


@st.composite
def matrices(draw, low=1):
    n, p = draw(st.integers(low, 8)), draw(st.integers(1, 6))
    x = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).standard_normal((n, p))
    return x * draw(st.sampled_from([0.1, 1.0, 3.0])) + 0.3


NAMES = st.sampled_from(list(FAMILIES))


def kernel_or_reject(net, x):
    """The CK, or another example if a series refuses this one: rows of one feature are all parallel."""
    try:
        return rn.ck(net, x)
    except rn.AccuracyError:
        reject()


@settings(max_examples=60)
@given(x=matrices(), name=NAMES, second=st.sampled_from(["relu", "erf", "sign"]), centered=st.booleans())
def test_kernels_are_symmetric_psd_and_equivariant(x, name, second, centered):
    net = rn.Network([FAMILIES[name], second], centered=centered, tau0=1.0)
    ck = kernel_or_reject(net, x)
    assert (ck == ck.T).all()
    # rounding of every entry in units of the diagonal
    assert np.linalg.eigvalsh(ck).min() >= -64 * EPS * len(x) * np.trace(ck) - (
        1e-9 if FAMILIES[name].family == "smooth" else 0.0
    ) * np.trace(ck)
    order = np.random.default_rng(0).permutation(len(x))
    again = rn.ck(net, x[order])
    # the product x xᵀ itself may round otherwise for another order of rows, and a step's next layer takes a root of it
    slack = 1e-6 if name in JUMPING or second == "sign" else 1e-11
    assert_allclose(again, ck[np.ix_(order, order)], rtol=0.0, atol=slack * max(1.0, np.diag(ck).max()))


@settings(max_examples=60)
@given(x=matrices(low=2), name=NAMES, centered=st.booleans())
def test_cross_kernels_are_blocks(x, name, centered):
    act = FAMILIES[name]
    net = rn.Network([act], centered=centered, tau0=1.0)
    cut = len(x) // 2
    whole, block = kernel_or_reject(net, x), rn.ck(net, x[:cut], x[cut:])
    unit = max(np.diag(whole).max(), float(np.abs(np.diff(act.levels)).sum()) ** 2 if act.is_step else 0.0)
    assert_allclose(block, whole[:cut, cut:], rtol=0.0, atol=(1e-10 if act.family == "smooth" else 64 * EPS) * unit)


@given(
    x=matrices(),
    depth=st.integers(1, 4),
    power=st.integers(-8, 8),
    name=st.sampled_from(["relu", "leaky", "abs", "identity"]),
)
def test_uncentred_homogeneous_networks_are_homogeneous(x, depth, power, name):
    net = rn.Network([FAMILIES[name]] * depth, centered=False, tau0=1.0)
    factor = 2.0**power
    for small, large in zip(rn.ck_ntk(net, x), rn.ck_ntk(net, factor * x), strict=True):
        assert (large == factor**2 * small).all()  # a power of two: exact


@given(x=matrices(), factor=st.floats(0.1, 10.0))
def test_centred_relu_is_homogeneous_with_its_own_tau0(x, factor):
    net = rn.Network(["relu"] * 3)
    small, large = rn.ck(net, x), rn.ck(net, factor * x)
    assert_allclose(
        large, factor**2 * small, rtol=0.0, atol=1e-13 * max(np.diag(large).max(), 1e-300)
    )  # roundings of 3 layers


@given(x=matrices(), name=st.sampled_from(["sign", "heaviside"]))
def test_homogeneous_steps_ignore_the_scale_of_rows(x, name):
    net = rn.Network([name], centered=False, tau0=1.0)
    stretched = x * 2.0 ** np.arange(len(x))[:, None]
    assert (rn.ck(net, x) == rn.ck(net, stretched)).all()  # powers of two


@given(x=matrices(low=2))
def test_relu_kernel_is_half_of_linear_plus_abs(x):
    # relu = (t + |t|)/2, and an odd and an even function are uncorrelated: K_relu = (K_identity + K_abs)/4
    total = sum(rn.ck(rn.Network([name], centered=False, tau0=1.0), x) for name in ("identity", "abs"))
    got = rn.ck(rn.Network(["relu"], centered=False, tau0=1.0), x)
    assert_allclose(got, total / 4.0, rtol=0.0, atol=64 * EPS * np.diag(got).max())  # dozens of roundings


@given(x=matrices(low=2))
def test_heaviside_and_sign_agree(x):
    # heaviside = (1 + sign)/2
    sign = rn.ck(rn.Network(["sign"], centered=False, tau0=1.0), x)
    heaviside = rn.ck(rn.Network(["heaviside"], centered=False, tau0=1.0), x)
    assert_allclose(heaviside, (1.0 + sign) / 4.0, rtol=0.0, atol=16 * EPS)
    # and the arcsine law
    unit = np.sqrt((x**2).sum(axis=1))
    rho = (x @ x.T) / np.outer(unit, unit)
    apart = np.abs(rho) < 0.99
    assert_allclose(sign[apart], 2.0 / np.pi * np.arcsin(rho[apart]), rtol=0.0, atol=1e-14)  # asin' < 8 there


@given(x=matrices(low=2), seed=st.integers(0, 100))
def test_a_step_that_jumps_by_sums_is_the_sum(x, seed):
    # two thresholds that nearly coincide make one jump: K is continuous in the thresholds
    one = rn.ck(rn.Network([activations.step([0.3], [0.0, 1.0])], centered=False, tau0=1.0), x)
    two = rn.ck(rn.Network([activations.step([0.3, 0.3 + 1e-13], [0.0, 0.4, 1.0])], centered=False, tau0=1.0), x)
    assert_allclose(two, one, rtol=0.0, atol=1e-6)  # P between the thresholds, 1e-13/λ, under a root at worst


def test_centring_is_a_rank_one_change_for_rows_of_one_norm():
    x = data(6, 5)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    raw = rn.ck(rn.Network(["gelu"], centered=False), x)
    centred = rn.ck(rn.Network(["gelu"]), x)
    assert_allclose(raw - centred, rn.moments(activations.gelu, 1.0).mean ** 2, rtol=1e-12)


def test_zero_rows():
    x = np.concatenate([data(3, 4), np.zeros((2, 4))])
    for name, act in FAMILIES.items():
        net = rn.Network([act, act], tau0=1.0)
        ck = rn.ck(net, x)
        assert np.isfinite(ck).all(), name
        at_zero = float(act(np.zeros(1))[0]) - rn.moments(act, 1.0).mean
        one = rn.ck(rn.Network([act], tau0=1.0), x)
        assert_allclose(one[3:, 3:], at_zero**2, rtol=1e-12, atol=1e-14)  # σ(0) twice: no randomness
        if name not in JUMPING:
            assert np.isfinite(rn.ntk(net, x)).all(), name
    # a constant feature has no gradient below it, also where E[σ'²] is infinite for every other row
    sign = rn.kernel_diagonals(rn.Network(["sign"], tau0=1.0), x)
    assert sign.ntk[3:].tolist() == [1.0, 1.0]
    assert np.isinf(sign.ntk[:3]).all()
    plain = rn.Network(["relu"] * 2, centered=False)
    assert (rn.ck(plain, x)[3:] == 0.0).all()
    assert (rn.ntk(plain, x)[3:] == 0.0).all()


def test_one_sample_and_one_feature():
    for name in ("relu", "erf", "sign", "gelu"):
        net = rn.Network([name, name], tau0=1.0)
        assert rn.ck(net, [[0.5]]).shape == (1, 1)
        assert rn.ck(net, [[0.5], [-1.0], [2.0]]).shape == (3, 3)
        assert np.isfinite(rn.ck(net, [[0.5], [-1.0], [2.0]])).all()
        assert rn.ck(net, [[0.5, 1.0]], [[1.0, 1.0], [0.2, 0.1]]).shape == (1, 2)


def test_antipodal_and_orthogonal_rows_of_relu_by_hand():
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    ck, ntk = rn.ck_ntk(rn.Network(["relu"], centered=False), x)
    assert ck[0, 1] == 0.0
    assert ntk[0, 1] == 0.0
    assert ck[0, 2] == pytest.approx(2.0 / (2.0 * math.pi), rel=4 * EPS)  # E[u⁺] E[v⁺]
    assert ck[0, 0] == 0.5


# What comes in


@pytest.mark.parametrize("form", ["fortran", "float32", "read-only", "strided", "list", "int", "memmap"])
def test_any_array_will_do(form, tmp_path):
    x = np.round(data(6, 4) * 64.0) / 64.0  # exact in float32
    if form == "int":
        x = np.round(x * 64.0)
    forms = {
        "fortran": lambda: np.asfortranarray(x),
        "float32": lambda: x.astype(np.float32),
        "strided": lambda: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
        "list": lambda: x.tolist(),
        "int": lambda: x.astype(np.int32),
    }
    if form == "memmap":
        np.save(tmp_path / "x.npy", x)
        given_x = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif form == "read-only":
        given_x = x.copy()
        given_x.setflags(write=False)
    else:
        given_x = forms[form]()
    net = rn.Network(["relu", "erf"])
    before = np.array(given_x)
    assert (rn.ck(net, given_x) == rn.ck(net, x)).all()
    assert (rn.ntk(net, given_x, given_x) == rn.ntk(net, x, x)).all()
    assert (np.array(given_x) == before).all()  # nothing is written to the caller's array


def test_dtype_of_the_result():
    x = data(5, 4)
    net = rn.Network(["relu"])
    for call in (rn.ck, rn.ntk, rn.nngp):
        full, single = call(net, x), call(net, x, dtype=np.float32)
        assert full.dtype == np.float64
        assert single.dtype == np.float32
        assert (single == full.astype(np.float32)).all()
        assert call(net, x, dtype="float32").dtype == np.float32
    pair = rn.ck_ntk(net, x, x[:2], dtype=np.float32)
    assert [kernel.dtype for kernel in pair] == [np.float32, np.float32]
    assert rn.ck(net, x, dtype=np.float32, return_error=True)[0].dtype == np.float32


# Threads


def test_two_python_threads_at_once():
    x, net = data(60, 8), rn.Network(["relu", "erf"])
    want = rn.ck_ntk(net, x)
    found, failed = [], []

    def work():
        try:
            found.extend(rn.ck_ntk(net, x) for _ in range(5))
        except BaseException as error:  # noqa: BLE001 - whatever a thread raises is handed on
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not failed
    assert len(found) == 10
    for pair in found:
        assert (pair[0] == want[0]).all()
        assert (pair[1] == want[1]).all()


# Accuracy of what has no closed form


def test_kinks_at_duplicates_meet_the_tolerance():
    x = data(4, 3)
    doubled = np.concatenate([x, x[:1]])
    for tolerance in (1e-5, 1e-10):
        net = rn.Network([replace(activations.selu, tolerance=tolerance)])
        kernel, bound = rn.ck(net, doubled, return_error=True)
        assert abs(kernel[0, 4] - kernel[0, 0]) <= 64 * EPS  # rounding
        assert bound <= tolerance * kernel.max()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-5])
@pytest.mark.parametrize("rho", [-0.999, -0.5, 0.3, 0.92, 0.999])
def test_the_bound_bounds_the_error(rho, tolerance):
    row = next(r for r in DUALS["rows"] if r["name"] == "selu" and r["rho"] == rho and np.linalg.norm(r["y"]) > 1.0)
    x, y = np.array([row["x"]]), np.array([row["y"]])
    net = rn.Network([replace(activations.selu, tolerance=tolerance)], centered=False, tau0=1.0)
    got, bound = rn.ck(net, x, y, return_error=True)
    assert abs(got[0, 0] - float(row["value"])) <= bound + 64 * EPS * float(row["second_y"])  # rounding
    assert bound <= tolerance * float(row["second_y"])


@pytest.mark.parametrize(
    ("names", "rho"), thinned([("selu", "selu"), ("elu", "abs"), ("gelu", "sign")], [0.9999, 0.95])
)
def test_the_bound_bounds_the_error_of_two_layers(names, rho):
    x, want = np.array(pair(rho)), chain(names, *pair(rho), 1.0)
    for tolerance in (1e-2, 1e-4, 1e-6, 1e-10):
        net = rn.Network([replace(activations.get(name), tolerance=tolerance) for name in names], tau0=1.0)
        unit = [diagonal.max() for diagonal in rn.kernel_diagonals(net, x)]
        for kernel, value, scale in zip((rn.ck, rn.ntk), want, unit, strict=True):
            options = {} if kernel is rn.ck else {"diagonal": "nan"}
            try:
                got, bound = kernel(net, x[:1], x[1:], return_error=True, **options)
            except rn.AccuracyError:
                continue  # this near, and no promise
            rounding = 64.0 * EPS * (scale if math.isfinite(scale) else abs(value) / (1.0 - rho))
            assert abs(got[0, 0] - value) <= bound + rounding, (tolerance, kernel)


@pytest.mark.parametrize("acts", [("gelu", "relu"), ("tanh", "relu", "erf"), ("silu", "abs", "tanh"), ("sin", "abs")])
def test_kinks_after_smooth_layers_take_duplicates(acts):
    # What the series leaves out of 1 − ρ vanishes with 1 − ρ, so that the kink's 1/√(1 − ρ) does no harm.
    x, net = data(4, 5), rn.Network(acts, tau0=1.0)
    ntk, bound = rn.ntk(net, x, x, return_error=True)
    diagonal = rn.kernel_diagonals(net, x).ntk
    assert np.abs(np.diag(ntk) - diagonal).max() <= bound + 64 * EPS * diagonal.max()
    assert bound <= 1e-10 * diagonal.max()


@pytest.mark.parametrize("name", ["tanh", "sin", "erf", "identity", "polynomial"])
def test_odd_layers_keep_antipodes(name):
    act = activations.polynomial([0.0, 1.0, 0.0, 0.2]) if name == "polynomial" else activations.get(name)
    x = data(4, 5)
    first = rn.ntk(rn.Network([act], tau0=1.0), x, -x)
    ck, ntk = (np.diag(kernel) for kernel in rn.ck_ntk(rn.Network([act, "abs"], tau0=1.0), x, -x))
    unit = rn.kernel_diagonals(rn.Network([act, "abs"], tau0=1.0), x)
    # |−u| = |u|, with slopes of opposite sign; the tolerance of the series
    assert_allclose(ck, unit.ck, rtol=0.0, atol=1e-10 * unit.ck.max())
    assert_allclose(ntk, ck - np.diag(first), rtol=0.0, atol=1e-10 * unit.ntk.max())
    signs = rn.ck(rn.Network([act, "sign", "sign"], tau0=1.0), x, -x)
    assert (np.diag(signs) == -1.0).all()


def test_closed_forms_have_no_truncation():
    x = data(4, 3)
    for name in ("relu", "erf", "sign", "step3", "polynomial"):
        assert rn.ck(rn.Network([FAMILIES[name]], tau0=1.0), x, return_error=True)[1] == 0.0
        assert rn.ntk(rn.Network([FAMILIES[name]], tau0=1.0), x, diagonal="nan", return_error=True)[1] == 0.0


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus", "sin", "sigmoid", "silu", "gaussian"])
def test_smooth_networks_take_duplicate_rows(name):
    # Their E[σ'²] has a convergent series too: nothing is inaccurate where two rows coincide.
    x = data(4, 3)
    doubled = np.concatenate([x, x[:1]])
    net = rn.Network([name, name], tau0=1.0)
    ck, ntk = rn.ck_ntk(net, doubled)
    assert ck[0, 4] == pytest.approx(ck[0, 0], rel=1e-9)  # ten times the tolerance
    assert ntk[0, 4] == pytest.approx(ntk[0, 0], rel=1e-9)
    assert rn.ntk(net, x, x)[0, 0] == pytest.approx(ntk[0, 0], rel=1e-9)


# Networks that jump


def test_step_ntk_has_no_diagonal():
    x = data(5, 4)
    net = rn.Network([FAMILIES["step3"], "relu"])
    with pytest.raises(rn.InfiniteDiagonalError, match="diagonal='nan'"):
        rn.ntk(net, x)
    with pytest.raises(rn.InfiniteDiagonalError):
        rn.ck_ntk(net, x)
    assert issubclass(rn.InfiniteDiagonalError, ValueError)
    off = ~np.eye(5, dtype=bool)
    nan = rn.ntk(net, x, diagonal="nan")
    assert np.isnan(np.diag(nan)).all()
    assert np.isfinite(nan[off]).all()
    for given_diagonal in (7.0, 7, np.full(5, 7.0), np.float32(7.0), [7.0] * 5):
        filled = rn.ntk(net, x, diagonal=given_diagonal)
        assert (np.diag(filled) == 7.0).all()
        assert (filled[off] == nan[off]).all()
    assert (np.diag(rn.ntk(net, x, diagonal=np.arange(5.0))) == np.arange(5.0)).all()
    assert np.isinf(rn.kernel_diagonals(net, x).ntk).all()
    assert (rn.ck_ntk(net, x, diagonal="nan")[0] == rn.ck(net, x)).all()
    assert (rn.ntk(rn.Network(["relu"]), x, diagonal="nan") == rn.ntk(rn.Network(["relu"]), x)).all()  # not needed


def test_step_ntk_at_duplicates_off_the_diagonal():
    x = data(4, 3)
    doubled = np.concatenate([x, x[:1]])
    net = rn.Network(["sign"])
    with pytest.raises(rn.InfiniteDiagonalError, match="rows 0 and 4"):
        rn.ntk(net, doubled, diagonal=np.ones(5))
    filled = rn.ntk(net, doubled, diagonal=3.0)
    assert filled[0, 4] == 3.0
    assert filled[4, 0] == 3.0
    assert np.isnan(rn.ntk(net, doubled, diagonal="nan")[4, 0])
    with pytest.raises(rn.InfiniteDiagonalError, match="rows 0 and 0"):
        rn.ntk(net, x, x)
    assert np.isfinite(rn.ntk(net, x[:2], x[2:])).all()  # a cross kernel without common rows is finite
    assert (np.diag(rn.ntk(net, x, x, diagonal=2.0)) == 2.0).all()


# Bad input

CALLS = {"ck": rn.ck, "nngp": rn.nngp, "ntk": rn.ntk, "ck_ntk": rn.ck_ntk, "kernel_diagonals": rn.kernel_diagonals}
GOOD = data(4, 3)
NET = rn.Network(["relu"])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "x, error",
    [
        (np.array([[1.0, np.nan]]), ValueError),
        (np.array([[1.0, np.inf]]), ValueError),
        (np.array([[1.0, -np.inf], [np.nan, 2.0]]), ValueError),
        (np.ones(3), ValueError),
        (np.ones((2, 2, 2)), ValueError),
        (np.float64(1.0), ValueError),
        (np.zeros((0, 3)), ValueError),
        (np.zeros((3, 0)), ValueError),
        (np.ones((2, 2), dtype=complex), TypeError),
        ([["a", "b"]], TypeError),
        ("abc", TypeError),
        ([[1.0, 2.0], [3.0]], ValueError),
        (np.array([[object()]]), TypeError),
        (None, TypeError),
        (np.full((2, 2), 1e200), ValueError),
    ],
)
def test_bad_x(call, x, error):
    with pytest.raises(error, match="`x`"):
        call(NET, x)


@pytest.mark.parametrize("call", [rn.ck, rn.nngp, rn.ntk, rn.ck_ntk])
@pytest.mark.parametrize(
    "y, error",
    [
        (np.ones((2, 4)), ValueError),
        (np.ones(3), ValueError),
        (np.full((2, 3), np.nan), ValueError),
        (np.zeros((0, 3)), ValueError),
        (np.ones((2, 3), dtype=complex), TypeError),
        ([["a", "b", "c"]], TypeError),
    ],
)
def test_bad_y(call, y, error):
    with pytest.raises(error, match="`y`"):
        call(NET, GOOD, y)


def test_overflow_of_y_is_named():
    with pytest.raises(ValueError, match=r"`[xy]`"):
        rn.ck(NET, GOOD, np.full((2, 3), 1e200))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("net", [True, None, "relu", ["relu"], activations.relu, rn.Network])
def test_bad_net(call, net):
    with pytest.raises(TypeError, match="`net`"):
        call(net, GOOD)


@pytest.mark.parametrize("call", [rn.ck, rn.nngp, rn.ntk, rn.ck_ntk])
@pytest.mark.parametrize(
    "dtype, error", [("complex128", ValueError), (np.int64, ValueError), ("float16", ValueError), ("banana", TypeError)]
)
def test_bad_dtype(call, dtype, error):
    with pytest.raises(error, match="`dtype`"):
        call(NET, GOOD, dtype=dtype)


@pytest.mark.parametrize(
    "diagonal, error",
    [
        ("inf", ValueError),
        (np.ones(3), ValueError),
        (np.ones((4, 4)), ValueError),
        (np.array([1.0, 2.0, np.nan, 1.0]), ValueError),
        (np.ones(4, dtype=complex), TypeError),
        (1j, TypeError),
        (True, TypeError),
        ({}, TypeError),
    ],
)
@pytest.mark.parametrize("call", [rn.ntk, rn.ck_ntk])
def test_bad_diagonal(call, diagonal, error):
    with pytest.raises(error, match="`diagonal`"):
        call(rn.Network(["sign"]), GOOD, diagonal=diagonal)


def test_an_array_does_not_fill_a_cross_kernel():
    with pytest.raises(ValueError, match="`diagonal`"):
        rn.ntk(rn.Network(["sign"]), GOOD, GOOD, diagonal=np.ones(4))


@pytest.mark.parametrize(
    "options, error, name",
    [
        ({"activations": []}, ValueError, "activations"),
        ({"activations": [3]}, TypeError, r"activations\[0\]"),
        ({"activations": ["relu", None]}, TypeError, r"activations\[1\]"),
        ({"activations": ["rleu"]}, ValueError, "name"),
        ({"activations": None}, TypeError, "activations"),
        ({"weight_std": 0.0}, ValueError, "weight_std"),
        ({"weight_std": -1.0}, ValueError, "weight_std"),
        ({"weight_std": "1"}, TypeError, "weight_std"),
        ({"weight_std": math.nan}, ValueError, "weight_std"),
        ({"bias_std": -0.1}, ValueError, "bias_std"),
        ({"bias_std": math.inf}, ValueError, "bias_std"),
        ({"bias_std": True}, TypeError, "bias_std"),
        ({"centered": 1}, TypeError, "centered"),
        ({"centered": None}, TypeError, "centered"),
        ({"input_scaling": "ntk"}, ValueError, "input_scaling"),
        ({"input_scaling": None}, ValueError, "input_scaling"),
        ({"tau0": 0.0}, ValueError, "tau0"),
        ({"tau0": -1.0}, ValueError, "tau0"),
        ({"tau0": math.nan}, ValueError, "tau0"),
        ({"tau0": "data"}, TypeError, "tau0"),
        ({"tau0": 1j}, TypeError, "tau0"),
    ],
)
def test_bad_network(options, error, name):
    options = {"activations": ["relu"], **options}
    with pytest.raises(error, match=f"`{name}`"):
        rn.Network(options.pop("activations"), **options)


def test_networks_are_values():
    net = rn.Network("relu", tau0=1.0)
    assert net == rn.Network(["relu"], tau0=1.0)
    assert hash(net) == hash(rn.Network([activations.relu], tau0=1.0))
    assert net.depth == 1
    assert net.with_tau0(2.0).tau0 == 2.0
    assert net.with_activations([activations.erf, activations.relu]).depth == 2
    assert str(rn.Network(["relu", "erf"])) == "relu → erf"
    with pytest.raises(AttributeError):
        net.tau0 = 3.0


def test_a_network_without_signal_says_so():
    with pytest.raises(ValueError, match="layer 1"):
        rn.ck(rn.Network([activations.step([50.0], [0.0, 1.0])], tau0=1.0), GOOD)
    with pytest.raises(ValueError, match="`x`"):
        rn.ck(NET, np.zeros((3, 3)))


def test_a_custom_activation_needs_its_derivative_for_the_diagonal_only():
    act = activations.custom(np.tanh)
    want = rn.ntk(rn.Network(["tanh"]), GOOD)
    assert_allclose(rn.ntk(rn.Network([act]), GOOD), want, rtol=1e-9)  # E[σ'²] by numerical differentiation, 1e-10


def test_mpmath_oracles_agree_with_each_other():
    # conditioning (quadrature) and the recursions' closed forms are two routes to the same numbers
    for name, parameters in (
        ("relu", {}),
        ("leaky_relu", {"negative_slope": 0.1}),
        ("abs", {}),
        ("erf", {}),
        ("sign", {}),
    ):
        with mp.workdps(40):
            block = mpf(2), mpf(1) / 2, mpf(3) / 10
            value, slope = oracles.dual(name, parameters, *block)
            again = oracles.mp_layer(name, parameters, *block)
            assert abs(value - again[0]) < mpf(10) ** -25
            assert abs(slope - again[1]) < mpf(10) ** -25
