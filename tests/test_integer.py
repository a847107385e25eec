"""Integer networks against int64 products, and folded thresholds against exact and 60-digit arithmetic."""

import math
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import mpmath
import numpy as np
import pytest
from cases import slow
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import rmtntk as rn
from rmtntk import integer
from rmtntk._jit import bitplane
from rmtntk.integer import InputQuantiser, IntegerLayer, IntegerNetwork, OutOfRangeWarning
from rmtntk.network import layer_scales
from rmtntk.packing import PackedTernary, pack, sample_ternary
from rmtntk.ternary.forward import Forward
from rmtntk.ternary.parts import Preprocessing

EPS = float(np.finfo(np.float64).eps)
PIXELS = InputQuantiser(8, 0.0, 1.0)
LEVELS = {
    "ternary": [-1.0, 0.0, 1.0],
    "even": [1.0, 0.0, 1.0],
    "binary": [0.0, 2.0],
    "scaled": [-0.3, 0.4, 1.1],
    "four": [0.0, 1.0, 2.0, 3.0],
    "eight": list(range(8)),
    "free": [-1.0, -0.1234567, 0.7654321, 1.9876543],
    "descending": [3.0, 1.0, 0.5, -2.0],
}


def steps(levels, spread=0.8):
    return rn.activations.step(np.linspace(-spread, spread + 0.01, len(levels) - 1), levels)


def draw(sizes, sparsity=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return [pack(sample_ternary(d, p, sparsity, rng)) for p, d in pairwise(sizes)]


def forward(levels, sizes=(50, 100, 70, 33), sparsity=0.5, seed=0, quantiser=PIXELS, **options):
    net = rn.Network([steps(levels)] * (len(sizes) - 1), tau0=1.0, **options)
    mean = np.random.default_rng(seed).uniform(80.0, 170.0, sizes[0])
    preprocessing = Preprocessing(mean, 74.0 * math.sqrt(sizes[0]))
    return Forward(net, draw(sizes, sparsity, seed), sparsity, quantiser=quantiser, preprocessing=preprocessing)


def pixels(n, p, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, p)).astype(np.uint8)


# --- Products


@given(
    n=st.integers(1, 40),
    d=st.integers(1, 70),
    m=st.integers(1, 200),
    sparsity=st.sampled_from([0.0, 0.5, 0.97]),
    seed=st.integers(0, 2**32 - 1),
)
def test_ternary_products_are_those_of_integers(n, d, m, sparsity, seed):
    rng = np.random.default_rng(seed)
    weights, inputs = sample_ternary(d, m, sparsity, rng), rng.integers(-1, 2, (n, m))
    got = integer.multiply(pack(weights), pack(inputs))
    assert got.dtype == np.int32
    assert_array_equal(got, inputs @ weights.astype(np.int64).T)


@pytest.mark.parametrize("n_levels", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 19])
@pytest.mark.parametrize("n", [1, 2, 3, 13])
def test_sums_of_any_values(n_levels, n):
    # every number of planes, one group of eight and more, values with and without a common unit, negative, repeated
    rng = np.random.default_rng(n_levels)
    weights = sample_ternary(37, 130, 0.3, rng)
    codes = rng.integers(0, n_levels, (n, 130)).astype(np.uint8)
    for values in (
        rng.integers(-(2**31), 2**31, n_levels).astype(np.int32),
        (7 - 3 * np.arange(n_levels)).astype(np.int32),
        (np.arange(n_levels) % 3).astype(np.int32),
    ):
        wanted = values.astype(np.int64)[codes] @ weights.astype(np.int64).T
        assert_array_equal(integer.accumulate(pack(weights), values, codes), wanted)


def test_products_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"`inputs` must have the weights' 5 columns, got 6"):
        integer.multiply(pack(np.ones((2, 5))), pack(np.ones((2, 6))))


def test_row_sums():
    weights = sample_ternary(30, 100, 0.3, 0)
    assert_array_equal(integer.row_sums(pack(weights)), weights.sum(axis=1))


# --- Levels


def test_levels_with_a_common_unit_are_small_integers():
    for name, wanted in [("ternary", [-1, 0, 1]), ("even", [1, 0, 1]), ("binary", [0, 1]), ("scaled", [-1, 0, 1]),
                         ("four", [-1, 0, 1, 2]), ("descending", [5, 1, 0, -5])]:  # fmt: skip
        found = integer.integer_levels(steps(LEVELS[name]))
        assert_array_equal(found.values, wanted)
        assert found.error <= 2 * EPS * np.ptp(LEVELS[name])  # the levels' own rounding


@given(st.lists(st.floats(-100.0, 100.0), min_size=2, max_size=8))
def test_free_levels_are_near_multiples_of_their_unit(levels):
    assume(all(a != b for a, b in pairwise(levels)))
    found = integer.integer_levels(steps(levels))
    span = max(levels) - min(levels)
    assert np.ptp(found.values) < integer.UNITS
    distances = [
        abs(Fraction(level) - found.offset - found.unit * int(v)) for level, v in zip(levels, found.values, strict=True)
    ]
    assert float(max(distances)) == found.error
    # half of the finest unit, 2^-16 of the range; and rounding of the shares
    assert found.error <= span * (0.5 / (integer.UNITS - 1) + 4 * EPS)


# --- Folded thresholds


def exact_codes(net, packed, sparsity, quantiser, codes, mean, scale):
    """Codes of the last layer by rational numbers; 1 − ε, widths and p (fan_in) must be squares."""

    def root(q):
        a, b = math.isqrt(q.numerator), math.isqrt(q.denominator)
        assert a * a == q.numerator
        assert b * b == q.denominator
        return Fraction(a, b)

    centre = layer_scales(net, net.tau0).centre
    gain = Fraction(net.weight_std) / root(1 - Fraction(sparsity))
    factor = 1 / root(Fraction(codes.shape[1])) if net.input_scaling == "fan_in" else 1
    rows = []
    for row in codes.tolist():
        values = [
            (Fraction(quantiser.low) + Fraction(quantiser.step) * c - Fraction(float(m))) / Fraction(scale) * factor
            for c, m in zip(row, mean, strict=True)
        ]
        for k, act in enumerate(net.activations):
            weights = packed[k].unpack().tolist()
            arguments = [gain * sum(t * v for t, v in zip(line, values, strict=True)) for line in weights]
            found = [sum(Fraction(float(s)) <= u for s in act.thresholds) for u in arguments]
            levels = integer.integer_levels(act)
            exact = [levels.offset + levels.unit * int(v) for v in levels.values]
            values = [(exact[c] - Fraction(float(centre[k]))) / root(Fraction(len(found))) for c in found]
        rows.append(found)
    return np.array(rows)


@pytest.mark.parametrize("input_scaling", ["unit", "fan_in"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("with_mean", [True, False])
def test_ties_are_decided_as_exact_arithmetic_does(input_scaling, centred, with_mean):
    # thresholds are values that the arguments do take: of ~2000 arguments dozens are equal to one
    quantiser = InputQuantiser(2, -1.0, 1.0)
    acts = [
        rn.activations.step([-0.5, 0.0, 0.75], [-1.0, 0.0, 1.0, 2.0]),
        rn.activations.step([-0.5, 0.0, 0.5], [1.0, 0.0, 0.25, 1.0]),
        rn.activations.step([0.0, 0.25], [-1.0, 0.0, 1.0]),
    ]
    net = rn.Network(acts, tau0=1.0, centered=centred, input_scaling=input_scaling, weight_std=0.5)
    packed = draw((16, 64, 16, 36), sparsity=0.75)
    mean = np.where(np.arange(16) % 3 == 0, 0.25, -0.5) if with_mean else np.zeros(16)
    codes = np.random.default_rng(0).integers(0, 4, (25, 16)).astype(np.uint8)
    network = integer.fold(net, packed, 0.75, quantiser, mean=mean if with_mean else None, scale=4.0)
    wanted = exact_codes(net, packed, 0.75, quantiser, codes, mean, 4.0)
    assert len(np.unique(wanted)) == 3
    assert_array_equal(network.codes(codes), wanted)
    assert_array_equal(network.reference(codes), wanted)
    first = IntegerNetwork(network.layers[:1], quantiser, network.outputs)
    alone = rn.Network(acts[:1], tau0=1.0, centered=centred, input_scaling=input_scaling, weight_std=0.5)
    assert_array_equal(first.codes(codes), exact_codes(alone, packed[:1], 0.75, quantiser, codes, mean, 4.0))
    # there were ties: moving every threshold down by a hair changes nothing, moving it up does
    sums = network.layers[0].values[codes].astype(int) @ packed[0].unpack().T.astype(int)
    assert (sums[:, :, None] == network.layers[0].thresholds).sum() > 20


@pytest.mark.parametrize("name", ["ternary", "even", "free"])
@pytest.mark.parametrize("input_scaling", ["unit", "fan_in"])
def test_thresholds_agree_with_60_digits(name, input_scaling):
    sizes, sparsity, quantiser = (23, 40, 30), 0.3, InputQuantiser(5, -0.7, 0.13)
    rng = np.random.default_rng(3)
    act = rn.activations.step(np.sort(rng.normal(0.0, 0.5, len(LEVELS[name]) - 1)), LEVELS[name])
    net = rn.Network([act, act], tau0=0.7, weight_std=1.3, input_scaling=input_scaling)
    packed, mean, scale = draw(sizes, sparsity, 5), rng.normal(1.0, 1.0, sizes[0]), 2.9
    network = integer.fold(net, packed, sparsity, quantiser, mean=mean, scale=scale)
    centre = float(layer_scales(net, 0.7).centre[0])
    levels = integer.integer_levels(act)
    with mpmath.workdps(60):
        unit, offset = (mpmath.mpf(v.numerator) / v.denominator for v in (levels.unit, levels.offset))
        gain = mpmath.mpf(1.3) / mpmath.sqrt(1 - mpmath.mpf(sparsity))
        factor = gain / mpmath.mpf(scale) / (mpmath.sqrt(23) if input_scaling == "fan_in" else 1)
        for k, layer in enumerate(network.layers):
            weights = packed[k].unpack().tolist()
            for i, line in enumerate(weights):
                if k == 0:
                    a = factor * mpmath.mpf(quantiser.step)
                    b = factor * sum(
                        t * (mpmath.mpf(quantiser.low) - float(m)) for t, m in zip(line, mean, strict=True)
                    )
                else:
                    a = gain * unit / mpmath.sqrt(sizes[1])
                    b = gain * (offset - centre) * sum(line) / mpmath.sqrt(sizes[1])
                bound = int(np.abs(layer.values).max()) * len(line)
                for j, s in enumerate(act.thresholds):
                    wanted = int(mpmath.ceil((mpmath.mpf(float(s)) - b) / a))
                    assert layer.thresholds[i, j] == min(max(wanted, -bound), bound + 1)


def test_thresholds_far_outside_are_never_or_always_reached():
    act = rn.activations.step([-1e300, 0.0, 1e300], [0.0, 1.0, 2.0, 3.0])
    net = rn.Network([act, act], tau0=1.0, centered=False)
    packed = draw((20, 30, 10))
    for mean in (None, np.full(20, 1.5)):
        network = integer.fold(net, packed, 0.5, PIXELS, mean=mean)
        codes = network.codes(pixels(9, 20))
        assert set(np.unique(codes)) == {1, 2}
        assert_array_equal(codes, network.reference(pixels(9, 20)))


def test_a_neuron_without_weights_has_the_argument_zero():
    weights = np.zeros((3, 70), dtype=np.int8)
    weights[1, 0], weights[2, 69] = 1, -1
    for threshold, wanted in ((0.0, 1), (1e-300, 0), (-1e-300, 1)):
        net = rn.Network([rn.activations.step([threshold], [0.0, 1.0])], tau0=1.0)
        for mean in (None, np.full(70, 3.3)):
            network = integer.fold(net, [pack(weights)], 0.9, PIXELS, mean=mean)
            assert_array_equal(network.codes(pixels(5, 70))[:, 0], np.full(5, wanted))


# --- Whole networks


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_codes_are_those_of_the_reference(name, bits):
    quantiser = InputQuantiser(bits, 0.0, 255.0 / ((1 << bits) - 1))
    network = forward(LEVELS[name], quantiser=quantiser).network
    codes = pixels(45, 50) >> (8 - bits)
    wanted = network.reference(codes)
    assert len(np.unique(wanted)) > 1
    got = network.codes(codes)
    assert got.dtype == np.uint8
    assert_array_equal(got, wanted)
    for count in (1, 2, 3, 9):
        assert_array_equal(network.codes(codes[:count]), wanted[:count])


@settings(max_examples=40)
@given(data=st.data())
def test_any_thresholds_any_shape(data):
    sizes = [data.draw(st.integers(1, 150)) for _ in range(data.draw(st.integers(2, 4)))]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bits = data.draw(st.integers(1, 8))
    values = np.arange(1 << bits, dtype=np.int32)
    layers = []
    for weights in draw(sizes, data.draw(st.sampled_from([0.0, 0.9])), int(rng.integers(1 << 30))):
        k = data.draw(st.integers(2, 9))
        scale = 1 + int(np.abs(values).max() * math.sqrt(weights.columns))
        thresholds = np.sort(rng.integers(-scale, scale + 1, (weights.shape[0], k - 1)), axis=1)
        thresholds[0, 0], thresholds[-1, -1] = -(2**63), 2**63 - 1
        layers.append(IntegerLayer(weights, values, np.sort(thresholds, axis=1)))
        values = rng.integers(-5, 6, k).astype(np.int32)
    network = IntegerNetwork(tuple(layers), InputQuantiser(bits, 0.0, 1.0), values)
    codes = rng.integers(0, 1 << bits, (data.draw(st.integers(1, 30)), sizes[0]))
    assert_array_equal(network.codes(codes), network.reference(codes))


def test_threads_and_chunks_change_nothing():
    network = forward(LEVELS["ternary"], sizes=(300, 500, 200, 130)).network
    codes = pixels(1100, 300)
    wanted = network.reference(codes)
    weights, inputs = pack(sample_ternary(500, 700, 0.5, 0)), pack(sample_ternary(1100, 700, 0.5, 1))
    product = inputs.unpack().astype(np.float64) @ weights.unpack().astype(np.float64).T
    plain = Forward(rn.Network(["relu", "relu"], tau0=1.0), draw((300, 500, 130)), 0.5)
    mixed = []
    try:
        for threads in (1, 2, 3):
            rn.set_num_threads(threads)
            assert_array_equal(network.codes(codes), wanted)
            assert_array_equal(integer.multiply(weights, inputs), product)
            mixed.append(plain(codes / 4000.0))
    finally:
        rn.set_num_threads(None)
    assert_array_equal(mixed[0], mixed[1])
    assert_array_equal(mixed[0], mixed[2])


def test_weights_are_held_as_two_planes():
    f = forward(LEVELS["ternary"], sizes=(784, 500, 400))
    planes = sum(layer.nbytes for layer in f.packed)
    network = f.network
    f(pixels(20, 784))
    for layer, packed in zip(network.layers, f.packed, strict=True):
        assert layer.weights is packed
        own = layer.values.nbytes + layer.thresholds.nbytes
        own += sum(part.nbytes for part in layer.prepared)
        assert layer.nbytes == packed.nbytes + own
        arrays = [value for value in vars(layer).values() if isinstance(value, np.ndarray)]
        assert sum(array.nbytes for array in arrays) == layer.values.nbytes + layer.thresholds.nbytes
    # thresholds twice, an offset a neuron: 2·2 + 1 words of 8 bytes, of 912 with the padding; tables of 256 codes
    assert planes < network.nbytes < planes + 8 * 5 * 912 + 4000
    assert f.nbytes == pytest.approx(network.nbytes, abs=100)


# --- The forward pass


@pytest.mark.parametrize("name", LEVELS)
def test_quantised_and_float_inputs_agree_on_whole_numbers(name):
    exact = forward(LEVELS[name])
    plain = Forward(exact.net, exact.packed, 0.5, preprocessing=exact.preprocessing)
    x = pixels(60, 50)
    got = exact(x.astype(float))
    # a first argument within rounding of a threshold has probability 1e-12
    assert_array_equal(got, plain(x.astype(float)))
    assert_array_equal(got, exact(x))
    network = exact.network
    codes = network.codes(x)
    # outputs in their unit: rounding, and the level error of free levels
    span = np.ptp(LEVELS[name]) / math.sqrt(33)
    wanted = network.output_offset + network.output_unit * network.outputs[codes]
    assert_allclose(got, wanted, rtol=0, atol=span * (network.level_error + 16 * EPS))
    assert (network.level_error < 1e-13) == (name != "free")


@pytest.mark.parametrize("quantiser", [None, InputQuantiser(4, 0.0, 17.0)])
@pytest.mark.parametrize("acts", [["relu", "tanh"], ["step", "relu"], ["relu", "step"], ["free", "relu"]], ids="+".join)
def test_mixed_networks_do_what_the_matrices_say(acts, quantiser):
    table = {"step": steps(LEVELS["ternary"]), "free": steps(LEVELS["free"])}
    net = rn.Network([table.get(name, name) for name in acts], tau0=1.0)
    packed, pre = draw((50, 100, 70)), Preprocessing(np.full(50, 120.0), 500.0)
    x = pixels(30, 50).astype(float)
    got = Forward(net, packed, 0.5, quantiser=quantiser, preprocessing=pre)(x)
    if quantiser is not None:
        x = np.rint(x / 17.0) * 17.0
    values = (x - 120.0) / 500.0
    for k, act in enumerate(net.activations):
        u = values @ packed[k].unpack().T * math.sqrt(2.0)
        values = (act(u) - float(layer_scales(net, 1.0).centre[k])) / math.sqrt(len(packed[k].nonzero))
    # sums of 100 terms of order 1
    assert_allclose(got, values, rtol=0, atol=1e-14)


def test_quantised_inputs_without_preprocessing():
    net = rn.Network([steps(LEVELS["ternary"])], tau0=10.0)
    packed = draw((40, 30))
    quantiser = InputQuantiser(3, -0.5, 0.25)
    x = np.random.default_rng(0).uniform(-0.6, 1.3, (20, 40))
    got = Forward(net, packed, 0.5, quantiser=quantiser)(x)
    rounded = Forward(net, packed, 0.5)(-0.5 + 0.25 * np.rint((x + 0.5) / 0.25))
    assert_array_equal(got, rounded)


# --- Inputs out of range, and other mistakes


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_inputs_out_of_range_are_counted(dtype):
    quantiser = InputQuantiser(4, 0.0, 1.0)
    x = np.zeros((30, 5), dtype=dtype)
    x[3, 1], x[4, 0], x[9, 4] = 15, 16, 200
    count = 2
    if dtype != np.uint8:
        x[0, 0], x[1, 1], x[2, 2], count = -0.4, -0.6, 15.4, 3
    with pytest.raises(ValueError, match=rf"range \[0, 15\].*got {count} of 150 entries outside.*largest 200"):
        integer.quantise(quantiser, x)
    with pytest.warns(OutOfRangeWarning, match=f"{count} of 150 entries outside") as caught:
        codes = integer.quantise(quantiser, x, out_of_range="clip")
    assert caught[0].filename == __file__
    counted = integer.Outside()  # not a warning: pytest would make it an error
    for rows in (x[:5], x[5:]):
        integer.quantise(quantiser, rows, out_of_range="clip", outside=counted)
    assert (counted.total, counted.size, counted.largest) == (count, 150, 200)
    assert_array_equal(codes, np.clip(np.rint(x), 0, 15))
    f = Forward(rn.Network([steps(LEVELS["ternary"])], tau0=1.0), draw((5, 8)), 0.5, quantiser=quantiser)
    with pytest.raises(ValueError, match=f"{count} of 150 entries"):
        f(x)
    with pytest.warns(OutOfRangeWarning, match=f"{count} of 150"):
        assert_array_equal(f(x, out_of_range="clip"), f(codes))


def test_quantising_rounds_to_the_nearest_code():
    quantiser = InputQuantiser(6, -3.0, 0.1)
    x = np.random.default_rng(0).uniform(-3.0, 3.3, (700, 9))
    codes = integer.quantise(quantiser, x)
    assert np.abs(-3.0 + 0.1 * codes - x).max() <= 0.05 * (1 + 100 * EPS)
    whole = np.arange(256, dtype=np.uint8)[None, :]
    assert_array_equal(integer.quantise(PIXELS, whole), whole)
    half = InputQuantiser(7, 1.0, 2.0)  # ties go to even codes, for bytes as for floats
    assert_array_equal(integer.quantise(half, whole[:, 1:]), integer.quantise(half, whole[:, 1:].astype(float)))


@pytest.mark.parametrize(
    "quantiser, message",
    [
        (InputQuantiser(0, 0.0, 1.0), "`quantiser.bits` must be at least 1"),
        (InputQuantiser(9, 0.0, 1.0), "`quantiser.bits` must be"),
        (InputQuantiser(8, 0.0, 0.0), "`quantiser.step` must be"),
        (InputQuantiser(8, math.nan, 1.0), "`quantiser.low` must be"),
    ],
)
def test_bad_quantisers(quantiser, message):
    with pytest.raises(ValueError, match=message):
        integer.quantise(quantiser, np.zeros((2, 2)))


def test_bad_networks_and_codes():
    packed, act = draw((5, 8)), steps(LEVELS["ternary"])
    good = integer.fold(rn.Network([act], tau0=1.0), packed, 0.5, PIXELS)
    with pytest.raises(ValueError, match="`net` must have its tau0 set"):
        integer.fold(rn.Network([act]), packed, 0.5, PIXELS)
    with pytest.raises(ValueError, match="`net` must have bias_std=0"):
        integer.fold(rn.Network([act], tau0=1.0, bias_std=0.1), packed, 0.5, PIXELS)
    with pytest.raises(ValueError, match="steps of at most 256 levels in every layer, got relu in layer 1"):
        integer.fold(rn.Network(["relu"], tau0=1.0), packed, 0.5, PIXELS)
    with pytest.raises(ValueError, match="one matrix per layer, 2, got 1"):
        integer.fold(rn.Network([act, act], tau0=1.0), packed, 0.5, PIXELS)
    with pytest.raises(ValueError, match=r"`mean` must have shape \(5,\), got \(4,\)"):
        integer.fold(rn.Network([act], tau0=1.0), packed, 0.5, PIXELS, mean=np.zeros(4))
    with pytest.raises(TypeError, match="`x_codes` must be integers"):
        good.codes(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"`x_codes` must have shape \(n, 5\)"):
        good.codes(np.zeros((2, 4), dtype=int))
    with pytest.raises(ValueError, match=r"in 0 … 255, got 1 of 10 entries outside"):
        good.codes(np.array([[0, 1, 2, 3, 256], [0] * 5]))
    with pytest.raises(ValueError, match="the inputs are not quantised"):
        _ = Forward(rn.Network([act], tau0=1.0), packed, 0.5).network


# --- The loops


SOME = """
import sys
sys.path.insert(0, {tests!r})
import test_integer as t
for name in ("ternary", "four", "free"):
    network = t.forward(t.LEVELS[name], sizes=(70, 90, 40)).network
    for n in (1, 21):
        codes = t.pixels(n, 70)
        assert (network.codes(codes) == network.reference(codes)).all()
print("agree")
"""


@pytest.mark.parametrize("settings", [{"NUMBA_DISABLE_JIT": "1"}, slow({"NUMBA_CPU_NAME": "generic"})])
def test_without_the_compiler_and_on_a_plain_processor(settings, tmp_path):
    # "generic" has no AVX, no popcount instruction: vectors of 512 bits are taken apart by LLVM
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **settings}
    environment["PYTHONPATH"] = str(Path(rn.__file__).resolve().parent.parent)
    code = SOME.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "agree"


def test_popcounts_are_instructions_of_full_width():
    if not hasattr(bitplane.layer, "inspect_asm"):
        pytest.skip("the compiler is switched off")
    from llvmlite import binding

    if not binding.get_host_cpu_features().get("avx512vpopcntdq") or "NUMBA_CPU_NAME" in os.environ:
        pytest.skip("this processor has no AVX-512 popcount")
    code = """
import numpy as np
import test_integer as t
from rmtntk._jit import bitplane
t.forward(t.LEVELS["ternary"]).network.codes(t.pixels(9, 50))
(text,) = bitplane.layer.inspect_asm().values()
lines = [line for line in text.splitlines() if "vpopcntq" in line and "zmm" in line]
print(len(lines))
"""
    environment = {**os.environ, "RMTNTK_CACHE": "0"}  # machine code that was loaded from the cache has no text
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(rn.__file__).resolve().parent.parent), str(Path(__file__).parent)]
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 16  # sums in registers


def test_packed_planes_need_no_writing():
    packed = pack(sample_ternary(20, 70, 0.5, 0))
    for plane in (packed.nonzero, packed.negative):
        plane.setflags(write=False)
    frozen = PackedTernary(packed.nonzero, packed.negative, 70)
    assert_array_equal(integer.multiply(frozen, frozen), packed.unpack().astype(int) @ packed.unpack().T.astype(int))
