"""Activations without a closed form: near and parallel rows, the reported bounds, and functions that go wrong.

The oracle conditions on u and integrates v | u on panels split at the breakpoints: neither Hermite series nor the
package's rule for near pairs, which conditions on what u and v share. Deep kernels hand on E[(f_u − f_v)²], which the
oracle integrates as it is, so that gaps of 1e-12 keep their digits.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import oracles
import pytest
from cases import slow, thinned
from numpy.testing import assert_allclose
from scipy import special

import rmtntk as rn
from rmtntk import activations, kernels
from rmtntk._jit import near, series
from rmtntk.dual import plan
from rmtntk.network import layer_scales
from rmtntk.pieces import tabulate

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 256.0 * EPS  # of the sums of some hundred terms, and of the oracle's thousands of small ones


class Function(NamedTuple):
    value: object
    slope: object
    breaks: tuple = ()


def elu(t):
    return np.where(t >= 0.0, t, np.expm1(np.minimum(t, 0.0)))


def elu_slope(t):
    return np.where(t >= 0.0, 1.0, np.exp(np.minimum(t, 0.0)))


def bent(t):
    return np.sin(t) + 0.5 * np.abs(t - 0.7) - 0.25 * np.maximum(t + 1.1, 0.0)


def bent_slope(t):
    return np.cos(t) + 0.5 * np.where(t >= 0.7, 1.0, -1.0) - 0.25 * (t >= -1.1)


FUNCTIONS = {
    "relu": Function(lambda t: np.maximum(t, 0.0), lambda t: 1.0 * (t >= 0.0), (0.0,)),
    "elu": Function(elu, elu_slope, (0.0,)),
    "softsign": Function(lambda t: t / (1.0 + np.abs(t)), lambda t: 1.0 / (1.0 + np.abs(t)) ** 2, (0.0,)),
    "hard_tanh": Function(lambda t: np.clip(t, -1.0, 1.0), lambda t: 1.0 * ((t >= -1.0) & (t < 1.0)), (-1.0, 1.0)),
    "tanh": Function(np.tanh, lambda t: 1.0 / np.cosh(np.minimum(np.abs(t), 300.0)) ** 2),
    "softplus": Function(lambda t: np.logaddexp(0.0, t), special.expit),
    "silu": Function(
        lambda t: t * special.expit(t), lambda t: special.expit(t) * (1.0 + t * special.expit(-t))
    ),
    "bent": Function(bent, bent_slope, (-1.1, 0.7)),
}  # fmt: skip


def activation(name, **options):
    if name == "bent":
        return activations.custom(bent, derivative=bent_slope, breakpoints=(-1.1, 0.7), **options)
    return replace(activations.get(name), **options)


def rule(edges, count=20):
    x, w = np.polynomial.legendre.leggauss(count)
    half = 0.5 * np.diff(edges)[..., None]
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None]
    shape = (*edges.shape[:-1], -1)
    return (middle + half * x).reshape(shape), (half * w * np.ones_like(middle)).reshape(shape)


def normal(x):
    return np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


class Dual(NamedTuple):
    """E[σ_u σ_v], E[σ'_u σ'_v], E[(σ_u − side σ_v)²], means and mean squares."""

    value: float
    slope: float
    apart: float
    means: tuple
    seconds: tuple


def points(f, scale, near_by):
    """Edges in units of ξ: the breakpoints, where the functions turn (|t| about 1), and a grid of 1/2."""
    turns = np.array([0.0, *(side * 2.0**k for side in (-1, 1) for k in range(-2, 13))])
    return [
        np.arange(-11.0, 11.25, 0.5),
        np.array(f.breaks) / scale,
        turns[np.abs(turns) < 11 * scale] / scale,
        near_by,
    ]


def inside(parts):
    edges = np.unique(np.concatenate(parts))
    edges = edges[np.abs(edges) <= 11.0]
    return edges[np.concatenate([[True], np.diff(edges) > 1e-15])]


def dual(f, su, sv, gap, side):
    """The means for u ~ N(0, su²), v ~ N(0, sv²) of correlation side (1 − gap)."""
    rho, sine = side * (1.0 - gap), math.sqrt(gap * (2.0 - gap))
    special_points = []
    for point in (*f.breaks, 0.0) if rho else ():
        at = point / (rho * sv)
        special_points += [at + sign * sine * 1.5**k for sign in (-1, 1) for k in range(-4, 8)] + [at]
    xi, weights = rule(inside(points(f, su, np.array(special_points))))
    weights = weights * normal(xi)
    u = su * xi
    if sine == 0.0:
        v = side * sv * xi[:, None]
        inner = np.ones_like(v)
    else:
        # v = sv (ρ ξ + sine η): edges in η, the same number for every ξ
        turns = np.array([*f.breaks, 0.0, 0.3, -0.3, 1.0, -1.0, 3.0, -3.0, 10.0, -10.0])
        moved = (turns / sv - rho * xi[:, None]) / sine
        fixed = np.broadcast_to(np.arange(-9.0, 9.5, 1.5), (len(xi), 13))
        eta, inner = rule(np.sort(np.clip(np.concatenate([moved, fixed], axis=1), -9.0, 9.0), axis=1), 12)
        inner = inner * normal(eta)
        v = sv * (rho * xi[:, None] + sine * eta)
    fu, fv = f.value(u), f.value(v)
    value = weights @ (fu * (inner * fv).sum(axis=1))
    slope = weights @ (f.slope(u) * (inner * f.slope(v)).sum(axis=1))
    apart = weights @ (inner * (fu[:, None] - side * fv) ** 2).sum(axis=1)
    means, seconds = [], []
    for scale in (su, sv):
        xi, w = rule(inside(points(f, scale, np.zeros(0))))
        w = w * normal(xi)
        means.append(float(w @ f.value(scale * xi)))
        seconds.append(float(w @ f.value(scale * xi) ** 2))
    return Dual(float(value), float(slope), float(apart), tuple(means), tuple(seconds))


def rows(su, sv, gap, side):
    """Two rows of these norms, and the gap that their floats have."""
    x = np.array([su, 0.0])
    y = side * sv * np.array([1.0 - gap, math.sqrt(gap * (2.0 - gap))])
    angle = math.atan2(abs(y[1]), side * y[0])
    return x, y, 2.0 * math.sin(0.5 * angle) ** 2


def chain(names, su, sv, gap, side):
    """CK and NTK of an uncentred network without biases, layer by layer."""
    ntk = side * su * sv * (1.0 - gap)
    for name in names:
        if name == "sign":
            return side * (1.0 - 4.0 / math.pi * math.asin(math.sqrt(0.5 * gap))), None
        found = dual(FUNCTIONS[name], su, sv, gap, side)
        ntk = found.value + ntk * found.slope
        su, sv = (math.sqrt(second) for second in found.seconds)
        apart = found.apart if found.value * side >= 0.0 else None
        side = math.copysign(1.0, found.value)
        if apart is None:
            gap = 1.0 - abs(found.value) / (su * sv)
        else:
            gap = max(0.0, (apart - (su - sv) ** 2) / (2.0 * su * sv))
    return found.value, ntk


def check(names, su, sv, gap, side, want_tolerance=1e-10, **options):
    """Both kernels within their bound, and the bound within the tolerance."""
    x, y, gap = rows(su, sv, gap, side)
    names = names.split()
    net = rn.Network([activation(name) if name != "sign" else name for name in names], centered=False, tau0=1.0)
    ck, ntk = chain(names, float(np.linalg.norm(x)), float(np.linalg.norm(y)), gap, side)
    both = np.stack([x, y])
    units = rn.kernel_diagonals(net, both)
    got, bound = rn.ck(net, x[None], y[None], return_error=True)
    assert abs(got[0, 0] - ck) <= bound + ROUNDING * units.ck.max()
    assert bound <= want_tolerance * units.ck.max()
    if ntk is not None:
        got, bound = rn.ntk(net, x[None], y[None], return_error=True)
        assert abs(got[0, 0] - ntk) <= bound + ROUNDING * units.ntk.max()
        assert bound <= want_tolerance * units.ntk.max()


def test_the_oracle_agrees_with_mpmath():
    for gap, side in ((0.3, 1), (1e-3, -1), (1e-6, 1)):
        got = dual(FUNCTIONS["elu"], 1.2, 0.7, gap, side)
        want = oracles.dual("elu", {}, 1.2**2, 0.7**2, oracles.mpf(1.2) * 0.7 * side * (1 - oracles.mpf(gap)))
        # a thousand nodes, each rounded
        assert_allclose([got.value, got.slope], [float(value) for value in want], rtol=1e-13, atol=1e-14)


SCALES = [(1.0, 1.0), (5.0, 4.7), (0.3, 2.0), (1.0, 1.000001)]


@pytest.mark.parametrize(
    ("name", "gap", "scales"),
    thinned(["elu", "softsign", "hard_tanh", "tanh", "bent"], [0.0, 1e-12, 1e-6, 1e-3, 0.03, 0.3], SCALES, every=3),
)
def test_near_rows_meet_the_tolerance(name, gap, scales):
    for side in (1, -1):
        check(name, *scales, gap, side)


CHAINS = ["elu elu elu", "tanh relu", "softsign tanh", "hard_tanh sign", "silu hard_tanh elu", "relu softplus",
          "elu sign", "tanh sign",
          "bent relu"]  # fmt: skip


@pytest.mark.parametrize(("names", "gap"), thinned(CHAINS, [1e-12, 0.02, 1e-5, 0.2]))
def test_bounds_of_deep_networks(names, gap):
    # The second layer's E[σ'σ'] moves like the square root of the first one's gap.
    check(names, 1.0, 1.0, gap, 1)
    check(names, 3.0, 2.9, gap, 1)
    check(names, 1.0, 1.0, gap, -1)
    check(names, 3.0, 2.9, gap, -1)


@pytest.mark.parametrize("name", [slow("elu"), slow("tanh"), "softplus", "hard_tanh"])
def test_interpolated_rows_of_norms_that_spread(name):
    # more distinct norms than are computed one by one, over six decades
    rng = np.random.default_rng(1)
    norms = np.geomspace(1e-3, 1e3, 60)
    x = rng.standard_normal((60, 2))
    x *= (norms / np.linalg.norm(x, axis=1))[:, None]
    net = rn.Network([activation(name)], centered=False, tau0=1.0)
    ck, bound_ck = rn.ck(net, x, return_error=True)
    ntk, bound_ntk = rn.ntk(net, x, return_error=True)
    unit_ck, unit_ntk = np.abs(ck).max(), np.abs(ntk).max()
    assert bound_ck <= 1e-10 * unit_ck
    assert bound_ntk <= 1e-10 * unit_ntk
    for i, j in rng.integers(60, size=(12, 2)):
        if i == j:
            continue
        su, sv = norms[i], norms[j]
        angle = math.atan2(abs(x[i, 0] * x[j, 1] - x[i, 1] * x[j, 0]), abs(x[i] @ x[j]))
        side = math.copysign(1.0, x[i] @ x[j])
        want = chain([name], su, sv, 2.0 * math.sin(0.5 * angle) ** 2, side)
        assert abs(ck[i, j] - want[0]) <= bound_ck + ROUNDING * unit_ck
        assert abs(ntk[i, j] - want[1]) <= bound_ntk + ROUNDING * unit_ntk
        # and of small rows in their own units: all errors are relative to the rows' own norms
        assert abs(ck[i, j] - want[0]) <= 1e-10 * math.sqrt(ck[i, i] * ck[j, j])


@pytest.mark.parametrize(
    ("name", "norm"),
    thinned(
        ["elu", "selu", "softsign", "hard_tanh", "tanh", "gabor", "gelu_tanh", "silu"], [1e-8, 1e-3, 1.0, 30.0, 1e4]
    ),
)
def test_duplicates_and_antipodes(name, norm):
    x = np.random.default_rng(2).standard_normal((3, 5))
    x *= norm / np.linalg.norm(x, axis=1)[:, None]
    net = rn.Network([name], tau0=1.0, centered=False)
    ck, bound = rn.ck(net, x, np.concatenate([x, -x]), return_error=True)
    ntk, bound_ntk = rn.ntk(net, x, x, return_error=True)
    diagonal = rn.kernel_diagonals(net, x)
    assert bound <= 1e-10 * diagonal.ck.max()
    assert bound_ntk <= 1e-10 * diagonal.ntk.max()
    assert_allclose(np.diag(ck), diagonal.ck, rtol=0.0, atol=bound + ROUNDING * diagonal.ck.max())
    assert_allclose(np.diag(ntk), diagonal.ntk, rtol=0.0, atol=bound_ntk + ROUNDING * diagonal.ntk.max())
    if name in ("softsign", "hard_tanh", "tanh", "gabor"):  # odd
        assert_allclose(np.diag(ck[:, 3:]), -diagonal.ck, rtol=0.0, atol=bound + ROUNDING * diagonal.ck.max())


def test_the_loop_for_near_pairs_against_the_series():
    # Both are accurate where the series ends before the gap matters: two formulas for one number.
    for name, scale in (("tanh", 0.8), ("silu", 1.0), ("softplus", 1.5)):
        act = activations.get(name)
        net = rn.Network([act], tau0=scale, centered=False)
        layer = plan(net, layer_scales(net, scale), np.array([scale]))
        assert layer.constants[0, series.LIMIT] == 0.0
        pieces = tabulate(act, scale, scale)
        for gap in (0.2, 1e-2, 1e-8):
            for side in (1, -1):
                x, y, own = rows(scale, scale, gap, side)
                found = near.pair(
                    pieces, near.rules(16), scale, side * scale, own, near.room(pieces), np.empty((3, 16))
                )
                value = rn.ck(net, x[None], y[None])[0, 0]
                # E[(f_u + f_v)²] − E[(f_u − f_v)²] = 4 E[f_u f_v]; pieces are accurate to 6e-15
                assert abs(0.25 * (found[1] - found[0]) - value) <= 1e-13 * layer.ck_diagonal[0]


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-10, 1e-11])
def test_custom_tolerances_are_met(tolerance):
    for gap in (0.0, 1e-4, 0.05):
        x, y, gap_ = rows(1.0, 1.3, gap, 1)
        net = rn.Network([activation("bent", tolerance=tolerance)], centered=False, tau0=1.0)
        got, bound = rn.ck(net, x[None], y[None], return_error=True)
        unit = rn.kernel_diagonals(net, np.stack([x, y])).ck.max()
        want = dual(FUNCTIONS["bent"], 1.0, float(np.linalg.norm(y)), gap_, 1).value
        assert abs(got[0, 0] - want) <= bound + ROUNDING * unit
        assert bound <= tolerance * unit


def test_tolerances_out_of_reach_are_refused_with_the_bound():
    x = np.array([[1.0, 0.0], [0.999, 0.03]])
    net = rn.Network([activation("bent", tolerance=1e-14)], centered=False, tau0=1.0)
    with pytest.raises(rn.AccuracyError, match=r"known here only to .* of its diagonal.*1\.0e-14.*tolerance") as caught:
        rn.ck(net, x)
    assert 1e-14 < caught.value.bound < 1e-9
    # a kink that nobody declared: no polynomials on panels describe it
    with pytest.raises(rn.AccuracyError):
        rn.ck(rn.Network([activations.custom(lambda t: np.abs(t - 0.3))], tau0=1.0), x)


@pytest.mark.parametrize(
    "function",
    [
        lambda t: np.exp(t**2),
        lambda t: np.exp(0.3 * t**2),  # E[σ] is finite, E[σ²] is not
        lambda t: np.where(t > 5.0, np.nan, t),
        lambda t: np.where(t > 3.0, np.inf, t),
        lambda t: 1.0 / (t - 2.5),
        lambda t: np.sqrt(np.where(np.abs(t) < 4, t + 4.0, -1.0)),
    ],
    ids=["exp", "half-exp", "nan", "inf", "pole", "root"],
)
def test_functions_without_moments_are_named_before_any_pair(function, monkeypatch):
    monkeypatch.setattr(kernels, "fill", lambda *_, **__: pytest.fail("pairs were computed"))
    x = np.random.default_rng(0).standard_normal((40, 3))  # 40 norms: interpolated
    with np.errstate(all="ignore"):
        act = activations.custom(function)
        for data in (x, x[:2]):
            with pytest.raises(rn.AccuracyError, match="activation"):
                rn.ck(rn.Network([act], tau0=1.0), data)


def test_functions_that_take_no_arrays():
    for function in (lambda t: max(t, 0.0), math.tanh):
        with pytest.raises(ValueError, match="`function` must take an array"):
            activations.custom(function)
    with pytest.raises(ValueError, match="`function` must map a real array"):
        activations.custom(lambda t: t + 1j)
    with pytest.raises(ValueError, match="`derivative` must map a real array"):
        activations.custom(np.tanh, derivative=lambda _: 1.0)
    x = np.eye(3)
    for late in (lambda t: t[..., :9].reshape(-1)[:9], lambda t: t + (0.0 if t.size == 9 else 1j)):
        with pytest.raises(ValueError, match="a custom activation must map a real array to a real array"):
            rn.ck(rn.Network([activations.custom(late)], tau0=1.0), x)


def test_a_function_is_called_for_the_layer_not_for_pairs():
    calls, values = [], []

    def counted(t):
        calls.append(1)
        values.append(np.size(t))
        return elu(t)

    def count(n):
        calls.clear()
        values.clear()
        x = np.random.default_rng(3).standard_normal((n, 3)) / math.sqrt(3.0)
        x[: n // 2] = x[n // 2 : n // 2 * 2] + 1e-5  # many near pairs
        rn.ck(rn.Network([activations.custom(counted, breakpoints=(0.0,))], tau0=1.0), x)
        return len(calls), sum(values)

    small, large = count(50), count(150)
    # Panels of the interpolation are made where rows have norms, a few more for more rows; not nine times as many.
    assert large[0] <= 400
    assert large[1] <= 2 * small[1]
    assert large[1] <= 2_000_000
