"""Zeros of the target that no ratio can ask for, and an implicit ridge never below the dense network's."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk.matching.floor import one_piece_less
from rmtntk.matching.problem import evaluate, target_of
from rmtntk.matching.search import EVEN, GENERAL, ODD
from rmtntk.matching.tight import family_of, plans

MIXED = list(itertools.product(("sign", "tanh", "erf", "relu", "abs"), repeat=2))


def ridge_scale(found):
    """τ_L² in units of α1, of whose rounding the excess is a difference."""
    return max(1.0, float(found.target.tau[-1]) ** 2 / found.unit)


def assert_exact(net, tau0, found):
    wanted, got = (rn.coefficients(n, tau0).alpha[-1, :3] for n in (net, net.with_activations(found.activations)))
    units = np.array([tau0**2, tau0**4, tau0**4])
    # rounding of a few sums a layer; what vanishes by symmetry is the square of 1e-16
    assert_allclose(got * units, wanted * units, rtol=1e-12, atol=1e-25)


def check(names, levels, spacing):
    net = rn.Network(names)
    found = rn.match(net, 1.0, levels=levels, spacing=spacing)
    if levels == 2 and ("abs" in names or names == ("relu", "relu")):
        assert not found.feasible  # one threshold is neither even nor has it the freedom for two equations
        return
    assert found.feasible, found.message
    assert found.residual <= 1e-12
    assert found.excess >= -1e-12 * ridge_scale(found)
    assert found.gap >= -1e-12 * ridge_scale(found)
    assert all(len(act.levels) <= levels for act in found.activations)
    assert_exact(net, 1.0, found)


@pytest.mark.parametrize("levels, spacing", [(4, "equal"), (7, "equal"), (3, "free")])
@pytest.mark.parametrize("names", MIXED, ids="+".join)
def test_mixed_networks(names, levels, spacing):
    check(names, levels, spacing)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["equal", "free"])
@pytest.mark.parametrize("levels", range(2, 9))
@pytest.mark.parametrize("names", MIXED, ids="+".join)
def test_mixed_networks_of_all_levels(names, levels, spacing):
    check(names, levels, spacing)


@pytest.mark.parametrize(
    "names", [("tanh", "sign", "relu"), ("sign", "sign", "relu"), ("relu", "sign", "abs"), ("abs", "sign", "relu")]
)
@pytest.mark.parametrize("objective", ["ck", "ntk"])
def test_zeros_of_three_layers(names, objective):
    net = rn.Network(names)
    found = rn.match(net, 1.0, levels=4, objective=objective)
    assert found.feasible, found.message
    assert found.residual <= 1e-12
    if objective == "ck":
        assert_exact(net, 1.0, found)


def test_plans_keep_what_no_equation_asks_for():
    family = family_of(4, "equal", None)

    def of(*names):
        return [(kinds.tolist(), sign) for kinds, sign in plans(target_of(rn.Network(names), 1.0), family)]

    assert of("sign", "relu") == [([ODD, GENERAL], 0)]
    assert of("tanh", "sign", "relu") == [([ODD, ODD, GENERAL], 1)]
    assert of("relu", "sign", "abs")[0] == ([GENERAL, ODD, EVEN], 1)  # abs forgets what relu leaves in α2
    assert of("abs", "sign", "relu") == [([EVEN, ODD, GENERAL], 1)]
    assert of("tanh", "relu") == [([GENERAL, GENERAL], None), ([ODD, GENERAL], None)]  # α2 > 0: free to be general
    assert of("relu", "relu") == [([GENERAL, GENERAL], None)]
    assert of("tanh", "erf") == [([ODD, ODD], None)]


def test_a_family_that_is_never_odd_says_what_is_missing():
    found = rn.match(rn.Network(["sign", "relu"]), 1.0, family=(0.0, 1.0, 3.0, 4.5))
    assert not found.feasible
    assert "α2 = 0 is not" in found.message


# --- Never below the dense network's ridge


@pytest.mark.parametrize("method", ["tight", "layerwise"])
@pytest.mark.parametrize("levels", [3, 4, 8])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("name", ["tanh", "sin", "sign", "heaviside", "identity"])
def test_odd_networks_have_no_less_of_a_ridge(name, depth, levels, method):
    for tau0, spacing in ((1.0, "equal"), (2.0, "free")):
        net = rn.Network([name] * depth)
        found = rn.match(net, tau0, method=method, levels=levels, spacing=spacing)
        assert found.feasible
        assert found.residual <= 1e-12
        assert found.excess >= -1e-12 * ridge_scale(found)
        # an odd number of pieces or fewer: `one_piece_less`
        assert all(2 <= len(act.levels) <= levels for act in found.activations)


@pytest.mark.parametrize("method", ["tight", "layerwise"])
@pytest.mark.parametrize("names", [("abs",), ("abs",) * 2, ("cos",) * 2, ("relu",), ("relu", "tanh"), ("gelu",) * 2])
@pytest.mark.parametrize("levels", [3, 5, 8])
def test_other_networks_have_no_less_of_a_ridge(names, levels, method):
    if method == "layerwise" and levels > 3 and len(names) > 1 and names[0] in ("relu", "gelu"):
        pytest.skip("seconds each, and their excess is far above 0")
    found = rn.match(rn.Network(names), 1.0, method=method, levels=levels)
    assert found.feasible
    assert found.excess >= -1e-12 * ridge_scale(found)


@pytest.mark.parametrize("names", [("tanh",) * 2, ("sign",) * 3, ("sign", "relu"), ("abs",) * 2])
def test_without_excess_the_diagonals_are_equal(names):
    # exact kernels, which know nothing of coefficients
    net = rn.Network(names, tau0=1.0)
    found = rn.match(net, levels=8)
    row = np.eye(1, 7)
    ours, dense = (float(rn.ck(n, row)[0, 0]) for n in (net.with_activations(found.activations), net))
    assert_allclose((ours - dense) / found.unit, found.excess, atol=1e-12)
    if names != ("sign", "relu"):
        assert_allclose(ours, dense, rtol=1e-11)


def test_where_the_levels_allow_no_other_the_excess_is_below_zero():
    # two levels have u = 2/π wherever their amplitude is; sin(2ξ) has u = .146
    found = rn.match(rn.Network(["sin"]), 2.0, levels=2)
    assert found.feasible
    assert found.excess < -20.0
    assert_allclose(found.gap, 0.0, atol=1e-9)
    assert "smaller" in found.message


def test_an_even_number_of_equal_jumps_is_at_least_a_sign():
    # what `one_piece_less` is for
    for k in (4, 6, 8):
        shape = tuple(j - 0.5 * (k - 1) for j in range(k))
        fewer = one_piece_less(shape)
        gaps = np.random.default_rng(k).uniform(0.02, 2.0, (2000, (k - 2) // 2)).cumsum(axis=1)
        r = np.concatenate([-gaps[:, ::-1], np.zeros((2000, 1)), gaps], axis=1)
        s = evaluate(r, shape)
        assert (s.s1**2 / s.v).min() >= 2.0 / np.pi - 1e-12
        assert len(fewer) == k - 1
        outer = 3.0 + 0.1 * np.arange((k - 2) // 2)
        far = evaluate(np.concatenate([-outer[::-1], outer]), fewer)
        assert far.s1**2 / far.v < 0.3
    assert one_piece_less((-1.0, 0.0, 1.0)) is None
    assert one_piece_less((-0.5, 0.5)) is None


def test_data_keeps_the_floor():
    generator = np.random.default_rng(3)
    x = generator.standard_normal((80, 40)) / np.sqrt(40.0)
    net = rn.Network(["tanh", "tanh"])
    found = rn.match(net, method="data", levels=8, x=x, widths=(300, 300))
    assert found.feasible
    assert found.excess >= -1e-12 * ridge_scale(found)
