"""float32 data with float32 results: ReLU-like networks in float32 throughout, the others after a float32 product."""

import numpy as np
import pytest

import rmtntk as rn
from rmtntk import activations, tiles

EPS = float(np.finfo(np.float32).eps)


def bound(depth):
    """The documented accuracy: five eps for the float32 product and the rounded data, one more for every layer."""
    return (5 + depth) * EPS


HOMOGENEOUS = {
    "relu": "relu",
    "leaky": activations.leaky_relu(0.1),
    "abs": "abs",
    "identity": "identity",
    "ab_relu": activations.ab_relu(-0.7, 1.3),
}
OPTIONS = [
    {},
    {"centered": False},
    {"centered": False, "bias_std": 0.3, "weight_std": 1.4},
    {"input_scaling": "fan_in"},
    {"bias_std": 0.2},
]


def rows(n=90, p=200, seed=0):
    """Rows of about unit norm among which some are equal, opposite, parallel, nearly equal, zero or long."""
    x = np.random.default_rng(seed).standard_normal((n, p)) / np.sqrt(p)
    x[3] = x[5]
    x[7] = 1.5 * x[9]
    x[11] = -x[13]
    x[20] = x[21] + 1e-4 * x[22]
    x[23] = x[24] + 0.03 * x[25]
    x[26] = -x[27] + 1e-3 * x[28]
    x[30] = 0.0
    x[31] *= 20.0
    x[32] *= 0.05
    return x.astype(np.float32)


def error(single, double, first, second):
    """Largest error in units of sqrt(K_ii K_jj), with K_ii no smaller than a thousandth of the largest."""
    unit = np.maximum(np.sqrt(np.outer(first, second)), 1e-3 * max(first.max(), second.max()))
    return float((np.abs(single.astype(np.float64) - double) / unit).max())


def compare(net, x, y):
    wide = [None if part is None else part.astype(np.float64) for part in (x, y)]
    columns = x if y is None else y
    found = rn.ck_ntk(net, x, y, dtype=np.float32, diagonal=0.0)
    want = rn.ck_ntk(net, *wide, diagonal=0.0)
    for single, double, k in zip(found, want, (0, 1), strict=True):
        assert single.dtype == np.float32
        first, second = (rn.kernel_diagonals(net, part)[k] for part in (x, columns))
        first, second = (np.where(np.isfinite(part), part, 0.0) for part in (first, second))
        if not first.any():  # a step's NTK has no diagonal
            continue
        assert error(single, double, first, second) < bound(net.depth)
    return found, want


@pytest.mark.parametrize("depth", [1, 3, 10])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_homogeneous_networks(name, options, depth):
    net = rn.Network([HOMOGENEOUS[name]] * depth, tau0=1.0, **options)
    x = rows()
    assert tiles._all_single(x, np.empty(0, np.float32), None, *_plans(net, x))
    (ck, ntk), _ = compare(net, x, None)
    for kernel, diagonal in zip((ck, ntk), rn.kernel_diagonals(net, x), strict=True):
        assert (kernel == kernel.T).all()
        # norms are float64 sums of the float32 data: the diagonal is rounded once
        assert (np.diag(kernel) == diagonal.astype(np.float32)).all()
    compare(net, x, rows(seed=1)[::-1].copy())


def _plans(net, x):
    from rmtntk.dual import plan
    from rmtntk.network import layer_scales

    both = plan(net, layer_scales(net, 1.0), np.linalg.norm(x.astype(np.float64), axis=1))
    return both, both


@pytest.mark.parametrize("name", ["erf", "gelu", "sin", "tanh", "polynomial"])
def test_other_networks_take_the_float32_product_only(name):
    act = activations.polynomial([0.5, 1.0, -0.3]) if name == "polynomial" else activations.get(name)
    x = rows()
    x[31] /= 20.0  # keep the series short
    compare(rn.Network([act] * 2, tau0=1.0), x, None)
    compare(rn.Network([act] * 2, tau0=1.0), x, x[40:60].copy())


def test_steps():
    # Correlations enter a step's covariance through an angle with a root at ρ = ±1: pairs near there are left out.
    x = rows()[40:]
    ck, ck_want = (rn.ck(rn.Network(["sign"] * 2), x.astype(kind), dtype=kind) for kind in (np.float32, np.float64))
    assert np.abs(ck - ck_want).max() < 2e-6


def test_results_do_not_depend_on_the_number_of_threads():
    x, net = rows(600), rn.Network(["relu"] * 3)
    try:
        rn.set_num_threads(1)
        one = rn.ck_ntk(net, x, dtype=np.float32)
        rn.set_num_threads(3)
        three = rn.ck_ntk(net, x, dtype=np.float32)
    finally:
        rn.set_num_threads(None)
    for a, b in zip(one, three, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("factor", [1e-15, 1e15])
def test_norms_that_float32_would_square_out_of_its_range(factor):
    x = (rows(40, 30).astype(np.float64) * factor).astype(np.float32)
    net = rn.Network(["relu"] * 2)
    assert not tiles._all_single(x, None, None, *_plans(net, x))
    found = rn.ck(net, x, dtype=np.float32)
    want = rn.ck(net, x.astype(np.float64))
    assert np.abs(found - want).max() < bound(2) * np.diag(want).max()


def test_overflow_of_the_result_is_an_error():
    x = np.full((3, 4), 1e18, dtype=np.float32)
    assert np.isfinite(rn.ck(rn.Network(["relu"]), x, dtype=np.float32)).all()
    with pytest.raises(ValueError, match="float32"):
        rn.ck(rn.Network(["relu"], weight_std=30.0), x, dtype=np.float32)
    with pytest.raises(ValueError, match=r"`x` has a row .* overflows float32"):
        rn.ck(rn.Network(["relu"]), 100 * x, dtype=np.float32)


def test_float32_data_with_float64_results_are_exact():
    x, net = rows(40, 30), rn.Network(["relu", "erf"])
    for a, b in zip(rn.ck_ntk(net, x), rn.ck_ntk(net, x.astype(np.float64)), strict=True):
        assert a.tobytes() == b.tobytes()
