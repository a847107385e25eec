"""Closed forms where formulas break: ρ → ±1, tiny and huge norms, identical rows, depth 100; against mpmath.

The oracle takes the rows' floats as exact. Two yardsticks: *scale*, eps √(E[f_u²] E[f_v²]), and where a kernel turns a
rounding of its inputs into more than that (sines of 1e8, networks in which neighbouring rows part by a factor a layer,
the angle of two parallel rows under `sign`) how far the exact kernel moves if one row is moved by eps.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import oracles_duals as exact
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from numpy.testing import assert_allclose, assert_array_equal

import rmtntk as rn
from rmtntk import activations
from rmtntk.errors import AccuracyError

EPS = float(np.finfo(np.float64).eps)
HUGE, TINY = 1e150, 1e-150


class Family(NamedTuple):
    """`units`: of eps · scale that one layer may be off, see `UNITS`; `top`: largest τ whose moments fit float64.

    `low`: smallest τ whose variance does; `yields`: whether the kernel moves by more than its rounding if the rows do;
    `slope`: whether the NTK has a diagonal.
    """

    act: activations.Activation
    layer: exact.Layer
    units: float = 8.0
    low: float = 0.0
    top: float = math.inf
    yields: bool = False
    slope: bool = True


# Worst errors of one layer are 2 to 3 eps · scale: norm, correlation, transcendental function and products are rounded
# once or twice each. 8 leaves room for another processor's BLAS and fused operations. A power k of two norms rounds k
# times as often, and coefficients of a polynomial add up to more than their sum: 16.
with mp.workdps(exact.DIGITS):
    FAMILIES = {
        "relu": Family(activations.relu, exact.homogeneous(0, 1)),
        "leaky": Family(activations.leaky_relu(0.1), exact.homogeneous(0.1, 1)),
        "ab_relu": Family(activations.ab_relu(0.7, -0.4), exact.homogeneous(0.7, -0.4)),
        "abs": Family(activations.abs, exact.homogeneous(-1, 1)),
        "identity": Family(activations.identity, exact.homogeneous(1, 1)),
        "erf": Family(activations.erf, exact.erf(1, 1, 0), yields=True),
        "erf_with": Family(activations.erf_with(2.0, 3.0, 0.5), exact.erf(2, 3, 0.5), yields=True),
        "sigmoid_like": Family(activations.sigmoid_like, exact.erf(0.5, 1.0 / 2.4020563531719796, 0.5), yields=True),
        "gelu": Family(activations.gelu, exact.gelu()),
        "sin": Family(activations.sin, exact.trig(1, 1, exact.sine_cosine(0)), yields=True),
        "cos": Family(activations.cos, exact.trig(1, 1, exact.sine_cosine(1)), low=1e-70, yields=True),
        "sin_with": Family(
            activations.sin_with(1.5, 0.7, 0.3), exact.trig(1.5, 0.7, exact.sine_cosine(phase=0.3)), yields=True
        ),
        "rbf": Family(
            activations.rbf(1.0), exact.trig(math.sqrt(2), math.sqrt(2), exact.sine_cosine(phase=math.pi / 4)),
            yields=True,
        ),
        "exp": Family(activations.exp(), exact.exponential(1, 1), top=18.0, yields=True),
        "gaussian": Family(activations.gaussian, exact.gaussian(1, -0.5), low=1e-70, yields=True),
        "exp_square": Family(activations.exp_square(-1.0), exact.gaussian(1, -1), low=1e-70, yields=True),
        "growing exp_square": Family(
            activations.exp_square(0.2), exact.gaussian(1, 0.2), low=1e-70, top=1.1, yields=True
        ),
        "rectified 2": Family(activations.rectified_monomial(2), exact.rectified(2), 16.0, low=1e-70, top=1e70),
        "rectified 3": Family(activations.rectified_monomial(3), exact.rectified(3), 16.0, low=1e-50, top=1e50),
        "rectified 5": Family(activations.rectified_monomial(5), exact.rectified(5), 16.0, low=1e-30, top=1e30),
        "exp_normalized": Family(activations.exp_normalized(), exact.exp_normalized(1, -1)),
        "exp_normalized 30": Family(activations.exp_normalized(30.0), exact.exp_normalized(30, -1)),
        # e^γ alone would overflow
        "exp_normalized 800": Family(activations.exp_normalized(800.0), exact.exp_normalized(800, -1), top=1e149),
        "polynomial": Family(
            activations.polynomial([1.0, 2.0, -1.0, 0.5]), exact.polynomial([1.0, 2.0, -1.0, 0.5]), 16.0, top=1e50
        ),
        "monomial": Family(activations.monomial(3), exact.polynomial([0, 0, 0, 1]), 16.0, low=1e-50, top=1e50),
        "hermite": Family(activations.hermite(4), exact.hermite(4), 16.0, low=1e-70, top=1e35),
        "sign": Family(activations.sign, exact.jump(-1, 1), yields=True, slope=False),
        "heaviside": Family(activations.heaviside, exact.jump(0, 1), yields=True, slope=False),
        "step": Family(
            activations.step([-0.4, 0.9], [-1.0, 0.0, 1.0]), exact.step([-0.4, 0.9], [-1.0, 0.0, 1.0]), low=0.1,
            yields=True, slope=False,
        ),
    }  # fmt: skip

SCALES = (TINY, 1e-8, 1.0, 30.0, 1e8, HUGE)
RATIOS = (1.0, 1.0 + 1e-12, 1.0 + 1e-3, 3.0, 1e3)
OPTIONS = (
    {"centered": False},
    {"centered": True},
    {"centered": False, "weight_std": 1.3, "bias_std": 0.3},  # bias in units of the rows' norm
    {"centered": True, "weight_std": 0.8, "bias_std": 0.02},
)
ANGLES = (0.0, *(math.sqrt(2.0 * 10.0**-k) for k in range(1, 16)), 3.0, 1e9)  # tangents: 1 − ρ = 10^-k


def rows(scale: float, ratio: float, angles=ANGLES) -> tuple[np.ndarray, np.ndarray]:
    """One row, and its turns by the angles, forwards and backwards, `ratio` as long, and a right angle."""
    u = 1.0137 * scale * np.array([0.6, 0.8])
    across = np.array([-u[1], u[0]])
    turned = [(u + t * across) / math.sqrt(1.0 + t * t) for t in angles]
    return u, ratio * np.array([sign * v for v in turned for sign in (1.0, -1.0)] + [across])


def moved(x: list[float], y: list[float]) -> Iterator[list[mpf]]:
    """Move a row by eps of its norm, along and across, and if that is far enough, on the line of the other."""
    a, b = map(mpf, y)
    for h in (mpf(EPS), -mpf(EPS)):
        yield [a + h * a, b + h * b]
        yield [a - h * b, b + h * a]
    along = mp.fdot(x, y) / mp.fdot(x, x)
    line = [along * value for value in x]
    if mp.hypot(a - line[0], b - line[1]) <= 4 * EPS * mp.hypot(a, b):
        yield line


def options_at(options: dict, scale: float) -> dict:
    return {**options, "bias_std": options.get("bias_std", 0.0) * scale}


def worst_errors(family, scale, ratio, options, *, depth=1, angles=ANGLES):
    """Largest errors of CK and NTK, in units of eps · scale, or of that plus what eps in a row makes."""
    options = options_at(options, scale)
    u, ys = rows(scale, ratio, angles)
    net = rn.Network([family.act] * depth, tau0=scale, **options)
    found = rn.ck_ntk(net, u[None], ys, diagonal=math.inf)
    layers = [family.layer] * depth
    x = [float(value) for value in u]
    worst = [0.0, 0.0]
    for j, y in enumerate(ys.tolist()):
        want = exact.kernel(layers, x, y, scale, **options)
        for which in (0, 1):
            value, unit = want[which], want[which + 2]
            if which == 1 and not family.slope and (depth > 1 or not mp.isfinite(value) or abs(value) > 1e12 * unit):
                continue
            if not mp.isfinite(unit):
                continue
            if which == 1 and not family.slope and scale == TINY and abs(value) > 1e6:
                continue  # E[σ'σ'] = 1/(2π λ_u λ_v sin t), which multiplies K_0, is beyond float64
            error = exact.units(float(found[which][0, j]), value, unit)
            if (family.yields or depth > 1) and error > family.units:
                with mp.workdps(1000):  # parallel to more digits than any kernel takes
                    near = [exact.kernel(layers, x, z, scale, **options)[which] for z in moved(x, y)]
                if math.isinf(error):
                    error = math.inf if all(map(mp.isfinite, near)) else 0.0
                else:
                    error /= 1.0 + max(exact.units(z, value, unit) for z in near if mp.isfinite(z))
            worst[which] = max(worst[which], error)
    return worst


def fits(family: Family, scale: float, ratio: float) -> bool:
    return family.low <= scale and 1.4 * scale * ratio <= family.top


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FAMILIES)
def test_one_layer(name, scale):
    family = FAMILIES[name]
    for k, ratio in enumerate(RATIOS):
        if fits(family, scale, ratio) and not (scale == HUGE and family.yields and ratio in RATIOS[2::2]):
            # steps are integrals, and huge norms take 700 digits
            angles = ANGLES[k % 4 :: 9 if name == "step" or scale == HUGE else 6] + ANGLES[:1]
            ck, ntk = worst_errors(family, scale, ratio, OPTIONS[k % len(OPTIONS)], angles=angles)
            assert ck <= family.units, (ratio, ck)
            assert ntk <= family.units, (ratio, ntk)


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FAMILIES)
def test_one_layer_everywhere(name, scale):
    family = FAMILIES[name]
    for ratio in RATIOS:
        for options in OPTIONS:
            if fits(family, scale, ratio):
                angles = ANGLES[::4] if name == "step" or (scale == HUGE and family.yields) else ANGLES
                ck, ntk = worst_errors(family, scale, ratio, options, angles=angles)
                assert ck <= family.units, (ratio, options, ck)
                assert ntk <= family.units, (ratio, options, ntk)


# Depth. Every layer rounds a few times, and what earlier layers rounded goes through the later ones. Where later layers
# magnify it (centred ones drive neighbouring rows apart, by √1.47 per layer for relu and √2.75 for abs, until they are
# apart), the yardstick grows by as much as eps in a row does. Measured in it at depth 100: 7.6 per layer in the NTK of
# exp_normalized, whose map of ρ has slope 1 at its fixed point, and 6.9 in the CK of centred abs, both for norms
# 1 and 3. 16 is twice that: an observed growth with room for other processors, not a derived bound.
DEEP = ("relu", "leaky", "abs", "erf", "sin", "gelu", "exp_normalized", "gaussian", "cos", "erf_with", "heaviside")
PER_LAYER = 16.0


@pytest.mark.parametrize("depth", [2, 3, 10])
@pytest.mark.parametrize("name", DEEP)
def test_depth(name, depth):
    check_depth(name, depth, 1.0, ANGLES[depth % 3 :: 5] + ANGLES[:1])
    if depth == 3 and FAMILIES[name].low == 0.0 and name != "erf_with":
        # gelu of huge norms is relu to the last bit: rows on one line have features on one line, whose distance says
        # nothing about the angle between them
        for scale in (TINY, 1e-8, 30.0) if name in ("gelu", "sin") else (TINY, 1e-8, 30.0, HUGE):
            check_depth(name, depth, scale, (0.0, 1e-7, 3.0))


def test_depth_one_hundred():
    check_depth("relu", 100, 1.0, (0.0, 1e-6, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-8, 1.0, 30.0])
@pytest.mark.parametrize("name", [name for name in DEEP if FAMILIES[name].low == 0.0])
def test_depth_one_hundred_everywhere(name, scale):
    check_depth(name, 100, scale, ANGLES[::2])


def check_depth(name, depth, scale, angles):
    family = FAMILIES[name]
    for ratio in (1.0, 1.0 + 1e-3, 3.0):
        for options in OPTIONS[:3]:
            if depth > 5 and options["centered"] and name in ("cos", "gaussian"):
                continue  # the variance of even functions falls to nothing: the next test
            ck, ntk = worst_errors(family, scale, ratio, options, depth=depth, angles=angles)
            assert ck <= family.units + PER_LAYER * depth, (ratio, options, ck)
            assert ntk <= family.units + PER_LAYER * depth, (ratio, options, ntk)


OVERFLOWS = [
    (activations.exp(), 30.0, "exp"),
    (activations.exp(), HUGE, "exp"),
    (activations.rectified_monomial(2), HUGE, "rectified_monomial"),
    (activations.rectified_monomial(5), 1e70, "rectified_monomial"),
    (activations.monomial(3), HUGE, "monomial"),
    (activations.polynomial([1.0, 2.0, -1.0, 0.5]), HUGE, "polynomial"),
    (activations.hermite(4), HUGE, "hermite"),
    (activations.exp_square(0.2), 1.2, "exp_square"),
    (activations.exp_square(0.2), HUGE, "exp_square"),
    (activations.exp_square(-1e10), HUGE, "exp_square"),
    (activations.erf_with(rate=1e10), HUGE, "erf"),
]


@pytest.mark.parametrize("act, scale, name", OVERFLOWS, ids=lambda value: str(value))
def test_what_float64_cannot_hold_is_named(act, scale, name):
    x = scale * np.array([[0.6, 0.8], [0.8, -0.6]])
    for call in (rn.ck, rn.ntk, rn.ck_ntk, rn.kernel_diagonals):
        with pytest.raises(AccuracyError, match=f"{name}.*(overflow|no finite|beyond float64)"):
            call(rn.Network(act), x)


def test_weights_that_overflow_are_named():
    net = rn.Network(["relu", "abs"], weight_std=1e10, tau0=1e-100)
    with pytest.raises(AccuracyError, match=r"overflows float64 for a row of norm 1e\+150.*`weight_std`"):
        rn.ck_ntk(net, np.array([[HUGE, 0.0], [1.0, 1.0]]))
    with pytest.raises(AccuracyError, match=r"the NTK of layer .*overflows float64"):
        rn.ck_ntk(rn.Network(["abs"] * 100, weight_std=50.0, bias_std=1.0, tau0=1.0), np.eye(2))


@pytest.mark.parametrize("name", ["cos", "gaussian"])
def test_layers_that_lose_all_variance_are_named(name):
    with pytest.raises(ValueError, match="carries no signal"):
        rn.ck(rn.Network([FAMILIES[name].act] * 12), np.array([[1.0, 0.0], [0.6, 0.8]]))


def small(name):
    """Scales at which every family of `FAMILIES` but the growing one has all moments."""
    return (1e-3, 0.9) if FAMILIES[name].low < 0.01 else (0.3, 0.9)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "growing exp_square"])
def test_identical_rows(name, depth):
    """A copy of a row is worth what the diagonal says: both are rounded, by a few eps each per layer."""
    family = FAMILIES[name]
    for scale in small(name):
        x = np.random.default_rng(3).standard_normal((5, 4)) * scale / 2.0
        x = np.concatenate([x, x[::2]])
        for options in OPTIONS:
            if (depth > 1 and name == "exp") or (depth > 2 and name in POWERS):
                continue  # values leave float64, and every layer multiplies relative errors by the power
            net = rn.Network([family.act] * depth, **options_at(options, scale))
            ck, ntk = rn.ck_ntk(net, x, diagonal=math.inf)
            for kernel in (ck, ntk) if family.slope else (ck,):
                diagonal = np.diag(kernel)
                # centring may leave less than the features' scale, but never of a row of the typical norm
                bound = 2.0 * family.units * depth * EPS * diagonal.max()
                assert_allclose(kernel[[5, 6, 7], [0, 2, 4]], diagonal[[0, 2, 4]], rtol=0.0, atol=bound)
                assert_array_equal(diagonal[[5, 6, 7]], diagonal[[0, 2, 4]])


POWERS = ("rectified 2", "rectified 3", "rectified 5", "polynomial", "monomial", "hermite")
ODD = ("identity", "erf", "sin", "monomial", "sign")
EVEN = ("abs", "cos", "gaussian", "exp_square", "hermite")


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", ODD + EVEN)
def test_antipodes(name, depth):
    """K(u, −v) = ∓K(u, v) of odd and even functions to the last bit, near ρ = ±1 and far from it."""
    family = FAMILIES[name]
    x = np.random.default_rng(5).standard_normal((4, 3))
    x = np.concatenate([x, x + 1e-7 * np.roll(x, 1, axis=0)])
    net = rn.Network([family.act] * depth, centered=name not in EVEN)
    turned, same = rn.ck(net, x, -x), rn.ck(net, x, x)
    assert_array_equal(turned, -same if name in ODD else same)
    if name in ODD and family.slope:
        assert_array_equal(rn.ntk(net, x, -x), -rn.ntk(net, x, x))


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].slope])
def test_zero_rows(name):
    """A row of zeros has the constant feature f(0)."""
    family = FAMILIES[name]
    v = [0.6, 0.5]
    net = rn.Network([family.act], tau0=1.0, centered=False)
    ck, ntk = rn.ck_ntk(net, np.array([[0.0, 0.0], v]))
    with mp.workdps(30):
        at_zero, mean = family.layer.mean(mpf(0)), family.layer.mean(mp.norm(v))
        scale = mp.sqrt(family.layer.dual(mp.norm(v), mp.norm(v), mpf(1))[0])
        for kernel in (ck, ntk):
            assert exact.units(kernel[0, 0], at_zero**2, at_zero**2 or mpf(1)) <= family.units
            assert exact.units(kernel[0, 1], at_zero * mean, abs(at_zero) * scale or mpf(1)) <= family.units


@st.composite
def data(draw):
    n, p = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    x = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).standard_normal((n, p)) / math.sqrt(p)
    x *= draw(st.sampled_from([0.2, 0.6]))
    near = x + 10.0 ** -draw(st.integers(1, 16)) * np.random.default_rng(n).standard_normal((n, p))
    return np.concatenate([x, x[: n // 2], near, -x[n // 2 :]])


@settings(max_examples=20)
@pytest.mark.parametrize("name", FAMILIES)
@given(x=data(), depth=st.integers(1, 3), options=st.sampled_from(OPTIONS))
def test_kernels_are_positive_semidefinite(name, x, depth, options):
    """λ_min ≥ −n · units · eps · λ_max: an entry is off by that many eps of the diagonal, a layer."""
    family = FAMILIES[name]
    if name in ("exp", "growing exp_square", "exp_normalized 800", *EVEN, "step"):
        depth = 1  # deeper, they diverge, drive rows apart or lose all their variance
    if name == "growing exp_square":
        options = OPTIONS[1]
    net = rn.Network([family.act] * depth, tau0=0.5, **options)
    ck, ntk = rn.ck_ntk(net, x, diagonal=math.inf)
    for kernel in (ck, ntk) if family.slope else (ck,):
        assert np.isfinite(kernel).all()
        values = np.linalg.eigvalsh(kernel)
        assert values[0] >= -4.0 * family.units * depth * len(x) * EPS * max(values[-1], np.diag(kernel).max())


def test_the_oracle_is_right():
    """J_n as printed (Cho and Saul 2009), the other formulas as in the table made by conditioning."""
    assert exact.arc_cosine(0)[1] == [1]
    for n, (p, q) in {1: ([1], [0, 1]), 2: ([0, 3], [1, 0, 2])}.items():
        found_p, found_q = exact.arc_cosine(n)
        assert found_p[: len(p)] == p
        assert not any(found_p[len(p) :])
        assert found_q[: len(q)] == q
        assert not any(found_q[len(q) :])
    with mp.workdps(30):
        table = json.loads((Path(__file__).parent / "data" / "duals.json").read_text(encoding="utf-8"))["rows"]
        names = ("erf", "gelu", "sin", "cos", "gaussian", "sign", "relu", "abs")
        layers = {name: FAMILIES[name] for name in names}
        checked = 0
        for row in table:
            if row["name"] in layers and not row["parameters"]:
                x, y = (list(map(mpf, row[key])) for key in "xy")
                u, v = mp.norm(x), mp.norm(y)
                rho = mp.fdot(x, y) / (u * v)
                rho = mp.sign(rho) if abs(abs(rho) - 1) < mpf(10) ** -25 else rho
                value, slope = layers[row["name"]].layer.dual(u, v, rho)
                scale = mp.sqrt(mpf(row["second_x"]) * mpf(row["second_y"]))
                assert abs(value - mpf(row["value"])) <= 1e-14 * scale  # what the table promises
                if layers[row["name"]].slope and abs(rho) != 1:
                    assert abs(slope - mpf(row["slope"])) <= 1e-13 * (1 + abs(slope))
                checked += 1
        assert checked > 100
