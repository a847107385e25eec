"""Bit planes and codes hold what was put in, and cost what is said; a key makes the same weights for ever."""

import hashlib
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rmtntk.packing
from rmtntk.packing import (
    CODED,
    PackedTernary,
    Recipe,
    WeightKey,
    bits_per_weight,
    decode,
    encode,
    entropy_bits,
    measure,
    pack,
    packing_of,
    planes,
    recipe_of,
    require_weights,
    sample_keyed,
    sample_packed,
    sample_ternary,
    zero_probability,
    zero_units,
)

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
    for name in rmtntk.packing.__all__:
        assert hasattr(rmtntk.packing, name)
    assert {"PackedTernary", "bits_per_weight", "pack", "sample_ternary"} <= set(rmtntk.packing.__all__)


# --- Weights from a key

KEY = WeightKey(0x0123456789ABCDEFFEDCBA9876543210)
MASK = (1 << 64) - 1


def philox(counter, key):
    """Philox 4×64-10 as in the paper of Salmon et al. (2011), on Python integers; four numbers of 64 bits."""
    x = [(counter >> (64 * k)) & MASK for k in range(4)]
    k0, k1 = key & MASK, key >> 64
    for _ in range(10):
        a, b = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [(b >> 64) ^ x[1] ^ k0, b & MASK, (a >> 64) ^ x[3] ^ k1, a & MASK]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return x


def join(*words):
    return sum(word << (64 * k) for k, word in enumerate(words))


@pytest.mark.parametrize(
    "counter, key, wanted",
    [  # the known answers of the authors' library Random123
        (0, 0, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ((1 << 256) - 1, (1 << 128) - 1, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
        (
            join(0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            join(0x452821E638D01377, 0xBE5466CF34E90C6C),
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_the_reference_generator(counter, key, wanted):
    assert " ".join(f"{word:016x}" for word in philox(counter, key)) == wanted


@pytest.mark.parametrize("layer", [0, 3, (1 << 64) - 1])
@pytest.mark.parametrize("columns", [1, 7, 8, 9, 65])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 1.0 - 2.0**-31])
def test_weights_are_what_the_documentation_says(layer, columns, sparsity):
    zero, stride, wanted = round(sparsity * 2**31), -(-columns // 8), []
    for i in range(5):
        numbers = []
        for c in range(stride):
            for word in philox((layer << 128) + i * stride + c + 1, KEY.key):
                numbers += [word & 0xFFFFFFFF, word >> 32]
        wanted.append([0 if u < 2 * zero else 1 - 2 * (u % 2) for u in numbers[:columns]])
    np.testing.assert_array_equal(sample_keyed(KEY, layer, 5, columns, sparsity), wanted)


def test_weights_never_change():
    assert sample_keyed(KEY, 0, 2, 13, 0.5).tolist() == [
        [1, 0, 0, 1, 0, -1, 1, 0, 0, 0, 0, -1, 0],
        [-1, 1, -1, -1, 0, 0, 1, 0, -1, -1, 0, -1, -1],
    ]
    assert sample_keyed(KEY, 2, 1, 13, 0.0).tolist() == [[1, -1, 1, -1, -1, -1, -1, 1, 1, -1, 1, 1, -1]]
    assert (
        hashlib.sha256(sample_keyed(KEY, 5, 301, 784, 0.9).tobytes()).hexdigest()
        == "17d45544eae4f7fd2406bb663e7ffe062a71085f52bd3004d27d40f86aeee4dc"
    )


def test_zeros_end_just_below_the_threshold():
    even = [u for word in philox(1, KEY.key) for u in (word & 0xFFFFFFFF, word >> 32)]
    place = next(k for k, u in enumerate(even) if u % 2 == 0)
    units = even[place] // 2
    assert sample_keyed(KEY, 0, 1, 8, units / 2**31)[0, place] == 1  # u = 2T: the smallest that is a weight
    assert sample_keyed(KEY, 0, 1, 8, (units + 1) / 2**31)[0, place] == 0


@given(data=st.data())
def test_rows_do_not_depend_on_their_block(data):
    n_rows, n_columns = data.draw(st.integers(1, 100)), data.draw(columns)
    whole = sample_keyed(KEY, 1, n_rows, n_columns, 0.4)
    start = data.draw(st.integers(-n_rows, n_rows))
    stop = data.draw(st.integers(-n_rows, n_rows))
    block = slice(start, stop)
    part = sample_keyed(KEY, 1, n_rows, n_columns, 0.4, block=block)
    np.testing.assert_array_equal(part, whole[block], strict=True)
    np.testing.assert_array_equal(sample_keyed(KEY, 1, n_rows + 9, n_columns, 0.4)[:n_rows], whole)


def test_blocks_join(monkeypatch):
    whole = sample_keyed(KEY, 0, 133, 70, 0.5)
    monkeypatch.setattr(planes, "BLOCK", 1)  # 40 rows at a time
    np.testing.assert_array_equal(sample_keyed(KEY, 0, 133, 70, 0.5), whole)
    np.testing.assert_array_equal(sample_packed(KEY, 0, 133, 70, 0.5).unpack(), whole)
    np.testing.assert_array_equal(sample_keyed(KEY, 0, 133, 70, 0.5, block=slice(39, 130)), whole[39:130])


def test_keys_and_layers_are_independent():
    base = sample_keyed(KEY, 0, 400, 500, 0.0).astype(np.int64)
    for other in (
        sample_keyed(KEY, 1, 400, 500, 0.0),
        sample_keyed(WeightKey(KEY.key ^ 1), 0, 400, 500, 0.0),
        sample_keyed(WeightKey(KEY.key ^ (1 << 127)), 0, 400, 500, 0.0),
    ):
        assert abs(int((base * other).sum())) <= 5.0 * math.sqrt(base.size)  # five standard errors of a sum of ±1


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 1.0 / 3.0, 1.0 - 2.0**-31])
def test_probability_of_zero(sparsity):
    assert zero_probability(sparsity) == zero_units(sparsity) / 2**31
    assert abs(zero_probability(sparsity) - sparsity) <= 2.0**-32


def test_sparsity_too_near_to_one():
    with pytest.raises(ValueError, match=r"`sparsity` must be below 1 - 2\*\*-32"):
        sample_ternary(3, 3, 1.0 - 2.0**-40, 0)


def test_keys():
    assert WeightKey.draw(3) == WeightKey.draw(np.random.default_rng(3)) != WeightKey.draw(4)
    rng = np.random.default_rng(3)
    assert WeightKey.draw(rng) != WeightKey.draw(rng)
    assert int(str(KEY), 16) == KEY.key
    assert len(str(WeightKey(0))) == 32
    np.testing.assert_array_equal(sample_ternary(9, 9, 0.5, 3), sample_keyed(WeightKey.draw(3), 0, 9, 9, 0.5))
    for bad, error in ((-1, ValueError), (1 << 128, ValueError), (1.0, TypeError), ("a", TypeError), (True, TypeError)):
        with pytest.raises(error, match="`key` must be"):
            WeightKey(bad)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((7, 0, 3, 3, 0.5), TypeError, "`key` must be a WeightKey"),
        ((KEY, -1, 3, 3, 0.5), ValueError, "`layer` must be"),
        ((KEY, 1 << 64, 3, 3, 0.5), ValueError, "`layer` must be"),
        ((KEY, 0, 0, 3, 0.5), ValueError, "`rows` must be"),
        ((KEY, 0, 3, 0, 0.5), ValueError, "`columns` must be"),
        ((KEY, 0, 3, 3, 1.0), ValueError, "`sparsity` must be"),
    ],
)
def test_keyed_sampling_refuses(arguments, error, words):
    for sample in (sample_keyed, sample_packed):
        with pytest.raises(error, match=words):
            sample(*arguments)
    with pytest.raises(ValueError, match="`block` must be a slice with step 1"):
        sample_keyed(KEY, 0, 9, 3, 0.5, block=slice(0, 9, 2))


# --- Neurons without a weight


def test_empty_neurons_are_counted():
    weights = np.zeros((5, 70), np.int8)
    weights[1, 69], weights[3, 0] = -1, 1
    assert pack(weights).n_empty_rows == 3
    assert require_weights(pack(weights), "layer 1", 0.99) == 3
    assert require_weights(pack(np.ones((2, 2))), "layer 1", 0.0) == 0


def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match=r"`sparsity` must leave .* got 0.99, .* layer 2 of shape \(5, 70\) has none"):
        require_weights(pack(np.zeros((5, 70), np.int8)), "layer 2", 0.99)


# --- Codes


def assert_same(again, weights):
    assert again.columns == weights.shape[1]
    assert again.nonzero.dtype == again.negative.dtype == np.uint64
    np.testing.assert_array_equal(again.unpack(), weights, strict=True)
    wanted = pack(weights)  # the tails of the words too
    np.testing.assert_array_equal(again.nonzero, wanted.nonzero, strict=True)
    np.testing.assert_array_equal(again.negative, wanted.negative, strict=True)


@given(weights=matrices)
@example(weights=np.zeros((3, 64), np.int8))
@example(weights=-np.ones((1, 65), np.int8))
@example(weights=np.ones((9, 200), np.int8))
@example(weights=np.zeros((1, 1), np.int8))
def test_every_code_is_lossless(weights):
    packed = pack(weights)
    lengths = {}
    for name in CODED:
        content = encode(packed, name)
        assert_same(decode(content), weights)
        assert packing_of(content) == name
        assert recipe_of(content) is None
        lengths[name] = len(content)
    best = encode(packed)
    assert len(best) == min(lengths.values())
    assert_same(decode(best), weights)
    size, k = weights.size, np.count_nonzero(weights)
    head = 17
    assert lengths["2bit"] == head + 2 * -(-size // 8)
    assert lengths["trit"] == head + -(-size // 5)
    assert lengths["bitmap"] == head + -(-size // 8) + -(-k // 8)


@given(
    share=st.floats(0.0, 1.0),
    runs=st.integers(1, 3000),
    shape=st.tuples(st.integers(1, 60), columns),
    seed=st.integers(0, 99),
)
def test_every_code_is_lossless_for_runs_of_any_length(share, runs, shape, seed):
    rng = np.random.default_rng(seed)
    pieces = rng.random(-(-shape[0] * shape[1] // runs)) < share
    nonzero = np.repeat(pieces, runs)[: shape[0] * shape[1]].reshape(shape)
    weights = (nonzero * rng.choice(np.array([-1, 1], np.int8), shape)).astype(np.int8)
    for name in CODED:
        assert_same(decode(encode(pack(weights), name)), weights)


@pytest.mark.parametrize("gap", [0, 1, 15, 16, 254, 255, 256, 509, 510, 511, 4079, 4080, 65_537, 3_000_000])
@pytest.mark.parametrize("value", [0, -1])
def test_gaps_of_any_length(gap, value):
    # one exception after `gap` others, then many close ones: long gaps where the mean is short, and the reverse
    for tail in (0, 1, 3000):
        weights = np.full((1, gap + 1 + tail), value, np.int8)
        weights[0, gap :: 2 if tail > 1 else 1] = 1 if value == 0 else 0
        assert_same(decode(encode(pack(weights), "entropy")), weights)


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("rows", [39, 40, 41, 80, 133])
@pytest.mark.parametrize("n_columns", [1, 3, 70])
def test_codes_of_several_blocks(monkeypatch, name, rows, n_columns):
    weights = sample_keyed(KEY, rows, rows, n_columns, 0.6)
    monkeypatch.setattr(planes, "BLOCK", 1)
    assert_same(decode(encode(pack(weights), name)), weights)


def bits_of(content):
    return [(byte >> k) & 1 for byte in content for k in range(8)]


@given(weights=matrices)
def test_codes_read_by_hand(weights):
    """The formats as documented, read again without arrays."""
    packed, flat = pack(weights), weights.ravel().tolist()
    size = len(flat)
    bodies = {}
    for k, name in enumerate(CODED, start=1):
        content = encode(packed, name)
        assert struct.unpack("<BQQ", content[:17]) == (k, *weights.shape)
        bodies[name] = content[17:]
    half = -(-size // 8)
    two = list(zip(bits_of(bodies["2bit"][:half]), bits_of(bodies["2bit"][half:]), strict=True))
    assert [nonzero * (1 - 2 * negative) for nonzero, negative in two[:size]] == flat
    trits = [byte // 3**k % 3 for byte in bodies["trit"] for k in range(5)]
    assert [(0, 1, -1)[trit] for trit in trits[:size]] == flat
    signs = iter(bits_of(bodies["bitmap"][half:]))
    assert [nonzero * (1 - 2 * next(signs)) if nonzero else 0 for nonzero in bits_of(bodies["bitmap"])[:size]] == flat
    nonzero, rest = mask_by_hand(bodies["entropy"], size)
    signs = iter(bits_of(rest))
    assert [1 - 2 * next(signs) if bit else 0 for bit in nonzero] == flat


def mask_by_hand(content, size):
    flags, shift, count, length = struct.unpack("<BBII", content[:10])
    symbols, low = zlib.decompress(content[10 : 10 + length], -15), bits_of(content[10 + length :])
    used = 10 + length + -(-count * shift // 8)
    if flags == 1:
        return bits_of(symbols)[:size], content[used:]
    rare, gap, mask = (0 if flags == 2 else 1), 0, []
    for symbol in symbols:
        gap += symbol
        if symbol == 255:
            continue
        bits, low = low[:shift], low[shift:]
        gap = (gap << shift) + sum(bit << k for k, bit in enumerate(bits))
        mask += [1 - rare] * gap + [rare]
        gap = 0
    return mask + [1 - rare] * (size - len(mask)), content[used:]


OLD_CODES = (  # in the order of CODED
    "010200000000000000050000000000000026020402",
    "020200000000000000050000000000000015a3",
    "030200000000000000050000000000000026020a",
    "040200000000000000050000000000000001000000000004000000536302000a",
)


def test_codes_of_old_files_are_read():
    weights = [[0, 1, -1, 0, 0], [1, 0, 0, 0, -1]]
    for stored in OLD_CODES:
        assert decode(bytes.fromhex(stored)).unpack().tolist() == weights


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 1.0 / 3.0, 0.5, 0.7, 0.9, 0.99])
def test_what_a_weight_costs(sparsity):
    layer = sample_packed(KEY, 0, 2000, 784, sparsity)
    found = measure([layer])
    bits = {name: 8 * count / layer.size for name, count in found.items()}
    assert bits["2bit"] <= 2.001  # headers
    assert bits["trit"] <= 1.61
    assert found["entropy"] <= 1.03 * found["bound"]
    assert found["entropy"] >= 0.999 * found["bound"]  # log2 of the number of such matrices: less by O(log m) bits
    if sparsity == 0.9:
        assert bits["bitmap"] <= 1.12
        assert bits["entropy"] <= 0.585
    assert found["auto"] == len(encode(layer)) == min(found[name] for name in CODED)
    assert found["bound"] == pytest.approx(layer.size * bits_per_weight(sparsity)["entropy"] / 8, rel=0.01)
    # 1 %: the layer's own share of zeros is off by up to five standard errors, 4e-4 of 10 % for .99


@pytest.mark.parametrize("shape", [(250, 784), (784, 250), (1000, 65), (63, 1000)])
def test_small_layers_are_coded_tightly_too(shape):
    layer = sample_packed(KEY, 1, *shape, 0.9)
    assert 8 * len(encode(layer, "entropy")) <= 1.03 * entropy_bits([layer])


def test_measure_encodes():
    layers = [sample_packed(KEY, 0, 30, 65, 0.9), sample_packed(KEY, 1, 20, 30, 0.0)]
    recipes = [Recipe(KEY, 0, zero_units(0.9)), Recipe(KEY, 1, 0)]
    found = measure(layers, recipes)
    for name in CODED:
        assert found[name] == sum(len(encode(layer, name)) for layer in layers)
    assert found["auto"] == sum(min(len(encode(layer, name)) for name in CODED) for layer in layers)
    assert found["seed"] == sum(len(encode(layer, "seed", recipe=r)) for layer, r in zip(layers, recipes, strict=True))
    assert found["memory"] == 2 * 8 * (30 * 2 + 20 * 1)
    assert found["float32"] == 4 * (30 * 65 + 600)
    assert "seed" not in measure(layers)
    with pytest.raises(ValueError, match="`recipes` must have one entry a layer, 2, got 1"):
        measure(layers, recipes[:1])


# --- Seeds as a code


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_a_seed_makes_the_weights_again(sparsity):
    layer, recipe = sample_packed(KEY, 4, 133, 70, sparsity), Recipe(KEY, 4, zero_units(sparsity))
    content = encode(layer, "seed", recipe=recipe)
    assert len(content) == 49
    assert packing_of(content) == "seed"
    assert recipe_of(content) == recipe
    assert_same(decode(content), layer.unpack())
    assert len(encode(layer, recipe=recipe)) > 49  # "auto" holds the weights themselves


def test_a_seed_of_other_weights_is_refused():
    layer = sample_packed(KEY, 0, 20, 70, 0.5)
    with pytest.raises(ValueError, match='"seed" needs weights made from a key, and these were not'):
        encode(layer, "seed")
    for wrong in (Recipe(WeightKey(1), 0, 1 << 30), Recipe(KEY, 1, 1 << 30), Recipe(KEY, 0, (1 << 30) + (1 << 26))):
        with pytest.raises(ValueError, match="and these differ"):
            encode(layer, "seed", recipe=wrong)
    weights = layer.unpack()
    for row, column in (np.argwhere(weights == value)[-1] for value in (0, 1)):
        changed = weights.copy()
        changed[row, column] = -1  # a zero gone, or only a sign changed
        with pytest.raises(ValueError, match="and these differ"):
            encode(pack(changed), "seed", recipe=Recipe(KEY, 0, 1 << 30))


# --- Damaged codes

DAMAGED = sample_keyed(KEY, 0, 21, 37, 0.7)


def decode_or_refuse(content):
    """Return the weights, None where they are refused; any other error is one of the test."""
    try:
        return decode(content)
    except ValueError as error:
        if "coded weights" not in str(error):
            raise
    return None


@pytest.mark.parametrize("name", [*CODED, "seed"])
def test_codes_cut_or_continued_are_refused(name):
    content = encode(pack(DAMAGED), name, recipe=Recipe(KEY, 0, zero_units(0.7)))
    for wrong in (*(content[:k] for k in range(len(content))), content + b"\0", content + content):
        with pytest.raises(ValueError, match="coded weights"):
            decode(wrong)


@pytest.mark.parametrize("name", CODED)
@given(data=st.data())
def test_changed_codes_are_other_weights_or_refused(name, data):
    content = bytearray(encode(pack(DAMAGED), name))
    place = data.draw(st.integers(17, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    found = decode_or_refuse(bytes(content))
    if found is not None:
        again = found.unpack()
        assert again.shape == DAMAGED.shape
        assert set(np.unique(again).tolist()) <= {-1, 0, 1}
        assert name == "entropy" or (again != DAMAGED).any()  # DEFLATE has several spellings of the same


@given(content=st.binary(max_size=60), number=st.integers(0, 9), rows=st.integers(0, 99), n_columns=st.integers(0, 99))
def test_noise_is_refused_or_weights(content, number, rows, n_columns):
    found = decode_or_refuse(struct.pack("<BQQ", number, rows, n_columns) + content)
    assert found is None or found.shape == (rows, n_columns)


@pytest.mark.parametrize(
    "content, words",
    [
        (struct.pack("<BQQ", 2, 1, 5) + b"\xf3", "a byte that is not five trits"),
        (struct.pack("<BQQ", 2, 1, 1) + b"\x03", "trits set past their end"),
        (struct.pack("<BQQ", 1, 1, 1) + b"\x00\x01", "a sign without a weight"),
        (struct.pack("<BQQ", 1, 1, 1) + b"\x03\x00", "bits set past their end"),
        (struct.pack("<BQQ", 3, 1, 3) + b"\x01\x02", "bits set past their end"),
        (struct.pack("<BQQ", 3, 1 << 50, 1 << 20) + b"\x01\x02", "end early"),
        (struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 4, 0, 0, 2) + b"\x03\x00", "impossible parameters"),
        (struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 0, 0, 4, 2) + b"\x03\x00", "impossible parameters"),
        (struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 0, 0, 1, 2) + b"\x03\x00", "wrong number of gaps"),
        (struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 1, 0, 0, 2) + b"\x03\x00", "bit map of the wrong length"),
        (
            struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 0, 0, 0, 3) + b"\x03\x00\x00",
            "not end where they should",
        ),
        (struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 0, 0, 0, 2) + b"\xff\xff", "cannot be decompressed"),
        (struct.pack("<BQQ", 9, 1, 3) + b"\x00", "impossible packing or shape"),
        (struct.pack("<BQQ", 5, 1, 3) + struct.pack("<16sQQ", b"", 0, 1 << 31), "an impossible seed"),
    ],
)
def test_what_is_wrong_is_said(content, words):
    with pytest.raises(ValueError, match=words):
        decode(content)


@pytest.mark.parametrize("gap", [3, 254])
def test_a_gap_out_of_the_matrix(gap):
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    symbols = coder.compress(bytes([gap])) + coder.flush()
    with pytest.raises(ValueError, match="lie outside their matrix"):
        decode(struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 0, 0, 1, len(symbols)) + symbols + b"\0")


def test_a_bomb_is_not_inflated():
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    symbols = coder.compress(bytes(10_000_000)) + coder.flush()
    with pytest.raises(ValueError, match="not end where they should"):
        decode(struct.pack("<BQQ", 4, 1, 3) + struct.pack("<BBII", 0, 0, 0, len(symbols)) + symbols)


def test_weights_that_do_not_fit_into_memory():
    content = struct.pack("<BQQ", 4, 1 << 44, 1 << 20) + struct.pack("<BBII", 0, 0, 0, 2) + b"\x03\x00"
    with pytest.raises(ValueError, match=r"needs .* GiB|coded weights"):
        decode(content)


def test_encode_refuses():
    with pytest.raises(
        ValueError, match="`packing` must be one of 'auto', '2bit', 'trit', 'bitmap', 'entropy', 'seed'"
    ):
        encode(pack([[1]]), "zip")
    wide = PackedTernary(np.zeros((1, 1 << 20), np.uint64), np.zeros((1, 1 << 20), np.uint64), 1 << 26)
    with pytest.raises(ValueError, match=r"fewer than 2\*\*26 columns"):
        encode(wide)
