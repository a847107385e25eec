"""Ternary networks against integer arithmetic written out here, and against the kernels they stand for."""

import inspect
import math
import pickle
import tracemalloc
import warnings
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import rmtntk as rn
from rmtntk.integer import InputQuantiser, OutOfRangeWarning
from rmtntk.packing import bits_per_weight, pack, sample_ternary
from rmtntk.readout import fit_logistic, fit_ridge, quantise
from rmtntk.ternary import Preprocessing

EPS = float(np.finfo(np.float64).eps)


def integer_data(n, p, seed=0):
    """Pixels: whole numbers, so that a reference can be exact."""
    return np.random.default_rng(seed).integers(0, 256, (n, p)).astype(np.float64)


def classes(n, p, k=3, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    index = np.arange(n) % k
    means = rng.standard_normal((k, p))
    return (means[index] + spread * rng.standard_normal((n, p))) / math.sqrt(p), index


@cache
def example(depth=2, sparsity=0.9, mode="ternary"):
    x, _ = classes(120, 30)
    widths = (90, 70, 50)[:depth]
    return rn.compress(rn.Network(["relu"] * depth), x, widths=widths, sparsity=sparsity, rng=3, activations=mode)


def fitted(mode="ternary"):
    x, index = classes(120, 30)
    model = rn.compress(rn.Network(["relu", "tanh"]), x, widths=(90, 70), sparsity=0.5, rng=3, activations=mode)
    return model.fit(x, index), x, index


# --- Features against a reference


def normal_cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def step_mean_and_variance(act, scale):
    """Mean and variance of a step under N(0, scale²), from the probabilities of its levels."""
    edges = [-math.inf, *(act.thresholds / scale).tolist(), math.inf]
    probability = [normal_cdf(b) - normal_cdf(a) for a, b in pairwise(edges)]
    mean = sum(q * level for q, level in zip(probability, act.levels, strict=True))
    return mean, sum(q * (level - mean) ** 2 for q, level in zip(probability, act.levels, strict=True))


def reference(model, x):
    """(level index of every unit, features) of every layer, hidden sums in int64."""
    tau = float(model.net.tau0)
    gain = model.net.weight_std / math.sqrt(1.0 - model.sparsity)
    weights = [w.astype(np.int64) for w in model.weights]
    u = (x.astype(np.int64) @ weights[0].T).astype(np.float64) * gain  # whole numbers below 2^53: exact
    out = []
    for k, act in enumerate(model.activations):
        scale = model.net.weight_std * tau
        centre, variance = step_mean_and_variance(act, scale)
        tau = math.sqrt(variance)
        index = (u[:, :, None] >= act.thresholds).sum(axis=2)
        out.append((index, (act.levels[index] - centre) / math.sqrt(len(weights[k]))))
        if k + 1 < len(weights):
            sums = np.zeros((len(x), len(weights[k + 1])))
            for level, value in enumerate(act.levels):
                # how many inputs of weight +1 less those of weight −1 are at this level: exact
                sums += (value - centre) * ((index == level).astype(np.int64) @ weights[k + 1].T)
            u = sums * gain / math.sqrt(len(weights[k]))
    return out


def truncated(model, depth):
    """The first layers of a model as a model, whose features are the hidden ones."""
    cut = [net.with_activations(net.activations[:depth]) for net in (model.dense, model.net)]
    return rn.TernaryNetwork(*cut, model.packed[:depth], model.sparsity)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    "activations",
    [("relu",), ("relu", "relu"), ("relu", "gelu", "tanh"), ("abs", "relu"), ("relu", "abs")],
    ids="+".join,
)
def test_features_are_those_of_integer_arithmetic(activations, sparsity):
    x = integer_data(150, 40)
    widths = (130, 100, 70)[: len(activations)]
    model = rn.compress(rn.Network(activations), x, widths=widths, sparsity=sparsity, rng=1, method="layerwise")
    assert model.is_ternary
    for depth, (index, wanted) in enumerate(reference(model, x), start=1):
        got = truncated(model, depth).features(x)
        assert got.shape == wanted.shape
        act = model.activations[depth - 1]
        values = np.unique(got)
        assert len(values) <= len(np.unique(act.levels))
        # Hidden codes exactly: each value back to the level it is nearest to. Ties with a threshold have probability 0.
        levels = (act.levels - step_mean_and_variance(act, model_scale(model, depth))[0]) / math.sqrt(widths[depth - 1])
        nearest = np.abs(got[:, :, None] - levels).argmin(axis=2)
        assert_array_equal(act.levels[nearest], act.levels[index])
        # the centre is computed by two routes: a few roundings of the levels
        assert_allclose(got, wanted, rtol=0, atol=16 * EPS * np.abs(act.levels).max())


def model_scale(model, depth):
    """Scale of the argument of the layer, w τ_{depth − 1}."""
    tau = float(model.net.tau0)
    for act in model.activations[: depth - 1]:
        tau = math.sqrt(step_mean_and_variance(act, model.net.weight_std * tau)[1])
    return model.net.weight_std * tau


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_features_with_a_weight_scale(sparsity):
    x = integer_data(60, 20)
    model = rn.compress(rn.Network(["relu", "tanh"], weight_std=1.7), x, widths=(50, 40), sparsity=sparsity, rng=1)
    assert_allclose(model.features(x), reference(model, x)[-1][1], rtol=0, atol=16 * EPS * 10.0)  # levels below 10


def test_uneven_levels_take_the_general_route():
    # levels that are no A z + B with z in {−1, 0, 1}
    x = integer_data(80, 25)
    tau0 = float(np.sqrt((x**2).sum(axis=1).mean()))
    steps = [rn.activations.step([-0.5 * tau0, tau0], [-1.0, 0.25, 3.0]), rn.activations.step([0.2], [-1.0, 1.0])]
    net = rn.Network(steps, tau0=tau0)
    rng = np.random.default_rng(0)
    packed = [pack(rng.integers(-1, 2, shape)) for shape in ((60, 25), (30, 60))]
    model = rn.TernaryNetwork(net, net, packed, 1.0 / 3.0)
    index, wanted = reference(model, x)[-1]
    got = model.features(x)
    assert_array_equal(got > got.mean(), index == 1)
    assert_allclose(got, wanted, rtol=0, atol=16 * EPS)  # levels ±1


def test_a_layer_of_two_levels_is_exact_too():
    x = integer_data(80, 25)
    net = rn.Network(["heaviside", "sign"], tau0=500.0)
    rng = np.random.default_rng(0)
    packed = [pack(rng.integers(-1, 2, shape)) for shape in ((60, 25), (30, 60))]
    model = rn.TernaryNetwork(net, net, packed, 1.0 / 3.0)
    index, wanted = reference(model, x)[-1]
    assert_array_equal(model.features(x) > 0.0, index == 1)
    assert_allclose(model.features(x), wanted, rtol=0, atol=16 * EPS)  # levels ±1


def test_many_rows_and_wide_layers_go_in_blocks():
    # more than the 4096 samples and 2048 rows of weights that are in work at a time
    x = integer_data(4100, 3)
    model = rn.compress(rn.Network(["relu", "relu"]), x, widths=(2100, 5), rng=1)
    got = model.features(x)
    _, wanted = reference(model, x[-10:])[-1]
    assert_allclose(got[-10:], wanted, rtol=0, atol=16 * EPS * np.abs(model.activations[-1].levels).max())
    assert_array_equal(got[4090:], model.features(x[4090:]))  # the values are levels: exact


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_features_of_a_row_do_not_depend_on_its_company(depth):
    model, (x, _) = example(depth), classes(120, 30)
    together = model.features(x)
    for i in range(0, 120, 7):
        assert_array_equal(together[i : i + 1], model.features(x[i : i + 1]))  # levels, so exact
    order = np.random.default_rng(0).permutation(120)
    assert_array_equal(together[order], model.features(x[order]))
    assert_array_equal(together, model.features(np.asfortranarray(x)))


def test_dense_activations_do_what_the_matrices_say():
    x, _ = classes(50, 30)
    model = rn.compress(rn.Network(["relu", "tanh"]), x, widths=(90, 70), sparsity=0.75, rng=3, activations="dense")
    assert not model.is_ternary
    assert model.match is None
    assert [act.name for act in model.activations] == ["relu", "tanh"]
    tau0 = float(np.sqrt((x**2).sum() / 50))
    first, second = (2.0 * w.astype(float) for w in model.weights)  # (1 − .75)^-1/2
    hidden = (np.maximum(x @ first.T, 0.0) - tau0 / math.sqrt(2.0 * math.pi)) / math.sqrt(90)
    wanted = np.tanh(hidden @ second.T) / math.sqrt(70)  # tanh has mean 0
    assert_allclose(model.features(x), wanted, rtol=0, atol=1e-14)  # sums of 90 terms O(1), features O(0.1)


def test_sparsity_scales_the_weights_that_are_left():
    x = integer_data(20, 30)
    net = rn.Network(["tanh"], tau0=500.0)
    packed = [pack(np.random.default_rng(0).integers(-1, 2, (40, 30)))]
    half, none = (rn.TernaryNetwork(net, net, packed, sparsity).features(x) for sparsity in (0.75, 0.0))
    u = x @ packed[0].unpack().T.astype(float)
    # u / √(1 − ε), through tanh's own rounding
    assert_allclose(half, np.tanh(2.0 * u) / math.sqrt(40), rtol=0, atol=4 * EPS)
    assert_allclose(none, np.tanh(u) / math.sqrt(40), rtol=0, atol=4 * EPS)


@pytest.mark.parametrize("mode", ["ternary", "dense"])
@pytest.mark.parametrize("sparsity, widths", [(0.0, (300,)), (0.7, (300,)), (0.5, (500, 200))])
def test_mean_gram_matrix_is_the_kernel(widths, sparsity, mode):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 500))
    x /= np.linalg.norm(x, axis=1, keepdims=True) / np.array([0.9, 0.95, 1.0, 1.0, 1.05, 1.1])[:, None]
    x[1] = 0.8 * x[0] + 0.4 * x[1]  # a pair that is correlated
    net = rn.Network(["relu"] * len(widths), tau0=1.0)
    first = rn.compress(net, x, widths=widths, sparsity=sparsity, rng=0, activations=mode)
    draws = []
    for seed in range(30):
        packed = [pack(sample_ternary(*layer.shape, sparsity, 100 * seed + k)) for k, layer in enumerate(first.packed)]
        model = rn.TernaryNetwork(first.dense, first.net, packed, sparsity)
        features = model.features(x)
        draws.append(features @ features.T)
    # dense activations of a network that is not ternary keep its own kernel
    assert (model.net.activations == net.activations) == (mode == "dense")
    mean, error = np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1) / math.sqrt(len(draws))
    # five standard errors of 1 to 2 % of the diagonal each; finite widths bias by 1/p and 1/width, a tenth of one
    assert (np.abs(mean - rn.ck(model.net, x)) <= 5.0 * error).all()


# --- Fitting


LABELS = {
    "int": [3, -1, 7],
    "str": ["cat", "dog", "ox"],
    "bool": [False, True],
    "tuple": [(0, 1), (0, 2), (1, 0)],
    "mixed": [0, "one", (2,)],
    "float": [0.5, 1.5, 2.5],
    "bytes": [b"a", b"b"],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_back_as_they_went_in(kind):
    names = LABELS[kind]
    x, index = classes(120, 30, k=len(names), spread=0.2)
    labels = [names[k] for k in index]
    model = rn.compress(rn.Network(["relu"]), x, widths=(200,), rng=0)
    assert model.fit(x, labels) is model
    predicted = model.predict(x)
    assert predicted.shape == (120,)
    assert {type(value) for value in predicted.tolist()} <= {type(name) for name in names}
    assert predicted.tolist() == labels  # classes far apart
    assert model.score(x, labels) == 1.0
    assert set(model.classes) == set(names)
    if kind in ("int", "str", "bool", "float"):
        assert predicted.dtype.kind == {"int": "i", "str": "U", "bool": "b", "float": "f"}[kind]
        array = np.array(labels)
        assert model.score(x, array) == 1.0
        assert_array_equal(model.fit(x, array).predict(x), array)


def test_score_is_the_share_of_right_answers():
    model, x, index = fitted()
    predicted = model.predict(x)
    truth = predicted.copy()
    truth[:30] = (truth[:30] + 1) % 3
    assert model.score(x, truth) == 0.75
    assert model.score(x, truth.tolist()) == 0.75
    with pytest.raises(ValueError, match="`labels` must have one entry per sample, 120, got 119"):
        model.score(x, index[1:])


def test_scores_are_the_readout_of_the_features():
    model, x, _ = fitted()
    scores = model.decision_function(x)
    assert model.readout is not None
    wanted = model.features(x) @ model.readout.coefficients + model.readout.intercept
    assert_array_equal(scores, wanted)
    assert_array_equal(np.array(model.classes)[scores.argmax(axis=1)], model.predict(x))
    # one-hot targets: the scores of a row sum to 1, to the conditioning of the ridge
    assert_allclose(scores.sum(axis=1), 1.0, rtol=1e-9)


def test_penalty_is_used_as_given():
    model, x, index = fitted()
    alpha = 0.37
    model.fit(x, index, alpha=alpha)
    assert model.readout is not None
    assert model.readout.alpha == alpha
    features, targets = model.features(x), np.eye(3)[index]
    centred = features - features.mean(axis=0)
    wanted = np.linalg.solve(centred.T @ centred + alpha * np.eye(70), centred.T @ (targets - targets.mean(axis=0)))
    assert_allclose(model.readout.coefficients, wanted, rtol=0, atol=1e-12)  # condition number about 10
    model.fit(x, index, alpha=0)
    assert model.readout.alpha == 0.0


def test_a_second_fit_replaces_the_first():
    model, x, index = fitted()
    other = ["ab"[k % 2] for k in index]
    assert model.fit(x, other).classes == ["a", "b"]
    assert model.predict(x).dtype.kind == "U"
    assert_array_equal(model.fit(x, index).predict(x), fitted()[0].predict(x))


def test_refusals_of_fit_and_predict():
    model, (x, index) = example(1), classes(120, 30)
    fresh = rn.compress(rn.Network(["relu"]), x, widths=(40,), rng=0)
    with pytest.raises(ValueError, match="no readout yet: call fit"):
        fresh.predict(x)
    with pytest.raises(ValueError, match="no readout yet"):
        fresh.score(x, index)
    with pytest.raises(ValueError, match="at least two classes, got only 'a'"):
        fresh.fit(x, ["a"] * 120)
    with pytest.raises(ValueError, match="`labels` must have one entry per sample, 120, got 3"):
        fresh.fit(x, [0, 1, 2])
    with pytest.raises(ValueError, match="`labels` must not hold NaN"):
        fresh.fit(x, [math.nan] + [0.0, 1.0] * 59 + [0.0])
    with pytest.raises(TypeError, match="hashable"):
        fresh.fit(x, [[0], [1]] * 60)
    for alpha in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="`alpha` must be a finite number"):
            fresh.fit(x, index, alpha=alpha)
    assert fresh.readout is None  # a refused fit leaves nothing
    assert fresh.classes == []
    fresh.fit(x, index)
    for wrong in (x[:, 1:], np.hstack([x, x])):
        with pytest.raises(ValueError, match=f"`x` must have the model's 30 features, got {wrong.shape[1]}"):
            fresh.predict(wrong)
    with pytest.raises(ValueError, match="`x` must have samples in rows"):
        model.features(x[0])
    with pytest.raises(ValueError, match="`x` must be finite"):
        model.features(np.where(np.arange(30) == 3, math.nan, x))


def test_features_that_never_change_cannot_be_fitted():
    # all samples are one sample: its features are constant, whatever their mean rounds to
    x = np.tile(np.linspace(0.1, 1.0, 30), (7, 1))
    model = rn.compress(rn.Network(["relu"]), x, widths=(40,), rng=0)
    with pytest.raises(ValueError, match="the features are the same for every sample"):
        model.fit(x, [0, 1, 0, 1, 0, 1, 0])


# --- Making one


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"widths": (0, 3)}, ValueError, r"`widths\[0\]` must be at least 1, got 0"),
        ({"widths": (3, -1)}, ValueError, r"`widths\[1\]` must be at least 1, got -1"),
        ({"widths": (3,)}, ValueError, "`widths` must have one entry per layer, 2, got 1"),
        ({"widths": (3, 3, 3)}, ValueError, "`widths` must have one entry per layer, 2, got 3"),
        ({"widths": (3.0, 3)}, TypeError, r"`widths\[0\]` must be an integer"),
        ({"widths": (True, 3)}, TypeError, r"`widths\[0\]` must be an integer"),
        ({"widths": 5}, TypeError, "`widths` must be a sequence of 2 integers"),
        ({"widths": "55"}, TypeError, "`widths` must be a sequence of 2 integers"),
        ({"sparsity": 1.0}, ValueError, r"`sparsity` must be a finite number in \[0, 1\), got 1.0"),
        ({"sparsity": -0.1}, ValueError, "`sparsity` must be"),
        ({"sparsity": math.nan}, ValueError, "`sparsity` must be"),
        ({"method": "best"}, ValueError, "`method` must be one of"),
        ({"activations": "binary"}, ValueError, "`activations` must be one of 'ternary', 'dense'"),
        ({"rng": None}, TypeError, "`rng` must be a numpy Generator or an integer seed"),
        ({"rng": -1}, ValueError, "`rng` must be a non-negative seed"),
        ({"x": [1.0, 2.0]}, ValueError, "`x` must have samples in rows"),
        ({"x": [[math.inf, 0.0]]}, ValueError, "`x` must be finite"),
        ({"x": [[0.0, 0.0]]}, ValueError, "`x` must have rows of positive finite norm"),
        ({"x": np.zeros((0, 3))}, ValueError, "`x` must not be empty"),
        ({"net": "relu"}, TypeError, r"`net` must be an rmtntk\.Network"),
        ({"net": rn.Network(["relu"] * 2, bias_std=0.1)}, ValueError, "centered=True and bias_std=0"),
        ({"net": rn.Network(["relu"] * 2, centered=False)}, ValueError, "centered=True and bias_std=0"),
    ],
)
def test_compress_refuses(options, error, words):
    options = {"net": rn.Network(["relu"] * 2), "x": np.eye(3), "widths": (4, 4), "rng": 0, **options}
    with pytest.raises(error, match=words):
        rn.compress(options.pop("net"), options.pop("x"), **options)


def test_compress_says_why_it_cannot():
    silent = rn.activations.polynomial([0.0, -3.0, 0.0, 1.0])
    with pytest.raises(rn.InfeasibleError, match="nothing to match"):
        rn.compress(rn.Network([silent]), np.eye(3), widths=(4,), rng=0)


def test_compress_depends_on_its_seed_alone():
    x, _ = classes(40, 10)
    net = rn.Network(["relu", "relu"])
    models = [
        rn.compress(net, x, widths=(20, 10), sparsity=0.5, rng=rng, method="layerwise")
        for rng in (4, np.random.default_rng(4), 5)
    ]
    first, same, other = (model.weights for model in models)
    assert all((a == b).all() for a, b in zip(first, same, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert all(w.dtype == np.int8 for w in first)
    assert [w.shape for w in first] == [(20, 10), (10, 20)]


def test_scale_of_the_data_is_that_of_the_network():
    x, _ = classes(40, 10)
    tau0 = float(np.sqrt((x**2).sum(axis=1).mean()))
    model = rn.compress(rn.Network(["relu"]), x, widths=(5,), rng=0)
    assert model.net.tau0 == pytest.approx(tau0, rel=1e-14)  # a sum in another order
    assert model.dense.tau0 == model.net.tau0
    assert rn.compress(rn.Network(["relu"], tau0=3.0), x, widths=(5,), rng=0).net.tau0 == 3.0
    by_hand = rn.match(rn.Network(["relu"]), model.net.tau0)
    assert_array_equal(model.activations[0].thresholds, by_hand.activations[0].thresholds)
    fan_in = rn.compress(rn.Network(["relu"], input_scaling="fan_in"), x * math.sqrt(10), widths=(5,), rng=0)
    assert fan_in.net.tau0 == pytest.approx(tau0, rel=1e-14)
    assert_allclose(fan_in.features(x * math.sqrt(10)), model.features(x), rtol=0, atol=1e-14)  # same levels, rescaled


def test_network_must_have_a_scale():
    net = rn.Network(["sign"])
    with pytest.raises(ValueError, match="`net` must have its tau0 set"):
        rn.TernaryNetwork(net, net, [pack([[1]])], 0.0)


# --- What it reports


@pytest.mark.parametrize("mode", ["ternary", "dense"])
def test_report_adds_up(mode):
    x, index = classes(120, 30)
    model = rn.compress(rn.Network(["relu", "elu"]), x, widths=(90, 70), sparsity=0.8, rng=3, activations=mode)
    for stage in ("bare", "fitted", "with preprocessing"):
        if stage == "fitted":
            model.fit(x, index)
        if stage == "with preprocessing":
            model = model.with_preprocessing(np.zeros(30), 1.0)
        report = model.report()
        planes = [layer.nonzero.nbytes + layer.negative.nbytes for layer in model.packed]
        assert planes == [90 * 1 * 16, 70 * 2 * 16]  # rows of whole words: 30 and 90 columns
        assert report["weight_bytes"] == sum(planes)
        readout = 0 if stage == "bare" else 8 * (70 * 3 + 3)
        assert report["readout_bytes"] == readout
        steps = 2 * 8 * (2 + 3) if mode == "ternary" else 2 * 8  # thresholds and levels; both kinks at 0
        extra = 8 * 30 + 8 if stage == "with preprocessing" else 0
        assert report["threshold_bytes"] == steps
        assert report["preprocessing_bytes"] == extra
        assert report["total_bytes"] == model.nbytes == sum(planes) + readout + steps + extra
        assert report["runtime_bytes"] >= sum(planes) + readout
        assert (report["readout"], report["readout_bits"]) == ((None, None) if stage == "bare" else ("ridge", 64))
        assert report["n_weights"] == 90 * 30 + 70 * 90
        zeros = sum(int((w == 0).sum()) for w in model.weights)
        assert report["share_of_zeros"] == pytest.approx(zeros / report["n_weights"], rel=1e-12)
        assert report["widths"] == [90, 70]
        bits = bits_per_weight(report["share_of_zeros"])
        sizes, count = report["weight_bytes_by_packing"], report["n_weights"]
        assert (sizes["float32"], sizes["memory"]) == (4 * count, sum(planes))
        for name in ("2bit", "trit", "bitmap"):
            least = bits[name] * count / 8
            assert least <= sizes[name] <= least + 2 * 24  # headers of two layers, and bytes begun
        assert bits["entropy"] * count / 8 * 0.99 < sizes["bound"] < sizes["entropy"]  # layers have shares of their own
        assert sizes["auto"] <= min(sizes[name] for name in ("2bit", "trit", "bitmap", "entropy"))
        assert sizes["seed"] < 2 * 64
        assert report["neurons_without_weights"] == sum(int((w == 0).all(axis=1).sum()) for w in model.weights)
        assert report["alpha"] == (None if model.readout is None else model.readout.alpha)
        if mode == "ternary":
            assert model.match is not None
            assert report["residual"] == model.match.residual
            assert report["excess"] == model.match.excess


@pytest.mark.parametrize("mode", ["ternary", "dense", "quantised"])
def test_estimated_working_set_is_that_of_a_batch(mode):
    x = integer_data(4096, 200)
    activations = "dense" if mode == "dense" else "ternary"
    model = rn.compress(rn.Network(["relu"] * 2), x, widths=(150, 200), rng=0, activations=activations)
    if mode == "quantised":
        quantiser = InputQuantiser(8, 0.0, 1.0)
        model = rn.TernaryNetwork(model.dense, model.net, model.packed, 0.0, quantiser=quantiser)
        x = x.astype(np.uint8)
    model.fit(x[:100], np.arange(100) % 3)
    model.decision_function(x)  # tables are made at first use
    tracemalloc.start()
    try:
        model.decision_function(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 < model.report()["batch_bytes"] / peak < 2.0  # measured .8 to 1.2


# --- Other readouts, teachers and streams


@pytest.mark.parametrize("bits", [None, 8, 2])
@pytest.mark.parametrize("kind", ["ridge", "logistic"])
@pytest.mark.parametrize("mode", ["ternary", "dense"])
def test_every_readout_learns_is_small_and_survives_a_file(tmp_path, mode, kind, bits):
    x, index = classes(120, 30)
    model = rn.compress(
        rn.Network(["relu", "tanh"]),
        x,
        widths=(90, 70),
        sparsity=0.5,
        rng=3,
        activations=mode,
        method="layerwise" if mode == "ternary" else "tight",
    )
    names = np.array(["a", "b", "c"])[index]
    assert model.fit(x, names, readout=kind, bits=bits) is model
    assert model.score(x, names) > 0.9  # classes far apart
    assert model.readout is not None
    assert (model.readout.kind, model.readout.bits) == (kind, bits or 64)
    size = {None: 8 * 70 * 3 + 24, 8: 70 * 3 + 48, 2: 2 * 27 + 48}[bits]
    assert model.report()["readout_bytes"] == model.readout.nbytes == size
    # the model's readout is the one of its features
    features = model.features(x)
    fit = fit_ridge if kind == "ridge" else fit_logistic
    wanted = fit(features, np.eye(3)[index])
    if bits is not None:
        centred = features - features.mean(axis=0)
        wanted = quantise(wanted, bits, centred.T @ centred, features.mean(axis=0))
    assert_allclose(model.decision_function(x), wanted.scores(features), rtol=0, atol=1e-9)
    if kind == "logistic":
        p = model.predict_proba(x)
        assert_allclose(p.sum(axis=1), 1.0, rtol=1e-14)
        assert_array_equal(p.argmax(axis=1), model.decision_function(x).argmax(axis=1))
        z = np.exp(model.decision_function(x))
        assert_allclose(p, z / z.sum(axis=1, keepdims=True), rtol=1e-12)
    else:
        with pytest.raises(ValueError, match="probabilities need a logistic readout"):
            model.predict_proba(x)
    model.save(tmp_path / "model.npz", packing="trit")
    again = rn.TernaryNetwork.load(tmp_path / "model.npz")
    assert_array_equal(again.decision_function(x), model.decision_function(x))
    assert_array_equal(again.predict(x), model.predict(x))
    assert again.report() == model.report()


@pytest.fixture
def small_batches(monkeypatch):
    """Blocks of 32 rows, and no features held."""
    monkeypatch.setattr("rmtntk.ternary.rows.BATCH", 32)
    monkeypatch.setattr("rmtntk.ternary.fitting._HELD", 0)


@pytest.mark.parametrize("bits", [None, 8, 2])
def test_a_large_fit_is_streamed(tmp_path, small_batches, bits):
    x, index = classes(200, 30)
    model = rn.compress(rn.Network(["relu", "relu"]), x, widths=(90, 40), rng=3, method="layerwise")
    features = model.features(x)
    rows = np.memmap(tmp_path / "x.bin", dtype=np.float64, mode="w+", shape=x.shape)
    rows[:] = x
    seen = []
    counted = lambda z: seen.append(len(z)) or np.eye(3)[[int(np.argmin(((x - r) ** 2).sum(axis=1))) % 3 for r in z]]  # noqa: E731
    for source in (x, rows, x.tolist()):
        model.fit(source, index, bits=bits)
        assert model.readout is not None
        wanted = fit_ridge(features, np.eye(3)[index], model.readout.alpha)
        if bits is not None:
            centred = features - features.mean(axis=0)
            wanted = quantise(wanted, bits, centred.T @ centred, features.mean(axis=0))
        # sums in another order; a rounded coefficient could flip where it lies between two, and none does here
        assert_allclose(model.decision_function(source), wanted.scores(features), rtol=0, atol=1e-9)
    assert_allclose(model.readout.alpha, fit_ridge(features, np.eye(3)[index]).alpha, rtol=2e-3)  # GCV's search
    model.fit(rows, teacher=counted, alpha=0.3)
    assert seen == [32] * 6 + [8]
    assert_allclose(
        model.decision_function(x), fit_ridge(features, np.eye(3)[index], 0.3).scores(features), rtol=0, atol=1e-9
    )
    rows[150, 3] = math.nan
    before = model.readout
    with pytest.raises(ValueError, match=r"`x\[128:160\]` must be finite, got nan at index \(22, 3\)"):
        model.fit(rows, index)
    assert model.readout is before


def test_partial_fits_are_one_fit(small_batches):
    x, index = classes(150, 30, k=4)
    labels = np.array(["d", "a", "c", "b"])[index]
    model = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=3, method="layerwise")
    whole = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=3, method="layerwise").fit(x, labels, 0.2)
    order = np.argsort(index, kind="stable")  # a class after the other: columns come as labels do
    for part in np.split(order, [20, 60, 61, 140]):
        assert model.partial_fit(x[part], labels[part]) is model
    model.finish(0.2)
    assert model.classes == whole.classes == ["a", "b", "c", "d"]
    assert_allclose(model.decision_function(x), whole.decision_function(x), rtol=0, atol=1e-9)
    assert model.predict(x).tolist() == whole.predict(x).tolist()
    # solved at first use by GCV, and again after more samples
    model.partial_fit(x[:30], labels[:30])
    twice = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=3, method="layerwise")
    twice.fit(np.concatenate([x, x[:30]]), np.concatenate([labels, labels[:30]]))
    assert model.readout is not None
    assert twice.readout is not None
    assert model.readout.alpha == pytest.approx(twice.readout.alpha, rel=2e-3)  # GCV's search
    assert_allclose(model.decision_function(x), twice.decision_function(x), rtol=0, atol=1e-3)
    assert model.finish(0.1, bits=2).readout.bits == 2
    # fit starts anew
    model.fit(x, labels, 0.2)
    assert_allclose(model.decision_function(x), whole.decision_function(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="nothing to finish"):
        model.finish()


def test_partial_fit_with_classes_and_a_teacher():
    x, index = classes(120, 30)
    scores = np.random.default_rng(0).standard_normal((120, 3))
    model = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=3, method="layerwise")
    model.partial_fit(x[:50], index[:50], classes=[2, 1, 0, 7]).partial_fit(x[50:], index[50:])
    assert model.finish(0.3).classes == [2, 1, 0, 7]  # as given; 7 has not been seen
    wanted = fit_ridge(model.features(x), np.eye(4)[2 - index], 0.3)
    assert_allclose(model.decision_function(x), wanted.scores(model.features(x)), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="`labels` must be among `classes`, got 5"):
        model.partial_fit(x[:2], [0, 5])
    with pytest.raises(ValueError, match="`classes` must be those of the first call"):
        model.partial_fit(x[:2], [0, 1], classes=[0, 1])
    with pytest.raises(ValueError, match="began with labels and must go on so"):
        model.partial_fit(x, teacher=scores)
    with pytest.raises(ValueError, match="got neither"):
        model.partial_fit(x)
    with pytest.raises(ValueError, match="`x` must be finite"):
        model.partial_fit(np.where(np.arange(30) == 3, math.nan, x), index)
    assert_allclose(model.finish(0.3).decision_function(x), wanted.scores(model.features(x)), rtol=0, atol=1e-9)
    other = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=3, method="layerwise")
    other.partial_fit(x[:9], teacher=scores[:9]).partial_fit(x[9:], teacher=scores[9:])
    whole = fit_ridge(other.features(x), scores, 0.3)
    assert_allclose(other.finish(0.3).decision_function(x), whole.scores(other.features(x)), rtol=0, atol=1e-9)
    lonely = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=3, method="layerwise").partial_fit(x[:5], ["a"] * 5)
    with pytest.raises(ValueError, match="at least two classes, got only 'a': call partial_fit again"):
        lonely.predict(x)
    assert lonely.partial_fit(x[5:], ["b"] * 115).classes == ["a", "b"]
    assert lonely.decision_function(x).shape == (120, 2)


def test_a_teacher_is_matched():
    x, index = classes(120, 30)
    model = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=3, method="layerwise")
    mixing = np.random.default_rng(0).standard_normal((30, 3))
    for teacher in (x @ mixing, lambda z: z @ mixing):
        model.fit(x, teacher=teacher, alpha=0.3)
        assert model.classes == [0, 1, 2]
        wanted = fit_ridge(model.features(x), x @ mixing, 0.3)
        assert_allclose(model.decision_function(x), wanted.scores(model.features(x)), rtol=0, atol=1e-12)
        assert model.fit(x, teacher=teacher, classes=["u", "v", "w"]).predict(x).dtype.kind == "U"
    soft = np.exp(x @ mixing)
    soft /= soft.sum(axis=1, keepdims=True)
    model.fit(x, teacher=soft, alpha=1e-3, readout="logistic")
    # the intercept's part of the minimum: mean probabilities are those of the teacher, to the solver's tolerance
    assert_allclose(model.predict_proba(x).mean(axis=0), soft.mean(axis=0), rtol=0, atol=1e-5)
    assert np.abs(model.predict_proba(x) - soft).mean() < 0.5 * np.abs(soft - soft.mean(axis=0)).mean()
    # one's own one-hot labels as a teacher are the labels
    hard = model.fit(x, index, 0.3).decision_function(x)
    assert_array_equal(model.fit(x, teacher=np.eye(3)[index], alpha=0.3).decision_function(x), hard)


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "pass either `labels` or `teacher`, got neither"),
        ({"labels": [0, 1] * 60, "teacher": np.ones((120, 2))}, "got both"),
        ({"teacher": np.ones((119, 2))}, "`teacher` must have one row per sample, 120"),
        ({"teacher": np.ones((120, 1))}, "`teacher` must have a column for each of at least two classes"),
        ({"teacher": np.ones(120)}, "`teacher` must have samples in rows"),
        ({"teacher": np.full((120, 2), math.nan)}, "`teacher` must be finite"),
        ({"teacher": lambda z: np.ones((3, 2))}, r"`teacher\(x\)` must have one row per sample, 120"),
        ({"teacher": lambda z: np.full((120, 2), math.inf)}, r"`teacher\(x\)` must be finite"),
        ({"teacher": np.ones((120, 2)), "classes": "abc"}, "`classes` must hold at least two labels"),
        ({"teacher": np.ones((120, 2)), "classes": [1, 1]}, "`classes` must hold at least two labels, each once"),
        ({"teacher": np.ones((120, 2)), "classes": [1, 2, 3]}, "`teacher` must have one column per class, 3"),
        ({"teacher": np.ones((120, 2)), "readout": "logistic"}, "`targets` must have rows that sum to 1"),
        ({"labels": [0, 1] * 60, "classes": [1, 2]}, "`labels` must be among `classes`, got 0"),
        ({"labels": [1] * 120, "classes": [1, 2]}, "at least two classes, got only 1"),
        ({"labels": [1, 2] * 60, "classes": [1, 2, 3], "readout": "logistic"}, "column 2 is 0 throughout"),
        ({"labels": [0, 1] * 60, "readout": "tree"}, "`readout` must be one of 'ridge', 'logistic'"),
        ({"labels": [0, 1] * 60, "bits": 4}, "`bits` must be 8, 2 or None, got 4"),
        ({"labels": [0, 1] * 60, "alpha": 0.0, "readout": "logistic"}, "`alpha` must be a finite number in"),
        ({"labels": [0, 1] * 60, "out_of_range": "raise"}, "`out_of_range` must be one of 'error', 'clip'"),
    ],
)
def test_fit_refuses(options, words):
    x, _ = classes(120, 30)
    model = rn.compress(rn.Network(["relu"]), x, widths=(40,), rng=0, method="layerwise")
    with pytest.raises(ValueError, match=words):
        model.fit(x, **options)
    assert model.readout is None


def test_quantised_inputs_and_keys_are_kept(tmp_path):
    x = integer_data(100, 30)
    base = rn.compress(rn.Network(["relu", "relu"]), x, widths=(90, 70), rng=3, method="layerwise")
    quantiser = InputQuantiser(8, 0.0, 1.0)
    model = rn.TernaryNetwork(base.dense, base.net, base.packed, 0.0, quantiser=quantiser)
    raw = x.astype(np.uint8)
    assert_array_equal(model.features(raw), model.features(x))
    assert_array_equal(model.features(raw), base.features(x))  # whole numbers and levels: exact by both routes
    model.fit(raw, np.arange(100) % 3)
    wider = InputQuantiser(8, 5.0, 3.0)  # of raw inputs 3 x + 5
    shifted = model.with_preprocessing(np.full(30, 5.0), 3.0, quantiser=wider)
    assert_array_equal(shifted.predict(3.0 * x + 5.0), model.predict(x))
    with pytest.raises(ValueError, match="pass `quantiser` for the raw ones"):
        model.with_preprocessing(np.zeros(30), 1.0)
    with pytest.raises(ValueError, match="300"):
        model.features(np.full((1, 30), 300.0))
    with pytest.warns(OutOfRangeWarning, match="30"):
        clipped = model.features(np.full((1, 30), 300.0), out_of_range="clip")
    assert_array_equal(clipped, model.features(np.full((1, 30), 255, dtype=np.uint8)))
    with pytest.raises(ValueError, match="`x` must have the model's 30 features, got 29"):
        model.predict(raw[:, 1:])
    model.save(tmp_path / "model.npz")
    again = rn.TernaryNetwork.load(tmp_path / "model.npz")
    assert again.quantiser == quantiser
    assert_array_equal(again.predict(raw), model.predict(raw))


@pytest.mark.parametrize("bits", [None, 2])
def test_export_writes_the_fitted_model(tmp_path, bits):
    x = integer_data(100, 30)
    base = rn.compress(rn.Network(["relu"]), x, widths=(70,), rng=3, method="layerwise")
    model = rn.TernaryNetwork(base.dense, base.net, base.packed, 0.0, quantiser=InputQuantiser(8, 0.0, 1.0))
    with pytest.raises(ValueError, match="no readout yet"):
        model.export_c(tmp_path / "net.c")
    model.fit(x, np.arange(100) % 3, bits=bits)
    files = model.export_c(tmp_path / "net.c")
    assert [path.name for path in files] == ["net.c", "net.h"]
    assert all(path.stat().st_size for path in files)
    base.fit(x, np.arange(100) % 3)
    with pytest.raises(ValueError, match="inputs are not quantised"):
        base.export_c(tmp_path / "other.c")


# --- Preprocessing


def test_preprocessing_is_applied_to_raw_data():
    model, x, _ = fitted()
    mean, scale = np.linspace(-3.0, 5.0, 30), 17.0
    raw = x * scale + mean
    other = model.with_preprocessing(mean, scale)
    assert isinstance(other.preprocessing, Preprocessing)
    assert model.preprocessing is None  # the model itself is unchanged
    assert_array_equal(other.features(raw), model.features((raw - mean) / scale))
    assert_array_equal(other.predict(raw), model.predict(x))
    assert other.summary == model.summary
    assert other.match is model.match


@pytest.mark.parametrize(
    "mean, scale, error, words",
    [
        (np.zeros(29), 1.0, ValueError, "`mean` must have 30 entries, got 29"),
        (np.zeros((30, 1)), 1.0, ValueError, "`mean` must have 1 dimension"),
        (np.full(30, math.nan), 1.0, ValueError, "`mean` must be finite"),
        (np.zeros(30), 0.0, ValueError, "`scale` must be"),
        (np.zeros(30), -2.0, ValueError, "`scale` must be"),
        (np.zeros(30), "1", TypeError, "`scale` must be a real number"),
    ],
)
def test_preprocessing_refuses(mean, scale, error, words):
    with pytest.raises(error, match=words):
        example(1).with_preprocessing(mean, scale)


# --- Files


def assert_same_model(one, other, x):
    assert_array_equal(one.features(x), other.features(x))
    assert all((a == b).all() for a, b in zip(one.weights, other.weights, strict=True))
    assert [act.parameters for act in one.activations] == [act.parameters for act in other.activations]
    assert [act.parameters for act in one.dense.activations] == [act.parameters for act in other.dense.activations]
    assert [act.name for act in one.dense.activations] == [act.name for act in other.dense.activations]
    for field in ("tau0", "weight_std", "bias_std", "centered", "input_scaling"):
        assert getattr(one.net, field) == getattr(other.net, field)
        assert getattr(one.dense, field) == getattr(other.dense, field)
    assert one.sparsity == other.sparsity
    assert one.report() == other.report()
    assert [type(value) for value in one.classes] == [type(value) for value in other.classes]
    assert one.classes == other.classes


@pytest.mark.parametrize("mode", ["ternary", "dense"])
@pytest.mark.parametrize("alpha", [None, 0.0, 2.5])
def test_save_and_load_is_exact(tmp_path, mode, alpha):
    model, x, index = fitted(mode)
    model.fit(x, index, alpha)
    model = model.with_preprocessing(np.full(30, 0.1), 1.0 / 3.0)
    size = model.save(tmp_path / "model.npz")
    assert size == (tmp_path / "model.npz").stat().st_size
    again = rn.TernaryNetwork.load(tmp_path / "model.npz")
    assert_same_model(model, again, x)
    assert_array_equal(model.decision_function(x), again.decision_function(x))
    assert_array_equal(model.predict(x), again.predict(x))
    assert again.predict(x).dtype == model.predict(x).dtype
    assert model.readout is not None
    assert again.readout is not None
    assert (again.readout.alpha, again.readout.gcv) == (model.readout.alpha, model.readout.gcv)
    assert again.match is None
    again.save(tmp_path / "again.npz")
    assert_same_model(model, rn.TernaryNetwork.load(tmp_path / "again.npz"), x)


def test_save_before_fit(tmp_path):
    model, (x, index) = example(3), classes(120, 30)
    model.save(tmp_path / "model.npz")
    again = rn.TernaryNetwork.load(str(tmp_path / "model.npz"))
    assert again.readout is None
    assert again.classes == []
    assert again.preprocessing is None
    assert_same_model(model, again, x)
    again.fit(x, index)  # a loaded model can be fitted
    assert again.score(x, index) > 0.5


@pytest.mark.parametrize("kind", ["int", "str", "bool", "float"])
def test_labels_survive_a_file(tmp_path, kind):
    names = [*LABELS[kind], "ünïcode \ud7ff\n", ""] if kind == "str" else LABELS[kind]
    x, index = classes(120, 30, k=len(names), spread=0.2)
    model = rn.compress(rn.Network(["relu"]), x, widths=(60,), rng=0).fit(x, [names[k] for k in index])
    model.save(tmp_path / "model.npz")
    again = rn.TernaryNetwork.load(tmp_path / "model.npz")
    assert again.classes == model.classes
    assert again.predict(x).tolist() == model.predict(x).tolist()
    assert again.predict(x).dtype == model.predict(x).dtype


@pytest.mark.parametrize(
    "act",
    [
        rn.activations.leaky_relu(0.1),
        rn.activations.polynomial([0.0, 1.0, 0.25]),
        rn.activations.rectified_monomial(2),
        rn.activations.exp(0.5),
        rn.activations.step([-1.0, 1.0], [-1.0, 0.0, 1.0]),
    ],
    ids=lambda act: act.name,
)
def test_activations_with_parameters_survive_a_file(tmp_path, act):
    x, _ = classes(20, 8)
    model = rn.compress(rn.Network([act]), x, widths=(6,), rng=0, activations="dense")
    model.save(tmp_path / "model.npz")
    assert_same_model(model, rn.TernaryNetwork.load(tmp_path / "model.npz"), x)


def bent(t):
    return np.tanh(1.1 * t)


def test_a_model_with_a_custom_activation_goes_by_pickle_unless_it_is_a_lambda(tmp_path):
    x, index = classes(120, 30)
    for function in (bent, lambda t: np.tanh(1.1 * t)):
        net = rn.Network([rn.activations.custom(function)])
        model = rn.compress(net, x, widths=(40,), rng=0, activations="dense").fit(x, index)
        with pytest.raises(ValueError, match="defined with def in a module that can be imported"):
            model.save(tmp_path / "model.npz")
        if function is bent:
            assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))
        else:
            with pytest.raises((pickle.PicklingError, AttributeError)):
                pickle.dumps(model)


def test_what_cannot_be_saved_is_refused_and_leaves_no_file(tmp_path):
    x, index = classes(120, 30)
    wild = rn.activations.custom(lambda t: np.tanh(1.1 * t))
    model = rn.compress(rn.Network([wild]), x, widths=(40,), rng=0)
    with pytest.raises(ValueError, match="a custom activation cannot be written to a file"):
        model.save(tmp_path / "model.npz")
    for kind in ("tuple", "mixed", "bytes"):
        names = LABELS[kind]
        other = rn.compress(rn.Network(["relu"]), x, widths=(40,), rng=0)
        other.fit(x, [names[k % len(names)] for k in index])
        with pytest.raises(ValueError, match="labels must be numbers, strings or booleans"):
            other.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_load_of_a_checked_file_with_an_unknown_header(tmp_path):
    from rmtntk.modelfile import write_model

    write_model(tmp_path / "model.npz", {"something": "else"}, {})
    with pytest.raises(rn.ModelFileError, match="header this rmtntk does not understand"):
        rn.TernaryNetwork.load(tmp_path / "model.npz")
    with pytest.raises(FileNotFoundError):
        rn.TernaryNetwork.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize("first_layer", ["integers", "floats"])
@pytest.mark.parametrize("source", [np.float64, np.uint8])
def test_one_warning_a_call_with_the_number_of_all_batches(small_batches, first_layer, source):
    x = integer_data(100, 30) // 8.0
    mode = "ternary" if first_layer == "integers" else "dense"
    model = rn.compress(rn.Network(["relu"]), x, widths=(40,), rng=0, input_bits=5, activations=mode)
    assert model.quantiser == InputQuantiser(5, 0.0, 1.0)
    index = np.arange(100) % 3
    wild = x.astype(source)
    wild[3, :2], wild[50, 0], wild[99, 4] = 40, 77, 32  # four, in the first, second and last of four batches
    cut = {"out_of_range": "clip"}
    calls = [
        lambda: model.partial_fit(wild, index, **cut),
        lambda: model.partial_fit(wild, teacher=np.eye(3)[index], **cut),
        lambda: model.fit(wild, index, **cut),
        lambda: model.fit(wild, index, readout="logistic", alpha=1.0, **cut),
        lambda: model.features(wild, **cut),
        lambda: model.decision_function(wild, **cut),
        lambda: model.predict_proba(wild, **cut),
        lambda: model.predict(wild, **cut),
        lambda: model.score(wild, index, **cut),
    ]
    for number, call in enumerate(calls):
        if number == 1:
            model = rn.TernaryNetwork(model.dense, model.net, model.packed, 0.0, quantiser=model.quantiser)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        (warning,) = caught
        assert warning.category is OutOfRangeWarning
        assert "range [0, 31]: 4 of 3000 entries outside (largest 77)" in str(warning.message)
        assert (warning.filename, warning.lineno) == (__file__, inspect.getsourcelines(call)[1])


def test_a_warning_made_an_error_leaves_the_model_as_it_was(small_batches):
    x = integer_data(100, 30) // 8.0
    index = np.arange(100) % 3
    model = rn.compress(rn.Network(["relu"]), x, widths=(40,), rng=0, input_bits=5).partial_fit(x, index)
    before = model.decision_function(x)
    for add in (model.fit, model.partial_fit):
        with pytest.raises(OutOfRangeWarning, match=f"{(x < 10).sum()} of 3000 entries outside \\(smallest -10"):
            add(x - 10.0, index, out_of_range="clip")
        assert_array_equal(model.decision_function(x), before)


def test_what_a_fitted_model_refuses():
    x, index = classes(120, 30)
    model = rn.compress(rn.Network(["relu"]), x, widths=(40,), rng=0, input_bits=8).fit(x, index)
    with pytest.raises(ValueError, match="`partial_fit` cannot go on from a readout"):
        model.partial_fit(x[:10], index[:10])
    with pytest.raises(TypeError, match="`quantiser` must be an InputQuantiser"):
        model.with_preprocessing(np.zeros(30), 1.0, quantiser=8)
    with pytest.raises(ValueError, match="out_of_range"):
        model.score(x + 10.0, index)
    with pytest.warns(rn.OutOfRangeWarning):
        assert 0.0 <= model.score(x + 10.0, index, out_of_range="clip") <= 1.0
