"""Steps with an activation's first moments: against mpmath integrals, known Gauss rules and exact kernels."""

import math

import numpy as np
import pytest
from mpmath import mp, mpf
from numpy.polynomial import hermite_e
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk.equivalents import operator_norm
from rmtntk.matching.gauss import gauss_rule, hermite_moments

FUNCTIONS = {
    "relu": (lambda t: max(t, mpf(0)), (0,)),
    "abs": (abs, (0,)),
    "tanh": (mp.tanh, ()),
    "gelu": (lambda t: t * mp.ncdf(t), ()),
    "sigmoid": (lambda t: 1 / (1 + mp.exp(-t)), ()),
}


def moment_of(function, breaks, tau, j):
    """E[σ⁽ʲ⁾(τξ)] = E[He_j(ξ) σ(τξ)]/τʲ."""
    polynomial = [round(c) for c in hermite_e.herme2poly([0] * j + [1])]
    edges = sorted({mpf(-14), mpf(14), *(mpf(x) for x in range(-12, 13, 2)), *(mpf(b) / tau for b in breaks)})

    def integrand(u):
        return sum(c * u**k for k, c in enumerate(polynomial)) * function(tau * u) * mp.npdf(u)

    total = mp.quad(integrand, edges)
    return float(total / mpf(tau) ** j)


def step_function(act):
    thresholds, levels = [mpf(float(x)) for x in act.thresholds], [mpf(float(x)) for x in act.levels]
    return lambda t: levels[sum(1 for s in thresholds if t >= s)]


@pytest.mark.parametrize("tau", [0.5, 2.0])
@pytest.mark.parametrize("name, levels", [*((name, 3) for name in FUNCTIONS), ("relu", 4), ("tanh", 5)])
def test_moments_agree_by_independent_quadrature(name, levels, tau):
    found = rn.match(rn.Network([name]), tau, method="moments", levels=levels)
    assert found.feasible
    assert found.method == "moments"
    assert found.objective == "both"
    act = found.activations[0]
    assert len(act.levels) == levels
    function, breaks = FUNCTIONS[name]
    with mp.workdps(25):
        wanted = [moment_of(function, breaks, tau, j) * tau**j for j in range(1, 2 * levels - 1)]
        got = [moment_of(step_function(act), tuple(act.thresholds), tau, j) * tau**j for j in range(1, 2 * levels - 1)]
    # moments from quadrature in float64 to some 1e-15 of √E[σ²], times √j! ≤ 200; nodes to their residual of 1e-12
    assert_allclose(got, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["relu", "abs", "tanh", "gelu", "softplus", "elu", "identity"])
def test_certificate(name):
    net = rn.Network([name])
    found = rn.match(net, 1.0, method="moments")
    dense, ours = rn.coefficients(net, 1.0), rn.coefficients(net.with_activations(found.activations), 1.0)
    assert found.residual <= 1e-12
    assert_allclose(ours.alpha[-1, :3], dense.alpha[-1, :3], rtol=1e-12, atol=1e-25)
    assert_allclose(ours.beta[-1], dense.beta[-1], rtol=1e-12, atol=1e-25)
    unit = dense.alpha[-1, 0] or dense.alpha[-1, 2]
    # equal α1, so the ridges differ by the variances
    assert_allclose(found.excess, (ours.tau[-1] ** 2 - dense.tau[-1] ** 2) / unit, rtol=1e-11)
    assert found.excess >= found.excess_bound
    assert found.gap == found.excess - max(found.excess_bound, 0.0)
    assert "the first 4 moments E[σ⁽ʲ⁾] of every layer agree" in found.message
    tight = rn.match(net, 1.0, spacing="free")
    assert found.excess >= tight.excess - 1e-9  # tight has the least


@pytest.mark.parametrize("n", range(1, 8))
def test_rule_of_the_identity_is_gauss_hermite(n):
    r, w = gauss_rule(hermite_moments(rn.activations.identity, 1.0, 2 * n))
    nodes, weights = hermite_e.hermegauss(n)
    assert_allclose(r, nodes, atol=1e-12)  # nodes of O(3), condition of the rule some 100
    assert_allclose(w, weights / math.sqrt(2.0 * math.pi), atol=1e-13)


def test_rule_recovers_random_nodes():
    rng = np.random.default_rng(5)
    for n in (2, 3, 5):
        r, w = np.sort(np.linspace(-2.0, 2.0, n) + rng.uniform(-0.2, 0.2, n)), rng.uniform(0.3, 1.0, n)
        he = [hermite_e.hermeval(r, [0] * j + [1]) / math.sqrt(math.factorial(j)) for j in range(2 * n)]
        got = gauss_rule(np.array(he) @ w)
        assert_allclose(got[0], r, atol=1e-10)  # condition of five nodes: about 1e4
        assert_allclose(got[1], w, atol=1e-10)


def test_no_rule_without_real_nodes():
    assert gauss_rule(np.zeros(4)) is None
    assert gauss_rule(np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])) is None  # an odd functional has no cubic
    assert gauss_rule(np.array([1.0, 0.0, -2.0 / math.sqrt(2.0), 0.0])) is None  # ∫ u² dμ = −1: nodes ± i


def test_weight_scale_moves_thresholds():
    one = rn.match(rn.Network(["tanh"]), 1.3, method="moments").activations[0]
    other = rn.match(rn.Network(["tanh"], weight_std=1.3), 1.0, method="moments").activations[0]
    assert_allclose(other.thresholds, one.thresholds, rtol=1e-12)  # the same argument, other roundings
    assert_allclose(other.levels, one.levels, rtol=1e-12)


@pytest.mark.parametrize("name", ["sign", "heaviside"])
def test_a_step_is_its_own_match(name):
    found = rn.match(rn.Network([name]), 1.0, method="moments")
    assert len(found.activations[0].levels) == 2
    assert_allclose(found.excess, 0.0, atol=1e-14)


def two_classes(p):
    means = np.zeros((2, p))
    means[0, 0], means[1, 1] = 2.0, -2.0
    return rn.GaussianMixture(means, np.array([1.0, 1.0 + 4.0 / np.sqrt(p)]))


def difference(names, method, n):
    mixture = two_classes(n)
    net = rn.Network(names, tau0=mixture.tau0)
    found = rn.match(net, method=method)
    x, _ = mixture.sample(n, 0)
    dense, ours = rn.ck(net, x), rn.ck(net.with_activations(found.activations), x)
    for kernel in (dense, ours):
        np.fill_diagonal(kernel, 0.0)
    return operator_norm(ours - dense) / operator_norm(dense)


def test_the_slow_part_of_the_difference_is_gone():
    # measured over four draws: slopes −1.08 against −.53 ("tight"), 25 times smaller at n = 1600
    few, many = (difference(["relu"], "moments", n) for n in (200, 800))
    assert math.log(many / few) / math.log(4.0) < -0.75
    assert many < 0.1 * difference(["relu"], "tight", 800)


def test_odd_networks_layer_by_layer():
    net = rn.Network(["tanh", "tanh"])
    found = rn.match(net, 1.0, method="moments")
    assert found.feasible
    assert_allclose(rn.coefficients(net.with_activations(found.activations), 1.0).alpha[-1, :3],
                    rn.coefficients(net, 1.0).alpha[-1, :3], rtol=1e-12, atol=1e-25)  # fmt: skip
    assert difference(["tanh", "tanh"], "moments", 800) < 0.5 * difference(["tanh", "tanh"], "tight", 800)


def test_what_cannot_be_matched_says_so():
    deep = rn.match(rn.Network(["relu", "relu"]), 1.0, method="moments")
    assert not deep.feasible
    assert deep.activations == ()
    assert "g does not" in deep.message
    sine = rn.match(rn.Network(["sin"]), 1.0, method="moments")
    assert not sine.feasible
    assert "no positive nodes" in sine.message
    five = rn.match(rn.Network(["sin"]), 1.0, method="moments", levels=5)
    assert five.feasible
    cubic = rn.match(rn.Network(["abs"]), 1.0, method="moments", levels=4)
    assert "layer 1 (abs)" in cubic.message


def test_options():
    net = rn.Network(["relu"])
    with pytest.raises(ValueError, match='`levels` must be 3 to 8 with method="moments"'):
        rn.match(net, 1.0, method="moments", levels=2)
    with pytest.raises(ValueError, match='`family` must be None with method="moments"'):
        rn.match(net, 1.0, method="moments", family="{-1,0,1}")
    with pytest.raises(ValueError, match='are for method="data" only'):
        rn.match(net, 1.0, method="moments", widths=(3,))
    equal, free = (rn.match(net, 1.0, method="moments", spacing=s) for s in ("equal", "free"))
    assert (equal.activations[0].levels == free.activations[0].levels).all()


@pytest.mark.parametrize("name", ["tanh", "erf"])
@pytest.mark.parametrize(("levels", "tolerance"), [(4, 2e-5), (6, 1e-8), (8, 1e-11)])
def test_three_layers_have_the_same_kernel_at_equal_norms(name, levels, tolerance):
    # but for one factor: 2 (levels - 1) derivatives agree in every layer, the next one is of order rho^(2 levels - 2);
    # a layer at the wrong scale of the one before is off by 3e-4
    dense = rn.Network([name] * 3, tau0=1.0)
    step = rn.Network(rn.match(dense, method="moments", levels=levels).activations, tau0=1.0)
    ratios = []
    for rho in (0.1, 0.4):
        rows = np.array([[1.0, 0.0], [rho, np.sqrt(1.0 - rho**2)]])
        ratios.append(rn.ck(dense, rows)[0, 1] / rn.ck(step, rows)[0, 1])
    assert abs(ratios[1] / ratios[0] - 1.0) < tolerance
