"""Bit planes hold what was put in, nothing else, and cost what is said."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rmtntk import packing
from rmtntk.packing import PackedTernary, bits_per_weight, pack, sample_ternary

EPS = float(np.finfo(np.float64).eps)

columns = st.one_of(st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129]), st.integers(1, 200))
matrices = st.tuples(st.integers(1, 9), columns).flatmap(
    lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-1, 1), fill=st.integers(-1, 1))
)


@given(weights=matrices)
@example(weights=np.zeros((3, 64), np.int8))
@example(weights=-np.ones((1, 65), np.int8))
@example(weights=np.ones((2, 1), np.int8))
def test_unpack_inverts_pack(weights):
    packed = pack(weights)
    again = packed.unpack()
    assert again.dtype == np.int8
    np.testing.assert_array_equal(again, weights)
    assert packed.shape == weights.shape
    assert packed.size == weights.size
    assert packed.n_nonzero == np.count_nonzero(weights)
    words = -(-weights.shape[1] // 64)
    assert packed.nonzero.shape == packed.negative.shape == (len(weights), words)
    assert packed.nonzero.dtype == packed.negative.dtype == np.uint64
    assert packed.nbytes == 2 * len(weights) * words * 8


@given(weights=matrices)
def test_bits_are_where_they_belong(weights):
    packed = pack(weights)
    for i in range(len(weights)):
        # one Python integer a row, bit j for column j: what the documentation says, word by word
        nonzero, negative = (
            sum(int(word) << (64 * k) for k, word in enumerate(plane[i])) for plane in (packed.nonzero, packed.negative)
        )
        assert nonzero == sum(1 << j for j, w in enumerate(weights[i].tolist()) if w)
        assert negative == sum(1 << j for j, w in enumerate(weights[i].tolist()) if w < 0)
        assert nonzero >> weights.shape[1] == 0  # the tail


@given(weights=matrices, data=st.data())
def test_unpack_of_a_slice_is_the_slice(weights, data):
    rows = data.draw(st.slices(len(weights)))
    np.testing.assert_array_equal(pack(weights).unpack(rows), weights[rows])


@pytest.mark.parametrize("count", [1, 63, 64, 65])
def test_words_of_known_rows(count):
    packed = pack(-np.ones((1, count), np.int8))
    words = [(1 << min(64, count - start)) - 1 for start in range(0, count, 64)]
    assert packed.nonzero.tolist() == [words]
    assert packed.negative.tolist() == [words]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.float32, np.float64])
def test_pack_takes_any_real_type(dtype):
    weights = np.array([[0, 1, 1], [1, 0, 0]], dtype=dtype)
    np.testing.assert_array_equal(pack(weights).unpack(), weights)
    np.testing.assert_array_equal(pack(np.asfortranarray(weights)).unpack(), weights)
    np.testing.assert_array_equal(pack(weights[::-1, ::-1]).unpack(), weights[::-1, ::-1])
    np.testing.assert_array_equal(pack(weights.tolist()).unpack(), weights)


def test_negative_zero_is_zero():
    packed = pack(np.array([[-0.0, 1.0, -1.0]]))
    assert packed.unpack().tolist() == [[0, 1, -1]]
    assert packed.negative.tolist() == [[4]]


def test_counting_without_bitwise_count(monkeypatch):
    packed = pack(sample_ternary(7, 100, 0.4, 0))
    wanted = packed.n_nonzero
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # NumPy 1.26 has none
    assert packed.n_nonzero == wanted == np.count_nonzero(packed.unpack())


def test_packed_is_frozen():
    with pytest.raises(AttributeError):
        pack([[1]]).columns = 2


@pytest.mark.parametrize(
    "weights, words",
    [
        ([[2, 0]], "entries -1, 0 and 1 only"),
        ([[0.5, 0]], "entries -1, 0 and 1 only"),
        ([[math.nan, 0]], "entries -1, 0 and 1 only"),
        ([[math.inf, 0]], "entries -1, 0 and 1 only"),
        ([["1", "0"]], "entries -1, 0 and 1 only"),
        ([[True, False]], "entries -1, 0 and 1 only"),
        ([[1j, 0]], "entries -1, 0 and 1 only"),
        (np.array([[-2]], np.int8), "entries -1, 0 and 1 only"),
        ([1, 0], r"non-empty matrix, got shape \(2,\)"),
        ([[[1]]], r"non-empty matrix, got shape \(1, 1, 1\)"),
        (1, r"non-empty matrix, got shape \(\)"),
        ([], "non-empty matrix"),
        ([[]], r"non-empty matrix, got shape \(1, 0\)"),
        (np.zeros((0, 3)), r"non-empty matrix, got shape \(0, 3\)"),
    ],
)
def test_pack_refuses(weights, words):
    with pytest.raises(ValueError, match=f"`weights` must .*{words}"):
        pack(weights)


# --- What a weight costs


def test_bits_per_weight_of_the_documentation():
    bits = bits_per_weight(0.9)
    assert bits["entropy"] == pytest.approx(0.569, abs=5e-4)  # three decimals given
    assert bits["bitmap"] == pytest.approx(1.1, abs=4 * EPS)
    assert (bits["float32"], bits["2bit"], bits["trit"]) == (32.0, 2.0, 1.6)


@given(sparsity=st.floats(0.0, 1.0))
def test_no_packing_beats_the_entropy(sparsity):
    bits = bits_per_weight(sparsity)
    # the longest is 2 bits a weight; 4 eps for the two logarithms
    assert all(bits["entropy"] <= bits[name] + 8 * EPS for name in ("float32", "2bit", "trit", "bitmap"))
    probabilities = [sparsity, (1.0 - sparsity) / 2.0, (1.0 - sparsity) / 2.0]
    entropy = -sum(q * math.log2(q) for q in probabilities if q > 0.0)
    assert bits["entropy"] == pytest.approx(entropy, rel=1e-13, abs=1e-300)  # the definition over three values


def test_entropy_at_the_ends():
    assert bits_per_weight(0.0)["entropy"] == 1.0
    assert bits_per_weight(1.0)["entropy"] == 0.0
    assert bits_per_weight(1.0 / 3.0)["entropy"] == pytest.approx(math.log2(3.0), rel=4 * EPS)  # the largest there is


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, math.nan])
def test_bits_per_weight_refuses(sparsity):
    with pytest.raises(ValueError, match="`sparsity` must be a finite number"):
        bits_per_weight(sparsity)


# --- Sampling


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_sampled_weights_have_the_right_law(sparsity):
    n_rows, n_columns = 800, 1000
    weights = sample_ternary(n_rows, n_columns, sparsity, 5)
    assert weights.dtype == np.int8
    assert weights.shape == (n_rows, n_columns)
    assert set(np.unique(weights).tolist()) <= {-1, 0, 1}
    n = weights.size
    zeros, total = np.count_nonzero(weights == 0), int(weights.sum(dtype=np.int64))
    # five standard errors of a binomial count, and of a sum of n variables of variance 1 − ε
    assert abs(zeros - n * sparsity) <= 5.0 * math.sqrt(n * sparsity * (1.0 - sparsity))
    assert abs(total) <= 5.0 * math.sqrt(n * (1.0 - sparsity))
    # neighbours in a row and in a column are uncorrelated, and so are their squares: five standard errors again
    variance, spread = 1.0 - sparsity, sparsity * (1.0 - sparsity)
    squares = weights.astype(np.float64) ** 2 - variance
    for a, b in ((weights[:, 1:], weights[:, :-1]), (weights[1:], weights[:-1])):
        assert abs((a * b).sum(dtype=np.int64)) <= 5.0 * variance * math.sqrt(a.size)
    for a, b in ((squares[:, 1:], squares[:, :-1]), (squares[1:], squares[:-1])):
        assert abs((a * b).sum()) <= 5.0 * spread * math.sqrt(a.size) + 1e-9  # 1e-9: rounding where all are nonzero


def test_sampling_without_sparsity_has_no_zeros():
    assert np.count_nonzero(sample_ternary(50, 70, 0.0, 1)) == 3500


def test_sampling_depends_on_the_generator_alone():
    one = sample_ternary(30, 40, 0.5, 7)
    np.testing.assert_array_equal(one, sample_ternary(30, 40, 0.5, np.random.default_rng(7)))
    assert (one != sample_ternary(30, 40, 0.5, 8)).any()
    rng = np.random.default_rng(7)
    sample_ternary(30, 40, 0.5, rng)
    assert (one != sample_ternary(30, 40, 0.5, rng)).any()  # a generator moves on


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((0, 3, 0.5, 0), ValueError, "`rows` must be at least 1"),
        ((3, 0, 0.5, 0), ValueError, "`columns` must be at least 1"),
        ((3.0, 3, 0.5, 0), TypeError, "`rows` must be an integer"),
        ((3, 3, 1.0, 0), ValueError, r"`sparsity` must be a finite number in \[0, 1\)"),
        ((3, 3, -0.1, 0), ValueError, "`sparsity` must be"),
        ((3, 3, math.nan, 0), ValueError, "`sparsity` must be"),
        ((3, 3, "0.5", 0), TypeError, "`sparsity` must be a real number"),
        ((3, 3, 0.5, -1), ValueError, "`rng` must be a non-negative seed"),
        ((3, 3, 0.5, None), TypeError, "`rng` must be a numpy Generator or an integer seed"),
        ((3, 3, 0.5, 1.5), TypeError, "`rng` must be"),
    ],
)
def test_sampling_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        sample_ternary(*arguments)


def test_planes_in_the_files_byte_order_unpack_too():
    packed = pack(sample_ternary(5, 130, 0.3, 2))
    for order in ("<u8", ">u8"):
        other = PackedTernary(packed.nonzero.astype(order), packed.negative.astype(order), packed.columns)
        np.testing.assert_array_equal(other.unpack(), packed.unpack())


def test_public_names():
    assert set(packing.__all__) == {"PackedTernary", "bits_per_weight", "pack", "sample_ternary"}
