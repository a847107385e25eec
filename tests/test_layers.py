import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import rmtntk as rn
from rmtntk import activations
from rmtntk.layers import Dense

X = np.random.default_rng(4).standard_normal((6, 5))


def recursion(x, dense, kinds):
    """(NNGP, NTK) of Dense, σ, …, Dense with scales of their own, layer by layer in NumPy; (a, b) are slopes."""
    gram = x @ x.T / x.shape[1]
    theta = np.zeros_like(gram)
    for k, (w, b) in enumerate(dense):
        cov = w**2 * gram + b**2
        theta = cov + w**2 * theta
        if k == len(kinds):
            return cov, theta
        q = np.diag(cov)
        if kinds[k] == "erf":
            bottom = np.outer(1.0 + 2.0 * q, 1.0 + 2.0 * q)
            gram = 2.0 / np.pi * np.arcsin(2.0 * cov / np.sqrt(bottom))
            slope = 4.0 / np.pi / np.sqrt(bottom - 4.0 * cov**2)
        elif kinds[k] == "cube":
            outer = np.outer(q, q)
            gram = 6.0 * cov**3 + 9.0 * cov * outer
            slope = 9.0 * (2.0 * cov**2 + outer)
        else:
            a, c = kinds[k]
            scale = np.sqrt(np.outer(q, q))
            np.fill_diagonal(scale, q)
            angle = np.arccos(np.clip(cov / scale, -1.0, 1.0))
            same = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2.0 * np.pi)
            other = (np.sin(angle) - angle * np.cos(angle)) / (2.0 * np.pi)
            gram = scale * ((a**2 + c**2) * same - 2.0 * a * c * other)
            slope = ((a**2 + c**2) * (np.pi - angle) + 2.0 * a * c * angle) / (2.0 * np.pi)
        theta = theta * slope
    raise AssertionError("one Dense more than activations")


def test_it_is_the_uncentred_network_over_root_p():
    net = rn.Network.from_layers(
        [Dense(512, 1.5, 0.1), "relu", Dense(512, 1.5, 0.1), activations.erf, Dense(1, 1.5, 0.1)]
    )
    assert net == rn.Network(["relu", "erf"], weight_std=1.5, bias_std=0.1, centered=False, input_scaling="fan_in")
    assert net.depth == 2


def test_no_bias_and_a_bias_of_zero_are_one_thing():
    assert rn.Network.from_layers([Dense(1), "relu", Dense(1, 1.0, 0.0)]) == rn.Network.from_layers(
        (Dense(3, b_std=0.0), "relu", Dense(2, b_std=None))
    )


def test_widths_do_not_matter():
    assert rn.Network.from_layers([Dense(7), "tanh", Dense(1)]) == rn.Network.from_layers([Dense(99), "tanh", Dense(4)])


def test_two_dense_in_a_row_are_a_linear_layer():
    net = rn.Network.from_layers([Dense(1, 1.2, 0.3), Dense(1, 1.2, 0.3), "relu", Dense(1, 1.2, 0.3)])
    assert [act.name for act in net.activations] == ["identity", "relu"]
    want = recursion(X, [(1.2, 0.3)] * 3, [(1.0, 1.0), (0.0, 1.0)])
    assert_allclose(rn.nngp(net, X), want[0], rtol=1e-13)  # a few roundings a layer
    assert_allclose(rn.ntk(net, X), want[1], rtol=1e-7)  # NumPy's arccos near 1


SCALED = {
    "relu": ("relu", (0.0, 1.0)),
    "leaky": (activations.leaky_relu(0.1), (0.1, 1.0)),
    "abs": ("abs", (-1.0, 1.0)),
    "ab": (activations.ab_relu(0.7, -0.4), (0.7, -0.4)),
    "identity": ("identity", (1.0, 1.0)),
    "erf": ("erf", "erf"),
    "cube": (activations.monomial(3), "cube"),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("bias", [None, 0.4])
def test_weight_scales_may_differ_where_the_activation_takes_the_ratio(name, bias):
    act, kind = SCALED[name]
    scales = [1.3, 0.8, 0.5, 1.1]
    net = rn.Network.from_layers(
        [Dense(1, 1.3, bias), act, Dense(1, 0.8, bias), "relu", Dense(1, 0.5, bias), "erf", Dense(1, 1.1, bias)]
    )
    assert net.weight_std == 1.3
    want = recursion(X, [(w, bias or 0.0) for w in scales], [kind, (0.0, 1.0), "erf"])
    for kernel, reference in zip((rn.nngp(net, X), rn.ntk(net, X)), want, strict=True):
        off = ~np.eye(len(X), dtype=bool)
        unit = np.sqrt(np.outer(np.diag(reference), np.diag(reference)))
        assert (np.abs(kernel - reference) / unit)[off].max() < 1e-13  # roundings of a few layers
        assert_allclose(np.diag(kernel), np.diag(reference), rtol=1e-7)  # NumPy's arccos near 1


@pytest.mark.parametrize(
    "act",
    [
        activations.erf_with(1.2, 0.8, 0.3),
        activations.sin_with(1.2, 0.8, 0.3),
        activations.cos,
        activations.rbf(0.5),
        activations.exp(0.3, 1.2),
        activations.exp_square(-0.4, 1.2),
        activations.polynomial([0.2, 1.0, -0.3]),
        activations.hermite(3),
        activations.step([-0.4, 0.9], [-1.0, 0.0, 1.0]),
        activations.sign,
        activations.heaviside,
        activations.ab_relu(0.3, -1.0),
    ],
    ids=str,
)
def test_what_an_activation_takes_is_a_factor(act):
    (scaled,) = rn.Network.from_layers([Dense(1, 2.0), act, Dense(1, 3.0)]).activations
    t = np.linspace(-2.0, 2.0, 41)
    assert_allclose(scaled(t), 1.5 * act(t), rtol=1e-13, atol=1e-14)  # two roundings; sines near their zeros
    assert_array_equal(scaled.breakpoints, act.breakpoints)


@pytest.mark.parametrize("name", ["gelu", "tanh", "silu"])
def test_other_activations_refuse_and_name_the_layer(name):
    with pytest.raises(
        ValueError, match=rf"`layers\[2\]` must have the W_std of the first Dense, 1.5, got 1: .*{name}"
    ):
        rn.Network.from_layers([Dense(1, 1.5), name, Dense(1), "relu", Dense(1)])
    # the rest may differ: the ratio goes into the ReLU
    net = rn.Network.from_layers([Dense(1, 1.5), name, Dense(1, 1.5), "relu", Dense(1)])
    assert str(net.activations[1]) == "ab_relu(a=0, b=0.666667)"


def test_bias_scales_must_agree():
    with pytest.raises(ValueError, match=r"`layers\[2\]` must have the b_std of the first Dense, 0.1, got 0.2"):
        rn.Network.from_layers([Dense(1, 1.0, 0.1), "relu", Dense(1, 1.0, 0.2), "relu", Dense(1, 1.0, 0.1)])
    with pytest.raises(ValueError, match=r"`layers\[2\]` .* the readout's only adds its square"):
        rn.Network.from_layers([Dense(1, 1.0, 0.1), "relu", Dense(1)])


def test_the_hint_for_the_readout_is_true():
    net = rn.Network.from_layers([Dense(1, 1.3, 0.4), "relu", Dense(1, 1.3, 0.4)])
    want = recursion(X, [(1.3, 0.4), (1.3, 0.0)], [(0.0, 1.0)])
    assert_allclose(rn.nngp(net, X) - 0.4**2, want[0], rtol=1e-12)  # a difference of the digits of the sum
    assert_allclose((rn.ntk(net, X) - 0.4**2)[0, 1:], want[1][0, 1:], rtol=1e-12)


@pytest.mark.parametrize(
    "layers, kind, message",
    [
        ("relu", TypeError, "`layers` must be a list"),
        (Dense(1), TypeError, "`layers` must be a list"),
        (None, TypeError, "`layers` must be a list"),
        ([], ValueError, "two Dense or more"),
        ([Dense(1)], ValueError, "two Dense or more"),
        (["relu"], ValueError, r"`layers\[0\]` \(relu\) must come after a Dense"),
        (["relu", Dense(1)], ValueError, r"`layers\[0\]`"),
        ([Dense(1), "relu", "erf", Dense(1)], ValueError, r"`layers\[2\]` \(erf\) must come after a Dense"),
        ([Dense(1), "relu", Dense(1), "erf"], ValueError, "must end with a Dense, the readout, got erf"),
        ([Dense(1), "relu"], ValueError, "two Dense or more"),
        ([Dense(1), "rleu", Dense(1)], ValueError, "rleu"),
        ([Dense(1), np.tanh, Dense(1)], TypeError, r"`layers\[1\]` must be a Dense"),
        ([(1.5, 0.1), "relu", (1.5, 0.1)], TypeError, r"`layers\[0\]` must be a Dense"),
    ],
)
def test_bad_lists(layers, kind, message):
    with pytest.raises(kind, match=message):
        rn.Network.from_layers(layers)


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ((1.5, 0.1), TypeError, "the order is Dense"),
        (("relu",), TypeError, "out_dim"),
        ((0,), ValueError, "out_dim"),
        ((1, 0.0), ValueError, "W_std"),
        ((1, -1.0), ValueError, "W_std"),
        ((1, math.nan), ValueError, "W_std"),
        ((1, None), TypeError, "W_std"),
        ((1, 1.0, -0.1), ValueError, "b_std"),
        ((1, 1.0, "x"), TypeError, "b_std"),
        ((1, 1.0, 0.1, "standard"), ValueError, "weights every layer by its width"),
    ],
)
def test_bad_dense(arguments, kind, message):
    with pytest.raises(kind, match=message):
        Dense(*arguments)
