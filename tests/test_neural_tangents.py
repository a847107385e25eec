"""Kernels against a committed table of neural-tangents', made by validation/compare_neural_tangents.py."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import rmtntk as rn
from rmtntk import activations
from rmtntk.layers import Dense

TABLE = json.loads((Path(__file__).parent / "data" / "neural_tangents.json").read_text(encoding="utf-8"))
FLAWS = TABLE["flaws"]
X, Y = np.array(TABLE["x"]), np.array(TABLE["y"])
OFF = ~np.eye(len(X), dtype=bool)
TOLERANCE = 1e-10  # of √(K_ii K_jj): the agreement promised; closed forms meet 1e-13, series ask for 1e-10

OURS = {
    "Identity": lambda: activations.identity,
    "Relu": lambda: activations.relu,
    "LeakyRelu": lambda alpha: activations.leaky_relu(alpha),
    "Abs": lambda: activations.abs,
    "ABRelu": lambda a, b: activations.ab_relu(a, b),
    "Sign": lambda: activations.sign,
    "Erf": lambda a=1.0, b=1.0, c=0.0: activations.erf_with(a, b, c),
    "Sigmoid_like": lambda: activations.sigmoid_like,
    "Gelu": lambda: activations.gelu,
    "Sin": lambda a=1.0, b=1.0, c=0.0: activations.sin_with(a, b, c),
    "Cos": lambda a=1.0, b=1.0, c=0.0: activations.cos_with(a, b, c),
    "Rbf": lambda gamma: activations.rbf(gamma),
    "Exp": lambda a, b: activations.exp(b, a),
    "Gaussian": lambda a=1.0, b=-1.0: activations.exp_square(b, a),
    "Gabor": lambda: activations.gabor,
    "ExpNormalized": lambda gamma, shift: activations.exp_normalized(gamma, shift),
    "Hermite": lambda degree: activations.hermite(degree),
    "Monomial": lambda degree: activations.monomial(degree),
    "Polynomial": lambda coef: activations.polynomial(coef),
    "RectifiedMonomial": lambda degree: activations.rectified_monomial(degree),
}


def label(row):
    parts = [name + "".join(f",{v}" for v in parameters.values()) for name, parameters in row["activations"]]
    return "-".join([*dict.fromkeys(parts), str(len(parts)), str(row["dense"][0][0])])


def network(row):
    dense = [Dense(1, *scales) for scales in row["dense"]]
    layers = [dense[0]]
    for (name, parameters), last in zip(row["activations"], dense[1:], strict=True):
        layers += [OURS[name](**parameters), last]
    return rn.Network.from_layers(layers)


def stored(row, key):
    return np.array(row[key], dtype=float)  # None, for what is not finite, becomes NaN


def jumps(row):
    return any(name == "Sign" or parameters == {"degree": 0} for name, parameters in row["activations"])


def assert_close(got, want, unit, what):
    """Within TOLERANCE of the diagonal; NaN in `want` is what nobody knows or what is infinite."""
    known = np.isfinite(want)
    error = np.where(known, np.abs(got - np.where(known, want, 0.0)), 0.0) / unit
    worst = np.unravel_index(np.argmax(error), error.shape)
    assert error[worst] <= TOLERANCE, f"{what} at {worst}: {got[worst]!r} for {want[worst]!r}, {error[worst]:.1e} of it"


@pytest.mark.parametrize("row", TABLE["rows"], ids=label)
def test_agrees_with_neural_tangents(row):
    net = network(row)
    fill = math.inf if jumps(row) else None
    kernels = {
        "nngp": rn.nngp(net, X),
        "ntk": rn.ntk(net, X, diagonal=fill),
        "nngp_cross": rn.nngp(net, X, Y),
        "ntk_cross": rn.ntk(net, X, Y, diagonal=fill),
    }
    for key, kernel in kernels.items():
        # The NTK of a jump is infinite on the diagonal: its unit is the NNGP.
        source = rn.nngp if jumps(row) or key.startswith("nngp") else rn.ntk
        left, right = (np.sqrt(np.diag(source(net, data))) for data in (X, Y if key.endswith("cross") else X))
        unit = np.outer(left, right)
        if jumps(row) and key.startswith("ntk"):
            unit = np.maximum(unit, np.abs(np.where(np.isfinite(kernel), kernel, 0.0)))  # grows like 1/√(1 − ρ²)
        exact = "exact_" + key
        best = exact if exact in row else key
        assert_close(kernel, stored(row, best), unit, best)
        if best == exact and agree(row, key):
            theirs = stored(row, key)
            if not key.endswith("cross"):
                np.fill_diagonal(theirs, np.nan)  # their acos near 1: see below
            assert_close(kernel, theirs, unit, key)


def agree(row, key):
    """Whether theirs mean the same kernel off the diagonal."""
    names = {name for name, _ in row["activations"]}
    if "Hermite" in names:
        return False  # right on the unit sphere only
    return key.startswith("nngp") or not jumps(row)  # a jump's derivative term is dropped


def test_the_table_holds_every_activation_of_theirs():
    assert TABLE["script"] == "validation/compare_neural_tangents.py"
    assert TABLE["versions"]["neural-tangents"] == "0.6.5"
    assert {name for row in TABLE["rows"] for name, _ in row["activations"]} == set(OURS)


# Where theirs are wrong, by the numbers of docs/from-neural-tangents.md. The reference is mpmath's.


def test_their_sign_has_no_derivative_term():
    flaw = FLAWS["sign_ntk"]
    net = rn.Network.from_layers([Dense(1), "sign", Dense(1)])
    assert flaw["ntk_minus_nngp"] == 0.0
    ours, theirs = rn.ntk(net, X, diagonal="nan"), np.array(flaw["theirs"])
    assert_allclose(theirs, rn.nngp(net, X), rtol=0.0, atol=1e-7)  # their own diagonal is 9e-9 off
    assert_allclose(ours[OFF], np.array(flaw["exact"], dtype=float)[OFF], rtol=1e-12)  # a dozen roundings over 1 − ρ²
    assert (theirs / ours)[OFF].min() == pytest.approx(flaw["ratio"], rel=1e-9)
    assert flaw["ratio"] < 0.25


@pytest.mark.parametrize("name", ["Relu", "LeakyRelu", "Abs", "ABRelu"])
def test_their_ntk_diagonal_loses_half_the_digits(name):
    worst = 0.0
    for row in TABLE["rows"]:
        if {entry for entry, _ in row["activations"]} != {name}:
            continue
        exact = np.diag(stored(row, "exact_ntk"))
        worst = max(worst, np.abs(np.diag(stored(row, "ntk")) / exact - 1.0).max())
        assert_allclose(np.diag(rn.ntk(network(row), X)), exact, rtol=1e-14)  # a closed form: a few roundings
    assert 1e-9 < worst < 1e-7  # the root of eps = 1.5e-8, an angle, over 2π and so


def test_their_deep_sign_leaves_one_on_the_diagonal():
    rows = {(r["activation"], r["depth"], r["dtype"]): r for r in FLAWS["diagonal"]["rows"]}
    assert 1e-9 < rows["Sign", 1, "float64"]["nngp"] < 1e-7
    assert rows["Sign", 4, "float64"]["nngp"] > 0.05
    assert rows["Sign", 16, "float64"]["nngp"] > 0.9
    assert 1e-4 < rows["Relu", 1, "float32"]["ntk"] < rows["Relu", 16, "float32"]["ntk"] < 1e-2
    net = rn.Network.from_layers([Dense(1, math.sqrt(2.0)), *["sign", Dense(1, math.sqrt(2.0))] * 16])
    x = np.random.default_rng(0).standard_normal((64, 500))
    assert_allclose(np.diag(rn.nngp(net, x)), 2.0, rtol=1e-15)  # w² rounds once


@pytest.mark.parametrize("row", FLAWS["hermite"]["rows"], ids=str)
def test_their_hermite_is_right_on_the_unit_sphere_only(row):
    # what theirs compute: K^d and d K^{d−1}, whatever the norms
    d = row["degree"]
    x = row["rms"] * X * np.sqrt(X.shape[1] / (X**2).sum(axis=1, keepdims=True))
    net = rn.Network.from_layers([Dense(1), activations.hermite(d), Dense(1)])
    gram = x @ x.T / X.shape[1]
    nngp, ntk = rn.ck_ntk(net, x)
    for key, ours, theirs in (("nngp", nngp, gram**d), ("ntk", ntk, gram**d + d * gram ** (d - 1) * gram)):
        deviation = (np.abs(theirs - ours) / np.sqrt(np.outer(np.diag(ours), np.diag(ours)))).max()
        assert deviation == pytest.approx(row[key], rel=1e-6, abs=1e-13)  # the same number; rounding on the sphere
        assert (deviation < 1e-13) == (row["rms"] == 1.0)


def test_their_gaussian_is_finite_where_the_expectation_is_not():
    flaw = FLAWS["gaussian"]
    assert 0 < flaw["finite_entries"] < flaw["entries"]
    x = 4.0 * X * np.sqrt(X.shape[1] / (X**2).sum(axis=1, keepdims=True))  # variance 16 > 1/(4 · 0.2)
    net = rn.Network.from_layers([Dense(1), activations.exp_square(0.2), Dense(1)])
    with pytest.raises(ValueError, match="exp_square"):
        rn.nngp(net, x)


def test_their_rectified_monomials_have_nan_on_the_diagonal():
    for row in FLAWS["rectified"]["rows"]:
        assert not row["nngp_finite"].startswith("64 ")
        assert row["nngp_off_diagonal"] < 1e-14
        assert (row["ntk_off_diagonal"] < 1e-14) == (row["degree"] > 0)
    for degree in (1, 2, 3):
        net = rn.Network.from_layers([Dense(1), activations.rectified_monomial(degree), Dense(1)])
        ck, ntk = rn.ck_ntk(net, X)
        assert np.isfinite(ck).all()
        assert np.isfinite(ntk).all()


def test_a_zero_row_is_a_row_like_any_other():
    bad = [name for name, fine in FLAWS["zero_row"].items() if fine is False]
    assert sorted(bad) == ["Polynomial", "RectifiedMonomial"]
    zero = np.concatenate([X[:1], np.zeros((1, X.shape[1]))])
    act = activations.polynomial([0.3, 1.0, -0.2, 0.1])
    ck, ntk = rn.ck_ntk(rn.Network.from_layers([Dense(1), act, Dense(1)]), zero)
    assert_array_equal(np.isfinite(ck), True)
    assert ck[1, 1] == pytest.approx(0.09, rel=1e-14)  # σ(0)²
    assert ntk[1, 1] == pytest.approx(0.09, rel=1e-14)
