"""The smallest eigenvalue of a kernel, and what is said of it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import activations

EPS = {np.float64: float(np.finfo(np.float64).eps), np.float32: float(np.finfo(np.float32).eps)}


def data(n, p, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p)) / np.sqrt(p)


@pytest.mark.parametrize("n", [2, 3, 4, 20, 257])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_ends_against_numpy(n, seed):
    a = data(n, n + 5, seed) * np.sqrt(n + 5)
    matrix = a @ a.T
    values, vectors = np.linalg.eigh(matrix)
    margin = rn.psd_margin(matrix)
    bound = n * EPS[np.float64] * values[-1]  # backward error of a reduction by reflections, on both sides
    assert abs(margin.smallest - values[0]) <= 2 * bound
    assert abs(margin.largest - values[-1]) <= 2 * bound
    assert_allclose(margin.rounding, bound, rtol=1e-12)
    assert margin.positive == (margin.smallest > margin.rounding)
    if n <= 4:  # names hold nine tenths of the eigenvector
        order = np.argsort(-np.abs(vectors[:, 0]))
        count = int(np.argmax(np.cumsum(vectors[order, 0] ** 2) >= 0.9)) + 1
        assert margin.rows == tuple(sorted(order[:count]))


def test_indefinite_matrices_and_scales():
    matrix = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    for scale in (1e-300, 1e-20, 1.0, 1e20, 1e300):
        margin = rn.psd_margin(scale * matrix)
        assert_allclose([margin.smallest, margin.largest], [-scale, 3.0 * scale], rtol=10 * EPS[np.float64])
        assert margin.rows == (0, 1)
        assert not margin.positive
        assert "not positive semi-definite" in margin.message


@pytest.mark.parametrize("name", ["relu", "erf", "sin"])
@pytest.mark.parametrize("kind", ["ck", "ntk"])
def test_a_good_kernel_is_positive(name, kind):
    kernel = getattr(rn, kind)(rn.Network([name]), data(60, 40))
    margin = rn.psd_margin(kernel)
    assert margin.positive
    assert margin.message.endswith("positive definite beyond rounding")
    np.linalg.cholesky(kernel)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["ck", "ntk"])
def test_duplicates_are_named(kind, dtype):
    x = data(30, 40)
    x[17] = x[4]
    margin = rn.psd_margin(getattr(rn, kind)(rn.Network(["relu", "relu"]), x, dtype=dtype))
    assert margin.rows == (4, 17)
    assert not margin.positive
    assert abs(margin.smallest) <= margin.rounding
    assert "rows 4, 17" in margin.message
    assert "duplicates" in margin.message
    # the eps is that of the kernel's own type; eigenvalues of ours are near 1 here, to a factor of a few
    assert_allclose(margin.rounding, 30 * EPS[dtype] * margin.largest, rtol=1e-6)


def test_triplets_and_pairs():
    x = data(20, 30)
    x[3] = x[8]
    x[11] = x[8]
    assert set(rn.psd_margin(rn.ck(rn.Network(["relu"]), x)).rows) <= {3, 8, 11}


def test_a_zero_row_is_named():
    x = data(20, 30)
    x[7] = 0.0
    margin = rn.psd_margin(rn.ck(rn.Network(["relu"], centered=False), x))
    assert margin.rows == (7,)
    assert "row 7 is a zero input" in margin.message
    assert abs(margin.smallest) <= margin.rounding


def test_a_row_much_shorter_than_the_others_is_named():
    x = data(20, 30)
    x[7] *= 1e-9
    margin = rn.psd_margin(rn.ck(rn.Network(["relu"], centered=False), x))
    assert margin.rows == (7,)
    assert "diagonal far below" in margin.message


def test_fewer_dimensions_than_samples():
    margin = rn.psd_margin(rn.ck(rn.Network(["identity"]), data(200, 40)))
    assert margin.rows == ()
    assert not margin.positive
    assert "spread over many rows" in margin.message
    assert "ridge" in margin.message


def test_a_diagonal_filled_too_small_is_told():
    net, x = rn.Network(["sign"]), data(40, 60)
    good = rn.psd_margin(rn.ntk(net, x, diagonal=50.0))
    assert good.positive
    bad = rn.psd_margin(rn.ntk(net, x, diagonal=0.0))
    assert bad.smallest < -bad.rounding
    assert "diagonal was filled" in bad.message
    with pytest.raises(ValueError, match="`kernel` must be finite, got nan"):
        rn.psd_margin(rn.ntk(net, x, diagonal="nan"))


def test_float32_kernels_have_rounding_of_their_own():
    x = data(50, 30)
    x[1] = x[0] + 1e-5 * x[2]  # apart in float64, not in float32
    net = rn.Network([activations.polynomial([0.0, 1.0, 0.3])])
    kernel = rn.ck(net, x)
    assert rn.psd_margin(kernel).positive
    assert not rn.psd_margin(kernel.astype(np.float32)).positive
    assert rn.psd_margin(kernel.astype(np.float32)).rows == (0, 1)


def test_a_cross_kernel_with_itself_will_do():
    x = data(60, 70)
    for dtype in (np.float64, np.float32):  # its halves are computed apart
        assert rn.psd_margin(rn.ck(rn.Network(["relu"]), x, x.copy(), dtype=dtype)).positive


@pytest.mark.parametrize("value, positive", [(2.0, True), (0.0, False), (-1.0, False)])
def test_one_sample(value, positive):
    margin = rn.psd_margin([[value]])
    assert (margin.smallest, margin.largest, margin.rows, margin.positive) == (value, value, (0,), positive)


def test_zero_matrix():
    margin = rn.psd_margin(np.zeros((3, 3)))
    assert (margin.smallest, margin.largest, margin.positive) == (0.0, 0.0, False)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_kernel_is_left_alone(order):
    a = data(20, 30)
    kernel = np.array(a @ a.T, order=order)
    before = kernel.copy()
    kernel.setflags(write=False)
    rn.psd_margin(kernel)
    assert (kernel == before).all()


@pytest.mark.parametrize(
    "kernel, error, match",
    [
        (np.ones((2, 3)), ValueError, "square"),
        (np.ones(3), ValueError, "dimension"),
        (np.zeros((0, 0)), ValueError, "empty"),
        ([[1.0, 0.5], [0.4, 1.0]], ValueError, "symmetric"),
        (np.array([[1.0, 0.5], [0.4, 1.0]], dtype=np.float32), ValueError, "symmetric"),
        ([[1.0, np.nan], [np.nan, 1.0]], ValueError, "finite"),
        ([[np.inf, 0.0], [0.0, 1.0]], ValueError, "finite"),
        (np.eye(2, dtype=complex), TypeError, "real"),
        ([["a"]], TypeError, "numbers"),
        (None, TypeError, "numbers"),
    ],
)
def test_bad_kernel(kernel, error, match):
    with pytest.raises(error, match=f"`kernel`.*{match}"):
        rn.psd_margin(kernel)


def test_asymmetry_far_from_the_corner_is_found():
    kernel = np.eye(700)
    kernel[650, 20] = 0.1
    with pytest.raises(ValueError, match=r"`kernel` must be symmetric, got entries that differ by 0\.1"):
        rn.psd_margin(kernel)
