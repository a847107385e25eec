"""Steps against integrals of them, matches against the coefficients and kernels they promise."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf
from numpy.testing import assert_allclose
from scipy.sparse import linalg as sparse_linalg

import rmtntk as rn
from rmtntk._jit import steps
from rmtntk.matching.bounds import LLOYD_MAX_THRESHOLD
from rmtntk.matching.problem import SHAPES, evaluate

METHODS = ("tight", "layerwise", "paper")  # those that need no data
EPS = float(np.finfo(np.float64).eps)

# (activations, tau0, weight_std) of the networks that must be matched.
NETWORKS = {
    "relu": ("relu",),
    "relu2": ("relu",) * 2,
    "relu3": ("relu",) * 3,
    "relu4": ("relu",) * 4,
    "tanh3": ("tanh",) * 3,
    "abs": ("abs",),
    "abs2": ("abs",) * 2,
    "gelu2": ("gelu",) * 2,
    "sigmoid2": ("sigmoid",) * 2,
    "elu2": ("elu",) * 2,
    "relu+tanh": ("relu", "tanh"),
    "tanh+relu": ("tanh", "relu"),
    "abs+relu": ("abs", "relu"),
    "erf2": ("erf",) * 2,
    "sin": ("sin",),
    "cos": ("cos",),
    "gaussian": ("gaussian",),
}
# At other scales these take seconds each: ReLU networks are covariant (tested on two layers), so they add little.
EXPENSIVE = ("relu3", "relu4", "tanh+relu")


CASES = [
    pytest.param(
        name,
        tau0,
        weight_std,
        id=f"{name}-{tau0}-{weight_std}",
        marks=[pytest.mark.slow] if name in EXPENSIVE and (tau0, weight_std) != (1.0, 1.0) else [],
    )
    for tau0, weight_std in ((1.0, 1.0), (0.3, 1.0), (3.0, 1.0), (1.0, 1.3))
    for name in NETWORKS
]


def network(name, weight_std=1.0):
    return rn.Network(NETWORKS[name], weight_std=weight_std)


def matched(name, tau0=1.0, weight_std=1.0, method="tight", objective="ck"):
    return _matched(name, tau0, weight_std, method, objective)


@cache
def _matched(name, tau0, weight_std, method, objective):
    return rn.match(network(name, weight_std), tau0, method=method, objective=objective)


def in_kernel_units(row, tau0):
    """The three coefficients as they enter a kernel's entries: α1 τ0², α2 τ0⁴, α3 τ0⁴."""
    return row[..., :3] * np.array([tau0**2, tau0**4, tau0**4])


def assert_same_coefficients(got, wanted, tau0):
    got, wanted = in_kernel_units(got, tau0), in_kernel_units(wanted, tau0)
    # rtol: what `match` promises for a feasible answer is 1e-10, what it reaches is rounding; atol: coefficients that
    # vanish by symmetry are left at the square of the quadrature's 1e-15.
    assert_allclose(got, wanted, rtol=1e-12, atol=1e-20 * np.abs(wanted).max())


# --- Sums of one step


def sums_by_quadrature(r, shape):
    """S1, S2, Sg, V by integrals of ξ q, (ξ² − 1) q, ½(ξ² − 1)(q − q̄)², (q − q̄)² against the density."""
    with mp.workdps(30):
        edges = [-mp.inf, *map(mpf, r), mp.inf]
        if r[0] > 0 or r[1] < 0:
            edges.append(mpf(0))
        edges = sorted(edges)

        def level(a):
            return mpf(shape[sum(1 for s in r if a >= mpf(s))])

        def mean_of(weight, value):
            total = mpf(0)
            for a, b in pairwise(edges):
                total += value(level(a)) * mp.quad(lambda x: weight(x) * mp.npdf(x), [a, b])
            return total

        mean = mean_of(lambda x: 1, lambda q: q)
        return tuple(
            float(value)
            for value in (
                mean_of(lambda x: x, lambda q: q),
                mean_of(lambda x: x * x - 1, lambda q: q),
                mean_of(lambda x: x * x - 1, lambda q: (q - mean) ** 2) / 2,
                mean_of(lambda x: 1, lambda q: (q - mean) ** 2),
            )
        )


THRESHOLDS = [(-0.612, 0.612), (0.535, 1.461), (-1.3, -0.2), (0.0, 0.01), (-4.0, 3.5), (4.5, 6.0), (-6.5, -5.0)]


@pytest.mark.parametrize("shape", [*SHAPES, (0.3, -1.0, 2.0)])
@pytest.mark.parametrize("r", THRESHOLDS)
def test_step_sums_match_mpmath(r, shape):
    got = np.array(evaluate(np.array(r), shape))
    wanted = np.array(sums_by_quadrature(r, shape))
    # rtol: closed forms, each tail from erfc where it does not cancel. atol: where the terms of S1, S2, Sg cancel,
    # a few eps of the larger of them remain.
    size = max(math.exp(-0.5 * x * x) * (1.0 + abs(x)) for x in r)
    assert_allclose(got[:3], wanted[:3], rtol=1e-13, atol=8 * EPS * size)
    assert_allclose(got[3], wanted[3], rtol=1e-13)  # V is a sum of positive terms


@given(
    r1=st.floats(-4.0, 4.0),
    width=st.floats(0.01, 4.0),
    tau=st.floats(0.05, 20.0),
    amplitude=st.floats(0.1, 10.0),
    shape=st.sampled_from(SHAPES),
)
def test_step_sums_are_the_moments_of_the_step(r1, width, tau, amplitude, shape):
    r = np.array([r1, r1 + width])
    s = evaluate(r, shape)
    act = rn.activations.step(tau * r, [amplitude * q for q in shape])
    m = rn.moments(act, tau)
    got = [m.d1 * tau, m.d2 * tau**2, m.half_d2_squared * tau**2, m.variance]
    wanted = [amplitude * s.s1, amplitude * s.s2, amplitude**2 * s.sg, amplitude**2 * s.v]
    # Two closed forms of the same numbers, O(1) in these units: a few dozen roundings. The quotient s/τ is off by
    # eps r, which r φ(r) turns into eps r³ φ(r) < eps.
    unit = np.array([amplitude, amplitude, amplitude**2, amplitude**2])
    assert_allclose(got / unit, wanted / unit, rtol=0, atol=64 * EPS)


@given(r1=st.floats(-4.0, 4.0), width=st.floats(0.01, 4.0), shape=st.sampled_from(SHAPES))
def test_step_sums_laws(r1, width, shape):
    r = np.array([r1, r1 + width])
    s, mirrored = evaluate(r, shape), evaluate(-r[::-1], shape[::-1])
    # σ(−t) turns S1 round and leaves the others; the same operations in another order.
    assert_allclose(
        [mirrored.s1, mirrored.s2, mirrored.sg, mirrored.v], [-s.s1, s.s2, s.sg, s.v], rtol=1e-12, atol=8 * EPS
    )
    assert s.v >= (s.s1**2 + s.s2**2 / 2) * (1 - 64 * EPS)  # Bessel; equality is impossible for a step


def test_step_sums_of_a_table_are_those_of_its_rows():
    r = np.sort(np.random.default_rng(0).uniform(-3, 3, (5, 4, 2)), axis=-1)
    table = evaluate(r, SHAPES[0])
    assert np.shape(table.s1) == (5, 4)
    for i, j in np.ndindex(5, 4):
        one = evaluate(r[i, j], SHAPES[0])
        assert [field[i, j] for field in table] == list(one)  # the same loop: exact
        assert all(isinstance(field, float) for field in one)


def test_compiled_sums_are_those_of_python():
    for r1, r2 in THRESHOLDS:
        got, plain = steps.step_sums(r1, r2, -1.0, 0.0, 1.0), steps.step_sums.py_func(r1, r2, -1.0, 0.0, 1.0)
        # LLVM may contract and reorder what Python does not, and its exp and erfc may differ by an ulp or two
        assert_allclose(got, plain, rtol=32 * EPS, atol=8 * EPS)


@pytest.mark.parametrize("weight_std", [1.0, 1.7])
@pytest.mark.parametrize("seed", range(5))
def test_scale_free_recursion_is_that_of_the_built_network(seed, weight_std):
    rng = np.random.default_rng(seed)
    depth, tau0 = int(rng.integers(1, 5)), float(rng.uniform(0.2, 4.0))
    r = np.sort(rng.uniform(-1.5, 1.5, (depth, 2)), axis=1) + np.array([-0.05, 0.05])
    shapes = np.array([SHAPES[k] for k in rng.integers(0, 2, depth)])
    acts, tau = [], tau0
    for thresholds, shape in zip(r, shapes, strict=True):
        lam, amplitude = weight_std * tau, float(rng.uniform(0.2, 5.0))
        acts.append(rn.activations.step(lam * thresholds, amplitude * shape))
        tau = amplitude * math.sqrt(evaluate(thresholds, tuple(shape)).v)
    table = rn.coefficients(rn.Network(acts, weight_std=weight_std), tau0)
    got = steps.network_rows(r, shapes, np.full(depth, 3), tau0)
    # β carries w² for the readout; all else in units of the last variance is free of w
    wanted = np.concatenate([table.alpha[-1], table.beta[-1] / weight_std**2]) / table.tau[-1] ** 2
    # a few roundings a layer; atol where random thresholds nearly cancel in S1 or S2
    assert_allclose(got, wanted, rtol=1e-11, atol=1e-14 * np.abs(wanted).max())


def test_lloyd_max_threshold_minimises_the_variance_of_an_odd_step():
    # Stationarity of the quantiser: t Φ(−t) = φ(t)/2; a root to the last digit but one.
    t = LLOYD_MAX_THRESHOLD
    with mp.workdps(30):
        root = mp.findroot(lambda x: x * mp.ncdf(-x) - mp.npdf(x) / 2, 0.6)
    assert abs(t - float(root)) <= 2 * EPS
    cost = [evaluate(np.array([-x, x]), SHAPES[0]) for x in (t - 1e-3, t, t + 1e-3)]
    assert np.argmin([s.v / s.s1**2 for s in cost]) == 1


# --- Exact matches


@pytest.mark.parametrize("method", ["layerwise", "tight"])
@pytest.mark.parametrize("name, tau0, weight_std", CASES)
def test_coefficients_agree(name, tau0, weight_std, method):
    found = matched(name, tau0, weight_std, method)
    assert found.feasible
    assert found.residual <= 1e-12  # rounding, where `feasible` asks for 1e-10
    assert found.method == method
    assert found.tau0 == tau0
    assert len(found.activations) == len(NETWORKS[name])
    assert all(act.is_step and len(act.thresholds) == 2 and len(act.levels) == 3 for act in found.activations)
    net = network(name, weight_std)
    wanted = rn.coefficients(net, tau0)
    got = rn.coefficients(net.with_activations(found.activations), tau0)
    assert_same_coefficients(got.alpha[-1], wanted.alpha[-1], tau0)
    # the last layer is scaled so that α1 agrees: one square root and one product
    assert_allclose(got.alpha[-1, 0], wanted.alpha[-1, 0], rtol=1e-14, atol=1e-24)
    if method == "layerwise":
        assert found.objective == "both"
        assert_same_coefficients(got.alpha, wanted.alpha, tau0)
        assert_same_coefficients(got.beta, wanted.beta, tau0)


@pytest.mark.parametrize("method", ["layerwise", "tight"])
@pytest.mark.parametrize("name, tau0, weight_std", CASES)
def test_excess_is_what_it_says_and_above_its_bound(name, tau0, weight_std, method):
    found = matched(name, tau0, weight_std, method)
    net = network(name, weight_std)
    wanted = rn.coefficients(net, tau0)
    got = rn.coefficients(net.with_activations(found.activations), tau0)
    c, c_step = (t.tau[-1] ** 2 - tau0**2 * t.alpha[-1, 0] for t in (wanted, got))
    unit = wanted.alpha[-1, 0] if wanted.alpha[-1, 0] > 1e-20 else max(wanted.alpha[-1, 1:3])
    # c and c' are differences of numbers of the size of τ²
    size = (got.tau[-1] ** 2 + wanted.tau[-1] ** 2) / unit
    assert_allclose(found.excess, (c_step - c) / unit, rtol=1e-12, atol=1e-12 * size)
    assert found.excess >= found.excess_bound - 1e-12 * size  # odd networks reach the bound
    # both are made of the coefficients, for which Bessel's inequality is elementary
    assert got.tau[-1] ** 2 >= (tau0**2 * got.alpha[-1, 0] + tau0**4 * got.alpha[-1, 2]) * (1 - 1e-12)


@pytest.mark.parametrize("name, tau0, weight_std", CASES)
def test_tight_is_never_worse_than_layerwise(name, tau0, weight_std):
    tight, layerwise = matched(name, tau0, weight_std, "tight"), matched(name, tau0, weight_std, "layerwise")
    # where both find the same thresholds their excess differs by rounding
    assert abs(tight.excess) <= abs(layerwise.excess) * (1.0 + 1e-10) + 1e-10


@pytest.mark.parametrize("name", ["relu2", "relu3", "relu4", "gelu2", "elu2"])
def test_tight_is_better_on_deep_one_sided_networks(name):
    # not a rounding's worth: what the network-level problem is for
    assert matched(name).excess < 0.8 * matched(name, method="layerwise").excess


@pytest.mark.parametrize("method", ["layerwise", "tight"])
@pytest.mark.parametrize("name", ["relu2", "abs+relu", "sigmoid2"])
def test_two_calls_agree_to_the_last_bit(name, method):
    again = rn.match(network(name), 1.0, method=method)
    first = matched(name, method=method)
    assert [act.parameters for act in again.activations] == [act.parameters for act in first.activations]
    assert (again.residual, again.excess, again.excess_bound) == (first.residual, first.excess, first.excess_bound)
    assert again.message == first.message


def test_paper_depends_on_its_seed_alone():
    calls = [rn.match(network("abs"), 1.0, method="paper", n_starts=2, seed=seed) for seed in (3, 3, 4)]
    first, same, other = ([act.parameters for act in call.activations] for call in calls)
    assert first == same
    assert first != other


def test_result_carries_its_coefficients():
    found = matched("elu2", 3.0)
    net = network("elu2")
    assert_allclose(found.target.alpha, rn.coefficients(net, 3.0).alpha, rtol=0, atol=0)
    assert found.coefficients is not None
    got = rn.coefficients(net.with_activations(found.activations), 3.0)
    assert_allclose(found.coefficients.alpha, got.alpha, rtol=0, atol=0)


def test_tau0_of_the_network_is_the_default():
    net = network("abs").with_tau0(0.7)
    assert rn.match(net).tau0 == 0.7
    assert rn.match(net, 0.9).tau0 == 0.9
    same = rn.match(network("abs"), 0.7)
    assert [act.parameters for act in rn.match(net).activations] == [act.parameters for act in same.activations]


# --- Known figures (docs/matching.md)


def thresholds_in_units(found, weight_std=1.0):
    assert found.coefficients is not None
    return [
        act.thresholds / (weight_std * tau)
        for act, tau in zip(found.activations, found.coefficients.tau[:-1], strict=True)
    ]


@pytest.mark.parametrize("method", ["layerwise", "tight"])
@pytest.mark.parametrize("tau0", [0.3, 1.0, 3.0])
def test_one_relu_layer(tau0, method):
    found = matched("relu", tau0, method=method)
    r = np.sort(np.abs(thresholds_in_units(found)[0]))  # up to reflection
    assert_allclose(r, [0.535, 1.461], atol=5e-4)  # the figures have three decimals
    assert_allclose(np.abs(found.activations[0].levels).max(), 1.035 * tau0, rtol=5e-4)
    # the published {−1,0,1} optimum without g, v = .404 against the dense .341
    assert found.coefficients is not None
    assert_allclose(found.coefficients.tau[-1] ** 2, 0.404 * tau0**2, atol=5e-4 * tau0**2)


@pytest.mark.parametrize(
    "name, dense, ternary",
    [("relu", 1.363, 1.615), ("relu2", 1.859, 3.242), ("relu3", 2.534, 4.628), ("relu4", 3.455, 6.739)],
)
def test_least_ridge_of_relu_networks(name, dense, ternary):
    found = matched(name)
    assert found.coefficients is not None
    for table, figure in ((found.target, dense), (found.coefficients, ternary)):
        # 2e-3: the figures have four digits and come from another minimiser on a flat minimum
        assert_allclose(table.tau[-1] ** 2 / table.alpha[-1, 0], figure, rtol=2e-3)


@pytest.mark.parametrize("act, dense, ternary", [("tanh", 1.132, 2.325), ("gelu", 1.998, 5.424)])
def test_least_ridge_of_four_smooth_layers(act, dense, ternary):
    found = rn.match(rn.Network([act] * 4), 1.0)
    assert found.coefficients is not None
    assert found.feasible
    for table, figure in ((found.target, dense), (found.coefficients, ternary)):
        # as for ReLU
        assert_allclose(table.tau[-1] ** 2 / table.alpha[-1, 0], figure, rtol=2e-3)
    if act == "tanh":  # odd: every layer is the Lloyd–Max quantiser; its minimum is flat, hence 1e-5
        for r in thresholds_in_units(found):
            assert_allclose(r, [-LLOYD_MAX_THRESHOLD, LLOYD_MAX_THRESHOLD], rtol=1e-5)


def test_odd_networks_reach_the_bound():
    for name in ("tanh3", "erf2", "sin", "sigmoid2"):
        found = matched(name)
        assert_allclose(found.excess, found.excess_bound, rtol=1e-9)  # quadratic in the threshold's error


@pytest.mark.parametrize("factor", [0.01, 8.0])
@pytest.mark.parametrize("method", ["layerwise", "tight"])
def test_relu_thresholds_scale_with_the_data(factor, method):
    one, other = matched("relu2", method=method), rn.match(network("relu2"), factor, method=method)
    for a, b in zip(thresholds_in_units(one), thresholds_in_units(other), strict=True):
        assert_allclose(a, b, rtol=1e-5)  # of a minimum flat to second order: the square root of its 1e-13
    assert_allclose(other.activations[0].thresholds, factor * one.activations[0].thresholds, rtol=1e-5)  # as above
    assert_allclose(other.excess, factor**2 * one.excess, rtol=1e-9)  # second order in the above
    assert_allclose(other.excess_bound, factor**2 * one.excess_bound, rtol=1e-12)  # closed form


def test_weight_scale_moves_relu_thresholds_alone():
    one, other = matched("relu"), matched("relu", 1.0, 1.3)
    # the argument is 1.3 times wider: the same thresholds in its units, to the flatness of the minimum
    assert_allclose(other.activations[0].thresholds, 1.3 * one.activations[0].thresholds, rtol=1e-5)
    assert_allclose(other.excess, one.excess, rtol=1e-9)  # second order in the above


# --- The kernels themselves


def two_classes(p):
    """Means, traces and shapes of the covariances differ, as the theory allows."""
    means = np.zeros((2, p))
    means[0, :4], means[1, 4:8] = 1.0, -1.0
    spread = np.ones((2, p))
    spread[1, : p // 2] = 1.6
    spread[1, p // 2 :] = 0.4 + 3.0 / math.sqrt(p)
    return rn.GaussianMixture(means, spread)


def operator_norm(matrix):
    start = np.ones(len(matrix))
    return abs(sparse_linalg.eigsh(matrix, k=1, v0=start, tol=1e-6, return_eigenvectors=False)[0])


@pytest.mark.parametrize("name", ["relu", "relu2"])
def test_kernels_approach_each_other_off_the_diagonal(name):
    sizes, differences = (200, 400, 800, 1600), []
    for n in sizes:
        mixture = two_classes(n)
        net = network(name).with_tau0(mixture.tau0)
        found = rn.match(net)
        step_net = net.with_activations(found.activations)
        total, diagonal = 0.0, []
        for draw in range(2):
            x, _ = mixture.sample(n, 10 * n + draw)
            dense = rn.ck(net, x)
            gap = rn.ck(step_net, x) - dense
            diagonal.append(np.diagonal(gap).mean())
            np.fill_diagonal(gap, 0.0)
            np.fill_diagonal(dense, 0.0)
            total += operator_norm(gap) / operator_norm(dense)
        differences.append(total / 2)
    slope = np.polyfit(np.log(sizes), np.log(differences), 1)[0]
    assert slope <= -0.4, differences  # the rate is n^-1/2; kernels that do not match have slope 0
    left = np.mean(diagonal) / found.target.alpha[-1, 0]
    assert_allclose(left, found.excess, rtol=0.02)  # norms vary by p^-1/2, their mean by (n p)^-1/2, squares by 1/p


# --- The kernel of gradients


@pytest.mark.parametrize("name", ["relu2", "gelu2", "elu2", "tanh3", "relu+tanh"])
def test_ntk_objective_matches_beta(name):
    found = matched(name, objective="ntk")
    assert found.feasible
    assert found.method == "tight"
    assert found.objective in ("ntk", "both")  # both, where layer by layer is the best there is
    assert found.residual <= 1e-12  # rounding
    net = network(name)
    wanted = rn.coefficients(net, 1.0).beta[-1]
    got = rn.coefficients(net.with_activations(found.activations), 1.0).beta[-1]
    assert_same_coefficients(got, wanted, 1.0)  # β1 = (L + 1) α1 for every network, so that it agrees too
    layerwise = matched(name, method="layerwise", objective="ntk")
    assert layerwise.feasible
    assert abs(found.excess) <= abs(layerwise.excess) + 1e-10


def test_tight_ck_of_relu_leaves_beta_apart():
    # what the objective is for: two layers that agree in α after the last only
    found = matched("relu2")
    assert found.coefficients is not None
    assert abs(found.coefficients.beta[-1, 1] / found.target.beta[-1, 1] - 1.0) > 0.01


# --- What cannot be matched


def test_paper_fails_on_three_relu_layers_and_says_so():
    found = rn.match(network("relu3"), 1.0, method="paper", n_starts=20)
    assert not found.feasible
    assert found.residual > 0.05  # no exact solution exists (docs/matching.md)
    assert len(found.activations) == 3
    assert "the published algorithm does not match" in found.message
    assert "20 random starts" in found.message
    net = network("relu3")
    row = rn.coefficients(net.with_activations(found.activations), 1.0).alpha[-1]
    goal = rn.coefficients(net, 1.0).alpha[-1]
    deviation = np.abs((row / row[0])[1:3] / (goal / goal[0])[1:3] - 1.0).max()
    assert_allclose(found.residual, deviation, rtol=1e-9)  # the same numbers by another order of operations


def test_paper_matches_a_sign():
    # three levels hold two: the one network whose τ they reach exactly
    found = rn.match(rn.Network(["sign"]), 1.0, method="paper", n_starts=20)
    assert found.feasible
    assert len(found.activations[0].thresholds) == 4
    assert found.coefficients is not None
    # its least squares stop at 1e-7
    assert_allclose(found.coefficients.alpha[-1, 0], found.target.alpha[-1, 0], rtol=1e-6)
    assert_allclose(found.coefficients.tau, found.target.tau, rtol=1e-6)


@pytest.mark.parametrize("name", ["identity", "tanh", "cos"])
def test_paper_owns_up_to_a_missed_scale(name):
    # One odd or one even layer has the right ratios whatever its scale; but no step reaches τ and α1 of the identity.
    found = rn.match(rn.Network([name]), 1.0, method="paper", n_starts=10)
    assert found.coefficients is not None
    wanted, got = found.target.alpha[-1, :3], found.coefficients.alpha[-1, :3]
    missed = np.abs(got - wanted).max() / wanted.max()
    assert missed > 0.01
    assert not found.feasible
    assert "does not match" in found.message


@pytest.mark.parametrize("method", ["tight", "layerwise"])
def test_feasible_means_a_residual_below_its_promise(method):
    found = [matched(name, method=method) for name in NETWORKS]
    assert [m.feasible for m in found] == [m.residual <= 1e-10 for m in found]


HE3 = rn.activations.polynomial([0.0, -3.0, 0.0, 1.0])  # third Hermite polynomial: E[σ'] = E[σ''] = 0 at τ = 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activations", [[HE3], [HE3, "relu"]], ids=["he3", "he3+relu"])
def test_silent_layer_is_infeasible_with_a_reason(activations, method):
    found = rn.match(rn.Network(activations), 1.0, method=method, n_starts=3)
    assert not found.feasible
    assert found.activations == ()
    assert found.coefficients is None
    assert found.residual == math.inf
    assert "layer 1" in found.message
    assert "nothing to match" in found.message
    assert found.method == method
    assert not math.isnan(found.excess_bound)


@pytest.mark.parametrize("method", ["tight", "layerwise"])
def test_unreachable_coefficients_are_reported(method):
    # one threshold has S2/S1 = r and so no freedom for g; three of them meet two equations with an inequality besides
    found = rn.match(rn.Network(["relu"] * 3), 1.0, method=method, family="{0,1}")
    assert not found.feasible
    assert found.activations == ()
    assert found.residual == math.inf
    assert found.gap == math.inf
    assert found.method == method
    assert ("layer 1" if method == "layerwise" else "α3/α1 cannot be reached") in found.message


@pytest.mark.parametrize("method", ["tight", "layerwise"])
@pytest.mark.parametrize("family", ["{-1,0,1}", "{0,1}"])
def test_even_networks_need_an_even_family(method, family):
    found = rn.match(rn.Network(["relu", "abs"]), 1.0, method=method, family=family)
    assert not found.feasible
    assert ("in layer " if method == "layerwise" else "α1 = 0 cannot be reached: layer 2 (abs)") in found.message


def test_a_tail_that_hardly_fires_is_an_exact_match_too():
    # sin(4t) passes almost nothing (h1 = 4 e^-8) while its square keeps g of order e^-32: a step at 0 and one far out
    wild = rn.activations.custom(lambda t: np.sin(4.0 * t))
    found = rn.match(rn.Network([wild, "relu"]), 1.0)
    assert found.feasible
    assert found.residual <= 1e-12
    assert found.gap >= 0.0


@pytest.mark.parametrize("activations", [["sign", "relu"], ["relu", "sign", "relu"]], ids=["sign+relu", "relu3sign"])
def test_tight_matches_what_layerwise_can(activations):
    # sign has g = 0 without being kept odd by a {−1,0,1} step: α2 = 0 does not hold by symmetry
    net = rn.Network(activations)
    layerwise, tight = rn.match(net, 1.0, method="layerwise"), rn.match(net, 1.0)
    assert layerwise.feasible
    assert tight.feasible
    assert abs(tight.excess) <= abs(layerwise.excess) + 1e-10


@pytest.mark.parametrize("tau0", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(
    "activations",
    [["abs"], ["relu", "abs"], [rn.activations.polynomial([0.0, 0.0, 1.0])], ["abs", "relu", "abs"]],
    ids=["abs", "relu+abs", "square", "abs+relu+abs"],
)
def test_networks_without_linear_part_keep_the_scale_of_their_kernel(activations, tau0):
    net = rn.Network(activations)
    found = rn.match(net, tau0)
    assert found.feasible
    wanted = rn.coefficients(net, tau0)
    got = rn.coefficients(net.with_activations(found.activations), tau0)
    assert wanted.alpha[-1, 0] == 0.0
    assert_same_coefficients(got.alpha[-1], wanted.alpha[-1], tau0)
    assert found.excess >= found.excess_bound - 1e-9 * abs(found.excess_bound)  # rounding of differences


# --- Arguments


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"levels": 1}, ValueError, "`levels` must be"),
        ({"levels": 9}, ValueError, "`levels` must be"),
        ({"spacing": "odd"}, ValueError, "`spacing` must be one of 'equal', 'free'"),
        ({"family": "{-1;1}"}, ValueError, "`family` must be one of '{-1,0,1}'"),
        ({"family": 3}, TypeError, "`family` must be a string"),
        ({"family": (1.0, 1.0)}, ValueError, "`family` must change at every threshold"),
        ({"family": "{0}"}, ValueError, "`family` must have 2 to 8 levels"),
        ({"family": "{0,1}", "levels": 3}, ValueError, "`levels` must be 2"),
        ({"family": "{0,1}", "spacing": "free"}, ValueError, '`family` must be None with spacing="free"'),
        ({"method": "paper", "levels": 4}, ValueError, "must be left alone"),
        ({"levels": 3.0}, TypeError, "`levels` must be an integer"),
        (
            {"method": "magic"},
            ValueError,
            "`method` must be one of 'tight', .*'paper', 'moments', got 'magic'",
        ),
        ({"method": None}, ValueError, "`method` must be one of"),
        ({"objective": "all"}, ValueError, "`objective` must be one of 'ck', 'ntk', 'both'"),
        ({"method": "paper", "n_starts": 0}, ValueError, "`n_starts` must be at least 1"),
        ({"method": "paper", "seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"method": "paper", "seed": 0.5}, TypeError, "`seed` must be an integer"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        rn.match(network("relu"), 1.0, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tau0", [-1.0, 0.0, math.nan, math.inf])
def test_bad_scale(tau0, method):
    with pytest.raises(ValueError, match=r"`tau0` must be a finite number in \(0, inf\)"):
        rn.match(network("relu"), tau0, method=method)


def test_missing_scale():
    with pytest.raises(ValueError, match="`tau0` must be given"):
        rn.match(network("relu"))
    with pytest.raises(TypeError, match="`tau0` must be a real number"):
        rn.match(network("relu"), "1")


@pytest.mark.parametrize("method", METHODS)
def test_networks_outside_the_theory(method):
    for net in (rn.Network(["relu"], centered=False), rn.Network(["relu"], bias_std=0.1)):
        with pytest.raises(ValueError, match="`net` must have centered=True and bias_std=0"):
            rn.match(net, 1.0, method=method)
    with pytest.raises(TypeError, match=r"`net` must be an rmtntk\.Network"):
        rn.match("relu", 1.0, method=method)
