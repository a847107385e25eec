"""The C code gives the integers of an oracle in plain Python, and has the sizes that its header states."""

import itertools
import os
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cases import thinned
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rmtntk as rn
from rmtntk import _files
from rmtntk.integer import InputQuantiser, IntegerLayer, IntegerNetwork, fold
from rmtntk.packing import pack, sample_ternary
from rmtntk.readout import fit_ridge
from rmtntk.readout.quantised import quantise
from rmtntk.ternary import c_plan, c_text
from rmtntk.ternary.export_c import IntegerReadout, export_c, fold_readout, integer_scores

CC = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler (gcc, clang or cc) on the path")
needs_nm = pytest.mark.skipif(CC is None or shutil.which("nm") is None, reason="no C compiler or no nm on the path")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]
DRIVER = """\
#include "net.h"
#include <stdio.h>
int main(void)
{
    uint8_t x[NET_INPUTS];
    int64_t scores[NET_CLASSES + 1];
    while (fread(x, 1, NET_INPUTS, stdin) == NET_INPUTS) {
        net_scores(x, scores);
        scores[NET_CLASSES] = net_predict(x);
        fwrite(scores, sizeof scores, 1, stdout);
    }
    return 0;
}
"""


def random_network(seed, widths, *, levels=3, bits=8, sparsity=0.5, spread=1, classes=3, wide=False):
    """A network of any integers: values of unequal gaps in any order, some thresholds that are never or always met."""
    rng = np.random.default_rng(seed)
    values, layers = np.arange(2**bits), []
    for columns, rows in itertools.pairwise(widths):
        weights = rng.integers(0, 2, (rows, columns)) * 2 - 1
        weights[rng.random((rows, columns)) < sparsity] = 0
        # near the sums that occur, so that every code does
        sums = values[rng.integers(0, len(values), (64, columns))] @ weights.T
        thresholds = np.sort(rng.normal(sums.mean(axis=0), sums.std(axis=0) + 1.0, (levels - 1, rows)).T.round())
        thresholds = thresholds.astype(np.int64)
        thresholds[rng.random(rows) < 0.1, -1] = 2**62
        thresholds[rng.random(rows) < 0.1, 0] = -(2**62)
        layers.append(IntegerLayer(pack(weights), values.astype(np.int32), thresholds))
        values = rng.integers(-spread, spread + 1, levels)
    small = np.int16 if wide else np.int8
    readout = IntegerReadout(
        rng.integers(-127, 128, (widths[-1], classes)).astype(small),
        rng.integers(-(2**31), 2**31, classes).astype(np.int32),
        rng.integers(-(2**40), 2**40, classes),
    )
    return IntegerNetwork(tuple(layers), InputQuantiser(bits, 0.0, 1.0), values.astype(np.int32)), readout


def oracle(network, readout, x):
    """Scores of one input in Python's own integers, weight by weight: no arrays, no overflow, no tricks."""
    codes = [int(code) for code in x]
    for layer in network.layers:
        rows = layer.weights.unpack().tolist()
        values = [int(v) for v in layer.values]
        sums = [sum(t * values[code] for t, code in zip(row, codes, strict=True)) for row in rows]
        codes = [sum(t <= s for t in row) for row, s in zip(layer.thresholds.tolist(), sums, strict=True)]
    z = [int(network.outputs[code]) for code in codes]
    columns = readout.coefficients.T.tolist()
    return [
        int(m) * sum(q * v for q, v in zip(column, z, strict=True)) + int(b)
        for column, m, b in zip(columns, readout.multiplier, readout.bias, strict=True)
    ]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, **options)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


@pytest.fixture(scope="module")
def sanitizers(tmp_path_factory):
    """Flags of those sanitizers that work here."""
    folder = tmp_path_factory.mktemp("sanitizers")
    (folder / "a.c").write_text("int main(void) { return 0; }\n")
    for kinds in ("undefined,address", "undefined"):
        flags = [f"-fsanitize={kinds}", "-fno-sanitize-recover=all"]
        build = subprocess.run([CC, *flags, "a.c", "-o", "a"], cwd=folder, capture_output=True, check=False)
        if build.returncode == 0 and subprocess.run([folder / "a"], capture_output=True, check=False).returncode == 0:
            return flags
    return []


def scores_in_c(folder, network, readout, inputs, flags, **options):
    """Compile and run: scores (n, C) and predictions (n,)."""
    folder = Path(folder)
    export_c(network, readout, folder / "net.c", **options)
    (folder / "main.c").write_text(DRIVER)
    run(CC, *STRICT, *flags, "net.c", "main.c", "-o", "net", cwd=folder)
    out = np.frombuffer(run(folder / "net", input=inputs.astype(np.uint8).tobytes()), dtype=np.int64)
    table = out.reshape(len(inputs), -1)
    return table[:, :-1], table[:, -1]


def macros(text):
    return {key: int(value) for key, value in re.findall(r"#define NET_(\w+) (\d+)", text)}


width = st.one_of(st.sampled_from([1, 31, 32, 33, 63, 64, 65, 129]), st.integers(1, 140))
DEEP = {"seed": 7, "widths": [8, 2, 9, 150, 140, 9], "levels": 3, "bits": 8, "spread": 1, "classes": 3, "wide": False}
shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "widths": st.lists(width, min_size=2, max_size=4),
        "levels": st.integers(2, 5),
        "bits": st.integers(1, 8),
        "sparsity": st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.95, 0.99]),
        "spread": st.sampled_from([1, 1, 2, 9, 1000, 30000]),
        "classes": st.integers(1, 12),
        "wide": st.booleans(),
    }
)


@needs_compiler
@settings(max_examples=14)
@given(
    shape=shapes,
    layout=st.sampled_from(["auto", "planes", "bitmap", "list"]),
    word_bits=st.sampled_from([32, 64]),
    portable=st.booleans(),
    optimise=st.sampled_from(["-O0", "-O2"]),
)
@example(  # five layers, whose buffers grow towards the end
    shape={**DEEP, "sparsity": 0.3}, layout="planes", word_bits=64, portable=False, optimise="-O0"
)
@example(shape={**DEEP, "sparsity": 0.9}, layout="list", word_bits=32, portable=False, optimise="-O2")
def test_bit_exact(tmp_path_factory, sanitizers, shape, layout, word_bits, portable, optimise):
    network, readout = random_network(**shape)
    inputs = np.random.default_rng(shape["seed"]).integers(0, 2 ** shape["bits"], (6, shape["widths"][0]))
    inputs[0], inputs[1] = 0, 2 ** shape["bits"] - 1
    flags = [optimise, *sanitizers, *(["-DNET_PORTABLE_POPCOUNT"] if portable else [])]
    folder = tmp_path_factory.mktemp("net")
    scores, best = scores_in_c(folder, network, readout, inputs, flags, layout=layout, word_bits=word_bits)
    expected = [oracle(network, readout, x) for x in inputs]
    assert scores.tolist() == expected
    assert best.tolist() == [row.index(max(row)) for row in expected]
    shutil.rmtree(folder)


@given(shape=shapes)
@settings(max_examples=30)
def test_integer_scores_against_the_oracle(shape):
    network, readout = random_network(**shape)
    inputs = np.random.default_rng(1).integers(0, 2 ** shape["bits"], (3, shape["widths"][0]))
    assert integer_scores(network, readout, inputs).tolist() == [oracle(network, readout, x) for x in inputs]


@given(
    values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20).map(np.array),
    stretch=st.sampled_from([1, 3, 1000]),
)
def test_symbols_write_every_value(values, stretch):
    values = values // stretch // 20 * stretch
    found = c_plan._symbols(values)
    for code, value in enumerate(values.tolist()):
        bits = [(int(found.pattern[code]) >> b) & 1 for b in range(len(found.weights))]
        assert found.low + found.step * int(found.u[code]) == value
        assert sum(w * bit for w, bit in zip(found.weights, bits, strict=True)) == int(found.u[code])
    assert int(found.pattern.max()) >> len(found.weights) == 0
    distinct = len(set(values.tolist()))
    assert len(found.weights) == max(1, min(distinct - 1, int(found.u.max()).bit_length()))


@pytest.mark.parametrize(
    ("values", "planes"),
    [(np.arange(256), 8), ([-1, 0, 1], 2), ([1, 0, 1], 1), ([0, 1], 1), ([-1, 1], 1), ([-2, -1, 0, 1, 2], 3), ([7], 1)],
)
def test_planes_of_common_levels(values, planes):
    assert len(c_plan._symbols(np.asarray(values)).weights) == planes


@pytest.mark.parametrize(
    "row", [[0] * 300, [0] * 254 + [1], [0] * 255 + [-1], [1] + [0] * 600 + [1, -1], [-1] * 5, [0] * 510 + [1]]
)
def test_list_entries_are_the_row(row):
    entries, counts = c_plan._entries(np.array([row, row], dtype=np.int8))
    parts = np.split(entries, np.cumsum(counts.ravel())[:-1])
    for k in (0, 1):
        found = [0] * len(row)
        for weight, part in zip((1, -1), parts[2 * k : 2 * k + 2], strict=True):
            column = 0
            for step in part[: counts[k, 0 if weight == 1 else 1]].tolist():
                column += step
                if step != 255:
                    found[column] += weight
        assert found == row


@needs_compiler
@pytest.mark.parametrize("layout", ["planes", "bitmap", "list"])
def test_extreme_rows(tmp_path, sanitizers, layout):
    """A neuron without weights, all -1, gaps longer than an entry of a list, a layer without any weight, a constant."""
    first = np.zeros((4, 400), dtype=np.int8)
    first[1] = -1
    first[2, [0, 256, 399]] = 1, -1, 1
    first[3, 255] = -1
    top = np.array([[-1, 0], [-(10**5), 10], [0, 256], [-(2**63), 2**63 - 1]])
    layers = (
        IntegerLayer(pack(first), np.arange(256, dtype=np.int32), top),
        IntegerLayer(pack(np.zeros((2, 4))), np.array([-1, 0, 1], np.int32), np.array([[0], [1]])),
        IntegerLayer(pack([[1, -1]]), np.array([5, 5], np.int32), np.array([[0]])),
    )
    network = IntegerNetwork(layers, InputQuantiser(8, 0.0, 1.0), np.array([-3, 2**30], np.int32))
    readout = IntegerReadout(np.array([[4, -4]], np.int8), np.array([3, -3], np.int32), np.array([1, -1]))
    inputs = np.random.default_rng(0).integers(0, 256, (5, 400))
    scores, best = scores_in_c(tmp_path, network, readout, inputs, ["-O2", *sanitizers], layout=layout)
    assert scores.tolist() == [oracle(network, readout, x) for x in inputs]
    assert best.tolist() == scores.argmax(axis=1).tolist()


@needs_compiler
@pytest.mark.parametrize("layout", ["planes", "list"])
def test_higher_bits_of_inputs_are_ignored(tmp_path, sanitizers, layout):
    network, readout = random_network(5, (70, 20, 9), bits=3)
    inputs = np.random.default_rng(0).integers(0, 256, (8, 70))
    scores, _ = scores_in_c(tmp_path, network, readout, inputs, ["-O2", *sanitizers], layout=layout)
    assert scores.tolist() == integer_scores(network, readout, inputs & 7).tolist()
    assert (inputs > 7).any()


@needs_compiler
def test_equal_scores_give_the_first_class(tmp_path):
    network, _ = random_network(1, (16, 8), classes=4)
    same = IntegerReadout(np.zeros((8, 4), np.int8), np.ones(4, np.int32), np.array([-5, 3, 3, 2]))
    _, best = scores_in_c(tmp_path, network, same, np.zeros((1, 16)), ["-O2"])
    assert best.tolist() == [1]


STEPS = {
    "odd": rn.activations.step((-0.6, 0.6), (-1.0, 0.0, 1.0)),
    "even": rn.activations.step((-1.0, 1.0), (0.7, -0.7, 0.7)),
    "free": rn.activations.step((-0.5, 0.3, 1.1), (-0.2, 0.1, 0.33, 1.7)),
}


@needs_compiler
@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_a_folded_network(tmp_path, step, sparsity):
    """From step activations to C: the codes of the packed arithmetic, scores within the stated error of the floats."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (60, 100))
    mean = pixels.mean(axis=0)
    scale = float(np.sqrt(((pixels - mean) ** 2).sum(axis=1).mean()))
    net = rn.Network([STEPS[step]] * 2, tau0=1.0)
    packed = [pack(sample_ternary(rows, columns, sparsity, rng)) for rows, columns in [(90, 100), (70, 90)]]
    network = fold(net, packed, sparsity, InputQuantiser(8, 0.0, 1.0), mean=mean, scale=scale)
    weights, intercept = rng.standard_normal((70, 5)), rng.standard_normal(5)
    folded = fold_readout(
        weights, intercept, network.outputs, gain=network.output_unit, offset=network.output_offset, bits=16
    )
    scores, best = scores_in_c(tmp_path, network, folded.readout, pixels, ["-O2"])
    codes = network.codes(pixels)
    sums = network.outputs.astype(np.int64)[codes] @ folded.readout.coefficients.astype(np.int64)
    np.testing.assert_array_equal(scores, sums * folded.readout.multiplier + folded.readout.bias)
    features = network.output_unit * network.outputs[codes] + network.output_offset
    floats = features @ weights + intercept
    assert (np.abs(floats - folded.unit * scores) <= folded.error).all()
    gap = np.sort(floats, axis=1)[:, -1] - np.sort(floats, axis=1)[:, -2]
    sure = gap > 2 * folded.error.max()
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(best[sure], floats.argmax(axis=1)[sure])


# the readout -------------------------------------------------------------------------------------------------------


def exact_scores(weights, intercept, z, scale, gain, offset):
    """scale_c Σ_j (gain z_j + offset) W_jc + b_c in rational numbers."""
    f = [Fraction(gain) * int(v) + Fraction(offset) for v in z]
    out = []
    for c in range(weights.shape[1]):
        total = sum((v * Fraction(float(w)) for v, w in zip(f, weights[:, c], strict=True)), Fraction(0))
        out.append(total * Fraction(float(scale[c])) + Fraction(float(intercept[c])))
    return out


def integer_form(readout, z):
    sums = [sum(int(q) * int(v) for q, v in zip(column, z, strict=True)) for column in readout.coefficients.T]
    return [int(m) * s + int(b) for m, s, b in zip(readout.multiplier, sums, readout.bias, strict=True)]


@given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.sampled_from([(-1, 0, 1), (0, 1), (1, 0, 1), (-3, 4, 100), (-(2**15), 2**15), (5, 5)]),
    bits=st.sampled_from([8, 16]),
    gain=st.sampled_from([1.0, 1e-3, 7e5]),
    offset=st.sampled_from([0.0, -0.3, 1e4]),
    scaled=st.booleans(),
    magnitude=st.sampled_from([1.0, 1e-200, 1e200]),
)
@settings(max_examples=60)
def test_fold_readout_keeps_its_error(seed, outputs, bits, gain, offset, scaled, magnitude):
    rng = np.random.default_rng(seed)
    d, classes = 30, 4
    scale = np.ones(classes)
    if scaled:
        scale = rng.uniform(0.01, 2.0, classes) * magnitude
        weights = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (d, classes)).astype(float)
    else:
        weights = rng.standard_t(3, (d, classes)) * magnitude
        weights[:, 0] = 0.0
    intercept = rng.standard_normal(classes) * magnitude * 100
    options = {"scale": scale} if scaled else {}
    found = fold_readout(weights, intercept, outputs, gain=gain, offset=offset, bits=bits, **options)
    assert found.readout.coefficients.dtype == np.dtype(f"int{bits}")
    z_all = [rng.choice(outputs, d), np.full(d, min(outputs)), np.full(d, max(outputs))]
    if not scaled:  # the inputs that rounding hurts most
        largest = np.abs(weights).max(axis=0) / (2 ** (bits - 1) - 1)
        rest = weights - largest * found.readout.coefficients
        z_all += [np.where(rest[:, c] > 0, max(outputs), min(outputs)) for c in range(classes)]
    worst = np.zeros(classes)
    for z in z_all:
        exact = exact_scores(weights, intercept, z, scale, gain, offset)
        got = integer_form(found.readout, z)
        assert all(abs(score) < 2**63 for score in got)
        gaps = [abs(e - Fraction(found.unit) * g) for e, g in zip(exact, got, strict=True)]
        assert all(gap <= Fraction(float(bound)) for gap, bound in zip(gaps, found.error, strict=True))
        worst = np.maximum(worst, [float(gap) for gap in gaps])
    if not scaled and offset == 0.0 and bits == 8 and max(outputs) > min(outputs):
        # and the bound is not idle: rounding of 8-bit coefficients dominates it and is attained
        assert (worst[1:] >= 0.9 * found.error[1:]).all()


def test_fold_readout_of_a_quantised_readout_only_rounds_factors():
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (500, 10)).astype(np.int8)
    found = fold_readout(weights, rng.standard_normal(10), [-1, 0, 1], scale=rng.uniform(0.5, 1.0, 10) / 127)
    np.testing.assert_array_equal(found.readout.coefficients, weights)
    # multipliers have 29 bits and more here, sums 500 · 64 and less
    assert (found.error < 2.0**-29 * np.abs(weights.astype(int)).sum(axis=0)).all()


@pytest.mark.parametrize("bits", [8, 2])
def test_fold_readout_of_a_fitted_and_rounded_readout(bits):
    rng = np.random.default_rng(2)
    z = rng.integers(-1, 2, (200, 40))
    gain, offset = 0.11, -0.02
    features = gain * z + offset
    readout = fit_ridge(features, np.eye(5)[rng.integers(0, 5, 200)], 0.1)
    mean = features.mean(axis=0)
    rounded = quantise(readout, bits, (features - mean).T @ (features - mean), mean)
    q, scale, intercept = rounded.integers()
    found = fold_readout(q, intercept, [-1, 0, 1], scale=scale, gain=gain, offset=offset)
    np.testing.assert_array_equal(found.readout.coefficients, q)
    got = found.unit * np.array([integer_form(found.readout, row) for row in z], dtype=float)
    # the floats on the left round too: some 40 terms of size 1 and less
    assert (np.abs(rounded.scores(features) - got) <= found.error + 1e-13).all()
    assert found.error.max() < 1e-6


def test_fold_readout_of_a_ternary_readout():
    found = fold_readout([[1, -1], [0, 1]], [0.0, 0.5], [-1, 1], scale=[0.25, 0.5])
    assert found.readout.coefficients.tolist() == [[1, -1], [0, 1]]
    assert [found.unit * v for v in integer_form(found.readout, [1, -1])] == [0.25, -0.5]  # powers of two: exact


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 4}, "`bits` must be 8 or 16"),
        ({"coefficients": [1.0]}, "`coefficients` must have 2 dimension"),
        ({"coefficients": [[np.nan, 1.0]]}, "`coefficients` must be finite"),
        ({"intercept": [0.0]}, "`intercept` must have one entry per column"),
        ({"outputs": [0.5]}, "`outputs` must hold integers"),
        ({"gain": 0.0}, "`gain` must be"),
        ({"offset": np.inf}, "`offset` must be"),
        ({"scale": [1.0]}, "`scale` must hold 2 numbers"),
        ({"scale": [1.0, -1.0]}, "`scale` must hold 2 numbers"),
        ({"scale": [1.0, 1.0], "coefficients": [[0.5, 1.0]]}, "must be integers of 8 bits"),
        ({"scale": [1.0, 1.0], "coefficients": [[200, 1]]}, "must be integers of 8 bits"),
        ({"coefficients": [[1e300, 1.0]], "gain": 1e300}, "inside float64"),
    ],
)
def test_fold_readout_refuses(arguments, message):
    good = {"coefficients": [[1.0, 2.0]], "intercept": [0.0, 0.0], "outputs": [-1, 1]}
    with pytest.raises((ValueError, TypeError), match=message):
        fold_readout(**{**good, **arguments})


# what the files are ------------------------------------------------------------------------------------------------


def test_writes_c_and_header_and_returns_them(tmp_path):
    network, readout = random_network(0, (40, 30, 20))
    paths = export_c(network, readout, tmp_path / "net.c")
    assert paths == [tmp_path / "net.c", tmp_path / "net.h"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.c", "net.h"]
    source, header = (path.read_bytes() for path in paths)
    assert b"\r" not in source + header
    assert max(map(len, source.decode("ascii").splitlines())) <= 120
    assert max(map(len, header.decode("ascii").splitlines())) <= 120
    export_c(network, readout, str(tmp_path / "net.c"))
    assert (tmp_path / "net.c").read_bytes() == source
    assert (tmp_path / "net.h").read_bytes() == header


@pytest.mark.parametrize("layout", ["auto", "planes", "bitmap", "list"])
def test_no_floats_no_libraries_no_heap(tmp_path, layout):
    network, readout = random_network(0, (40, 30, 20), sparsity=0.9)
    text = export_c(network, readout, tmp_path / "net.c", layout=layout)[0].read_text()
    assert set(re.findall(r"#include [<\"](.*?)[>\"]", text)) == {"net.h", "stddef.h"}
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc|calloc|free|memcpy|memset)\b|[0-9]\.[0-9]", code)
    # every name at file level is constant or a function
    assert all(
        line.startswith(("static const ", "static void ", "static int32_t ones", "static word signs", "void ", "int "))
        for line in code.splitlines()
        if re.match(r"[a-z]", line) and not line.startswith("typedef")
    )


@needs_nm
@pytest.mark.parametrize(("layout", "word_bits", "bits"), thinned(["planes", "bitmap", "list"], [32, 64], [4, 8]))
def test_sizes_are_those_of_the_object_file(tmp_path, layout, word_bits, bits):
    if "gcc" not in Path(CC).name:
        pytest.skip("only gcc has -fstack-usage for certain")
    network, readout = random_network(2, (100, 70, 50, 40), bits=bits, sparsity=0.8, spread=4, classes=10)
    export_c(network, readout, tmp_path / "net.c", layout=layout, word_bits=word_bits)
    stated = macros((tmp_path / "net.h").read_text())
    assert (stated["INPUTS"], stated["CLASSES"]) == (100, 10)
    run(CC, "-std=c99", "-O0", "-c", "net.c", "-o", "o0.o", cwd=tmp_path)
    symbols = [line.split() for line in run("nm", "-S", "o0.o", cwd=tmp_path).decode().splitlines()]
    kinds = {fields[-2] for fields in symbols}
    assert kinds <= set("rtTU")  # read-only tables and code: no data, no bss
    assert sum(int(fields[1], 16) for fields in symbols if fields[-2] == "r") == stated["FLASH_BYTES"]
    # the arrays of a prediction, and nothing that grows with the network beside them
    total = {}
    for level in ("-O0", "-O2"):
        run(CC, "-std=c99", level, "-fstack-usage", "-c", "net.c", "-o", "net.o", cwd=tmp_path)
        stacks = [line.split("\t")[1:] for line in (tmp_path / "net.su").read_text().splitlines()]
        assert {kind for _, kind in stacks} == {"static"}
        total[level] = sum(int(size) for size, _ in stacks)
    # beside the arrays: saved registers, spills and alignment of at most seven functions. -O2 lets arrays share room
    assert stated["RAM_BYTES"] <= total["-O0"]
    assert total["-O2"] <= stated["RAM_BYTES"] + 900


@needs_nm
@pytest.mark.parametrize("layout", ["planes", "bitmap", "list"])
def test_needs_no_symbol_from_outside(tmp_path, layout):
    network, readout = random_network(2, (100, 70), sparsity=0.8)
    export_c(network, readout, tmp_path / "net.c", layout=layout)
    flags = ["-std=c99", "-O2", "-ffreestanding", "-DNET_PORTABLE_POPCOUNT"]
    run(CC, *flags, "-c", "net.c", "-o", "net.o", cwd=tmp_path)
    outside = {line.split()[-1] for line in run("nm", "-u", "net.o", cwd=tmp_path).decode().splitlines()}
    # compilers may write loops that set or copy memory as these two, which every toolchain for devices has;
    # the third is how position-independent code finds its tables
    assert outside <= {"memset", "memcpy", "_GLOBAL_OFFSET_TABLE_"}


def test_auto_is_the_smallest(tmp_path):
    for seed, sparsity, expected in [(0, 0.0, "planes"), (1, 0.5, "bitmap"), (2, 0.9, "list")]:
        network, readout = random_network(seed, (300, 200, 100), sparsity=sparsity)
        flash = {}
        for layout in ("auto", "planes", "bitmap", "list"):
            export_c(network, readout, tmp_path / "net.c", layout=layout)
            flash[layout] = macros((tmp_path / "net.h").read_text())["FLASH_BYTES"]
        assert flash["auto"] == min(flash.values()) == flash[expected]


def test_bits_per_weight_are_as_documented():
    """Words 1 or 2 bits a weight; a bitmap 1 + (1 - zeros) bits, a list 8 (1 - zeros) bits and counts."""
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 2, (64, 640)) * 2 - 1
    for zeros, layout, bits in [(0.0, "planes", 1.0), (0.5, "planes", 2.0), (0.5, "bitmap", 1.5), (0.9, "list", 0.8)]:
        some = weights.copy()
        some.ravel()[rng.permutation(some.size)[: int(zeros * some.size)]] = 0
        layer = IntegerLayer(pack(some), np.arange(256, dtype=np.int32), np.zeros((64, 2), np.int64))
        plan = c_plan._plan_layer(layer, 1, layout, 32)
        tables = {table.name: table.nbytes for table in plan.tables}
        bytes_of_weights = sum(tables[key] for key in tables if not key.endswith(("threshold", "count")))
        assert bytes_of_weights == pytest.approx(some.size * bits / 8, abs=1.0)


@pytest.mark.parametrize(
    ("low", "high", "start", "ctype"),
    [
        (0, 255, 0, "uint8_t"), (-1, 127, 0, "int8_t"), (-1, 128, 1, "uint8_t"), (1000, 1255, -1000, "uint8_t"),
        (1000, 1256, 0, "uint16_t"), (70000, 70000 + 65535, -70000, "uint16_t"), (0, 65536, 0, "int32_t"),
        (2 - 2**30, 2**30 - 2, 0, "int32_t"),
    ],
)  # fmt: skip
def test_thresholds_take_the_narrowest_type(low, high, start, ctype):
    found = c_plan._lowered(np.array([[low, high]]))
    assert found[:2] == (start, ctype)
    assert found[2].tolist() == [[low + start, high + start]]


LABELS = ['"quoted"', "back\\slash", "??/", "é", "line\nbreak", "*/", 7, (1, "a"), ""]


@needs_compiler
def test_labels(tmp_path):
    network, readout = random_network(0, (20, 10), classes=len(LABELS))
    export_c(network, readout, tmp_path / "net.c", labels=LABELS)
    (tmp_path / "main.c").write_text(
        '#include "net.h"\n#include <stdio.h>\nint main(void)\n{\n'
        "    for (int c = 0; c < NET_CLASSES; c++) {\n"
        "        fputs(net_labels[c], stdout);\n        putchar(0);\n    }\n"
        "    return 0;\n}\n"
    )
    run(CC, *STRICT, "-trigraphs", "net.c", "main.c", "-o", "net", cwd=tmp_path)
    assert run(tmp_path / "net").decode().split("\0")[:-1] == [str(label) for label in LABELS]


@needs_compiler
def test_two_networks_in_one_program(tmp_path):
    names = ("net", "other")
    for k, name in enumerate(names):
        export_c(*random_network(k, (20, 10), classes=2 + k), tmp_path / f"{name}.c", name=name, labels=range(2 + k))
    (tmp_path / "main.c").write_text(
        '#include "net.h"\n#include "other.h"\nint main(void)\n{\n    const uint8_t x[20] = {0};\n'
        "    return net_predict(x) + other_predict(x) > NET_CLASSES + OTHER_CLASSES;\n}\n"
    )
    run(CC, *STRICT, "net.c", "other.c", "main.c", "-o", "both", cwd=tmp_path)
    run(tmp_path / "both")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++) on the path")
def test_header_from_cpp(tmp_path):
    export_c(*random_network(0, (20, 10)), tmp_path / "net.c")
    (tmp_path / "main.cpp").write_text(
        '#include "net.h"\nint main() { const uint8_t x[20] = {}; return net_predict(x) < 0; }\n'
    )
    run(CC, "-std=c99", "-c", "net.c", "-o", "net.o", cwd=tmp_path)
    run("g++", "main.cpp", "net.o", "-o", "net", cwd=tmp_path)
    run(tmp_path / "net")


@needs_compiler
def test_self_test_passes_and_notices(tmp_path):
    network, readout = random_network(0, (50, 30, 20), classes=4)
    paths = export_c(network, readout, tmp_path / "net.c", self_test=5)
    assert [path.name for path in paths] == ["net.c", "net.h", "net_test.c"]
    run(CC, *STRICT, "-O2", "net.c", "net_test.c", "-o", "test", cwd=tmp_path)
    run(tmp_path / "test")
    bias = readout.bias + np.array([0, 0, 0, 1])
    export_c(network, IntegerReadout(readout.coefficients, readout.multiplier, bias), tmp_path / "net.c")
    run(CC, *STRICT, "-O2", "net.c", "net_test.c", "-o", "test", cwd=tmp_path)
    assert subprocess.run([tmp_path / "test"], check=False).returncode == 1


# all files or none -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
@pytest.mark.parametrize("old", [False, True])
def test_both_files_or_none(tmp_path, monkeypatch, failing, old):
    """The disk is full at the first, second, ... time that bytes are made safe."""
    network, readout = random_network(0, (20, 10))
    if old:
        (tmp_path / "net.c").write_text("old")
        (tmp_path / "net.h").write_text("old")
    calls = []

    def full(number):
        calls.append(number)
        if len(calls) == failing:
            raise OSError("disk full")

    monkeypatch.setattr(_files.os, "fsync", full)
    if failing <= 2:
        with pytest.raises(OSError, match="disk full"):
            export_c(network, readout, tmp_path / "net.c")
        left = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert left == ({"net.c": "old", "net.h": "old"} if old else {})
    else:  # all bytes were safe already twice over: only names were left to change
        assert len(calls) < failing


def test_nothing_is_written_if_a_target_is_a_folder(tmp_path):
    (tmp_path / "net.h").mkdir()
    with pytest.raises(IsADirectoryError, match=r"`path`.*net\.h"):
        export_c(*random_network(0, (20, 10)), tmp_path / "net.c")
    assert [path.name for path in tmp_path.iterdir()] == ["net.h"]


def test_nothing_is_written_if_the_text_cannot_be_made(tmp_path, monkeypatch):
    def broken(self):
        raise MemoryError

    monkeypatch.setattr(c_text.Program, "header_text", broken)
    with pytest.raises(MemoryError):
        export_c(*random_network(0, (20, 10)), tmp_path / "net.c")
    assert os.listdir(tmp_path) == []


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="existing directory"):
        export_c(*random_network(0, (20, 10)), tmp_path / "no" / "net.c")


# bad arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "net.cpp"}, r"`path` must end in \.c"),
        ({"path": ".c"}, r"`path` must end in \.c"),
        ({"path": 'a"b.c'}, r"`path` .*letters"),
        ({"path": "nét.c"}, r"`path` .*letters"),
        ({"name": "1net"}, "`name` must be a C identifier"),
        ({"name": "my-net"}, "`name` must be a C identifier"),
        ({"name": ""}, "`name` must be a C identifier"),
        ({"name": "nét"}, "`name` must be a C identifier"),
        ({"name": "net\n"}, "`name` must be a C identifier"),
        ({"name": "_net"}, "`name` must be a C identifier"),
        ({"name": None}, "`name` must be a C identifier"),
        ({"labels": ["a"]}, "`labels` must hold one label a class, 3"),
        ({"labels": "abc"}, "`labels` must hold one label a class"),
        ({"layout": "trit"}, "`layout` must be one of"),
        ({"word_bits": 16}, "`word_bits` must be 32 or 64"),
        ({"self_test": -1}, "`self_test` must be at least 0"),
        ({"self_test": True}, "`self_test` must be an integer"),
    ],
)
def test_bad_options(tmp_path, options, message):
    network, readout = random_network(0, (20, 10))
    path = tmp_path / options.pop("path", "net.c")
    with pytest.raises((ValueError, TypeError), match=message):
        export_c(network, readout, path, **options)
    assert os.listdir(tmp_path) == []


def changed(network, k, **fields):
    layer = network.layers[k]
    kept = {"weights": layer.weights, "values": layer.values, "thresholds": layer.thresholds}
    layers = list(network.layers)
    layers[k] = IntegerLayer(**{**kept, **fields})
    return IntegerNetwork(tuple(layers), network.quantiser, network.outputs)


def test_bad_networks(tmp_path):
    network, readout = random_network(0, (20, 10, 8))
    layer = network.layers[1]
    cases = [
        (IntegerNetwork(network.layers, InputQuantiser(9, 0.0, 1.0), network.outputs), "1 to 8 bits"),
        (IntegerNetwork(network.layers, InputQuantiser(7, 0.0, 1.0), network.outputs), "inputs of 128 levels"),
        (IntegerNetwork((), network.quantiser, network.outputs), "`network.layers` must not be empty"),
        (IntegerNetwork(network.layers, network.quantiser, network.outputs[:2]), "one entry per level, 3"),
        (IntegerNetwork(network.layers[1:], network.quantiser, network.outputs), "256 levels"),
        (changed(network, 1, weights=pack(np.ones((8, 11)))), "must take 10 inputs"),
        (changed(network, 1, values=layer.values[:2]), "2 values"),
        (changed(network, 1, values=layer.values.astype(float)), r"`network.layers\[1\].values` must be .*integers"),
        (changed(network, 1, thresholds=layer.thresholds[:, ::-1] * [1, -1]), "must ascend"),
        (changed(network, 1, thresholds=np.zeros((8, 0), np.int64)), "non-empty"),
        (changed(network, 1, thresholds=np.tile(np.arange(256), (8, 1))), "at most 256 levels, got 257"),
        (changed(network, 1, values=np.array([0, 1, 2**31 - 1], np.int32)), "sums inside 30 bits"),
    ]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message):
            export_c(bad, readout, tmp_path / "net.c")
    with pytest.raises(TypeError, match=r"`network` must be an rmtntk\.integer\.IntegerNetwork"):
        export_c(None, readout, tmp_path / "net.c")
    assert os.listdir(tmp_path) == []


def test_bad_readouts(tmp_path):
    network, readout = random_network(0, (20, 10))
    q, m, b = readout.coefficients, readout.multiplier, readout.bias
    cases = [
        (IntegerReadout(q.astype(float), m, b), "must be int8 or int16"),
        (IntegerReadout(q[:-1], m, b), "a row a neuron"),
        (IntegerReadout(q, m.astype(np.int64), b), "int32 and int64"),
        (IntegerReadout(q, m[:-1], b), "3 multipliers and biases"),
        (IntegerReadout(q, m, b + (2**63 - 1 - b.max())), "scores inside 64 bits"),
        (None, "must be an IntegerReadout"),
    ]
    for bad, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            export_c(network, bad, tmp_path / "net.c")
    assert os.listdir(tmp_path) == []


def test_integer_scores_refuses_codes_outside():
    network, readout = random_network(0, (20, 10), bits=2)
    for codes in (np.full((1, 20), 4), np.full((1, 20), -1), np.zeros((1, 19), int), np.zeros((1, 20))):
        with pytest.raises(ValueError, match="`codes` must"):
            integer_scores(network, readout, codes)
