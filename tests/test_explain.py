import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import activations

NETS = [
    rn.Network(["relu", "relu", "tanh"]),
    rn.Network(["gelu", "erf"], bias_std=0.3, weight_std=1.1),
    rn.Network(["softplus"], centered=False),
    rn.Network(["abs", "sin"]),
]


def pair(net, kind, tau0, rho):
    """Kernel of two samples of norm tau0 and correlation rho."""
    x = np.array([[tau0, 0.0]])
    y = tau0 * np.stack([rho, np.sqrt(1.0 - rho**2)], axis=1)
    return getattr(rn, kind)(net.with_tau0(tau0), x, y)[0]


@pytest.mark.parametrize("net", NETS, ids=str)
def test_shares_are_the_kernels_power_series(net):
    # the constant, linear and quadratic parts of the exact kernel in ρ, by an interpolating polynomial near 0
    tau0 = 0.8
    found = rn.explain(net, tau0)
    rho = 0.3 * np.cos(np.pi * (np.arange(16) + 0.5) / 16)
    for kind, table in (("ck", found.shares_ck), ("ntk", found.shares_ntk)):
        series = np.polynomial.Polynomial.fit(rho, pair(net, kind, tau0, rho), 15).convert().coef
        total = pair(net, kind, tau0, np.array([1.0]))[0]
        assert_allclose(table[-1, :3], series[:3] / total, rtol=0.0, atol=1e-8)
        assert_allclose(table.sum(axis=1), 1.0, rtol=1e-14)
        assert table.min() >= -1e-13  # Schoenberg


def test_norm_gain_is_the_slope_of_the_diagonal():
    net, tau0, h = rn.Network(["gelu", "tanh"]).with_tau0(0.8), 0.8, 1e-4
    below, above = (rn.kernel_diagonals(net, [[tau0 * math.exp(s * h)]]).ck[0] for s in (-0.5, 0.5))
    want = (math.log(above) - math.log(below)) / (2.0 * h)  # log ‖x‖² moves by 2 h
    assert rn.explain(net, tau0).norm_gain[-1] == pytest.approx(want, rel=1e-6)  # of a central difference


def test_sensitivity_of_erf_by_hand():
    # one layer of erf: h1² = (4/π)/(1 + 2τ²), so d log h1²/d log τ = −4τ²/(1 + 2τ²)
    tau0 = 0.7
    found = rn.explain(rn.Network(["erf"]), tau0)
    a1 = 4.0 / math.pi / (1.0 + 2.0 * tau0**2)
    assert found.alpha_sensitivity[1, 0] == pytest.approx(-a1 * 4.0 * tau0**2 / (1.0 + 2.0 * tau0**2), rel=1e-8)
    assert found.beta_sensitivity[1, 0] == pytest.approx(2.0 * found.alpha_sensitivity[1, 0], rel=1e-8)


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu", "softplus", "silu"])
def test_bounds_hold_against_perturbed_moments(name):
    # a callable with a loose quadrature bound against the named activation: the difference is within the bounds
    act = activations.get(name)
    closed = rn.explain(rn.Network([act, act, act]), 0.9)
    other = activations.custom(act, breakpoints=(0.0,) if name == "relu" else ())
    found = rn.explain(rn.Network([other] * 3), 0.9)
    for one, two, first, second in (
        (closed.coefficients.alpha, found.coefficients.alpha, closed.alpha_error, found.alpha_error),
        (closed.coefficients.beta, found.coefficients.beta, closed.beta_error, found.beta_error),
    ):
        assert (np.abs(one - two) <= first + second).all()
        assert (second <= 1e-10 * np.abs(two).max()).all()


def test_no_bounds_with_a_constant_part():
    found = rn.explain(NETS[1], 1.0)
    assert found.alpha_error is None
    assert found.beta_error is None
    assert "const" in str(found)
    assert "1.0e-09" in str(found)


def test_infinite_kappa_is_all_rest():
    found = rn.explain(rn.Network(["sign", "relu"]), 1.0)
    assert_allclose(found.shares_ntk[1:, 3], 1.0)
    assert found.shares_ck[1, 1] == pytest.approx(2.0 / math.pi, rel=1e-12)
    assert "c = inf" in str(found)


def test_the_table_has_a_line_a_layer():
    lines = str(rn.explain(NETS[0], 1.0)).splitlines()
    assert len(lines) == 1 + 4 + 3
    assert "73.3%" in lines[2]
    assert "const" not in lines[0]


@pytest.mark.parametrize(
    "net, tau0, error, name", [("relu", 1.0, TypeError, "net"), (NETS[0], -1.0, ValueError, "tau0")]
)
def test_bad_input(net, tau0, error, name):
    with pytest.raises(error, match=f"`{name}`"):
        rn.explain(net, tau0)
