import math
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk import _backprop as module
from rmtntk import activations
from rmtntk import finite as sampling
from rmtntk.finite import LAWS

EPS = float(np.finfo(np.float64).eps)


def data(n=4, p=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p)) / math.sqrt(p)


def outputs(finite, parameters, x, tau0):
    """The network's output written out, from one flat vector of all parameters (may be complex)."""
    net = finite.net
    shapes = [array.shape for array in (*finite.weights, *finite.biases, finite.readout)] + [()]
    arrays, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        arrays.append(parameters[start : start + size].reshape(shape))
        start += size
    depth = net.depth
    weights, biases, readout, last = arrays[:depth], arrays[depth : 2 * depth], arrays[2 * depth], arrays[2 * depth + 1]
    features = x if net.input_scaling == "unit" else x / math.sqrt(x.shape[1])
    tau = tau0
    for act, weight, bias in zip(net.activations, weights, biases, strict=True):
        u = net.weight_std * features @ weight.T + net.bias_std * bias
        scale = math.hypot(net.weight_std * tau, net.bias_std)
        m = rn.moments(act, scale)
        features = (COMPLEX.get(act.name, act.function)(u) - (m.mean if net.centered else 0.0)) / math.sqrt(len(weight))
        tau = math.sqrt(m.variance if net.centered else m.second)
    return net.weight_std * features @ readout + net.bias_std * last, features


COMPLEX = {
    "tanh": np.tanh,
    "sin": np.sin,
    "polynomial": lambda u: 1.0 + 2.0 * u - u**2 + 0.5 * u**3,
    "relu": lambda u: np.where(u.real >= 0.0, u, 0.0),
    "leaky_relu": lambda u: np.where(u.real >= 0.0, u, 0.1 * u),
}


def jacobian(finite, x, tau0):
    """By the complex step: derivatives to rounding, no subtraction."""
    parts = [*finite.weights, *finite.biases, finite.readout]
    parameters = np.concatenate([*(array.reshape(-1) for array in parts), np.zeros(1)]).astype(complex)
    columns = []
    for k in range(parameters.size):
        moved = parameters.copy()
        moved[k] += 1e-30j
        columns.append(outputs(finite, moved, x.astype(complex), tau0)[0].imag / 1e-30)
    return np.array(columns).T


NETWORKS = {
    "tanh": rn.Network(["tanh"]),
    "deep": rn.Network(["tanh", "sin", "tanh"]),
    "relu": rn.Network(["relu", "relu"]),
    "leaky": rn.Network([activations.leaky_relu(0.1), "sin"], weight_std=1.3),
    "biased": rn.Network(["tanh", "relu"], bias_std=0.4, weight_std=0.9),
    "uncentred": rn.Network(["relu", "tanh"], centered=False, bias_std=0.2),
    "fan_in": rn.Network(
        [activations.polynomial([1.0, 2.0, -1.0, 0.5]), "tanh"], input_scaling="fan_in", weight_std=1.2
    ),
    "tau0": rn.Network(["relu", "tanh"], tau0=2.0),
}


@pytest.mark.parametrize("sparsity", [0.0, 0.4])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", NETWORKS)
def test_ntk_is_the_gram_matrix_of_the_jacobian(name, law, sparsity):
    net, x, y = NETWORKS[name], data(), data(2, 3, seed=5)
    finite = rn.FiniteNetwork.sample(net, (5, 4, 3)[: net.depth], 3, 1, law=law, sparsity=sparsity)
    unit = x if net.input_scaling == "unit" else x / math.sqrt(3.0)
    tau0 = net.tau0 or math.sqrt((unit**2).sum() / len(x))
    first, second = jacobian(finite, x, tau0), jacobian(finite, y, tau0)
    # weights of unit variance enter as w W/√d: our gradients are those in W times 1, in the biases times b, so that the
    # Jacobian in (W, β, readout, output bias) is taken per unit-variance parameter
    want = first @ first.T
    assert_allclose(finite.ntk(x), want, rtol=0.0, atol=1e-12 * np.abs(want).max())  # sums of a few dozen products
    assert_allclose(finite.ntk(x, y), first @ second.T, rtol=0.0, atol=1e-12 * np.abs(want).max())
    assert_allclose(finite.ntk(x, x), want, rtol=0.0, atol=1e-12 * np.abs(want).max())
    single = finite.ntk(x, y, dtype=np.float32)  # a few dozen roundings; no argument is near a kink
    assert_allclose(single, first @ second.T, rtol=0.0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_ck_written_out(name):
    net, x, y = NETWORKS[name], data(), data(2, 3, seed=5)
    finite = rn.FiniteNetwork.sample(net, (6, 5, 4)[: net.depth], 3, 2)
    unit = x if net.input_scaling == "unit" else x / math.sqrt(3.0)
    tau0 = net.tau0 or math.sqrt((unit**2).sum() / len(x))
    parts = [*finite.weights, *finite.biases, finite.readout]
    flat = np.concatenate([*(array.reshape(-1) for array in parts), np.zeros(1)])
    f, g = outputs(finite, flat, x, tau0)[1], outputs(finite, flat, y, tau0)[1]
    assert_allclose(finite.features(x), f, rtol=0.0, atol=1e-14)
    assert_allclose(finite.ck(x), f @ f.T, rtol=0.0, atol=1e-14)
    assert_allclose(finite.ck(x, y), f @ g.T, rtol=0.0, atol=1e-14)  # y is centred as the training data x
    assert (finite.ck(x) == finite.ck(x).T).all()
    assert finite.widths == (6, 5, 4)[: net.depth]


def test_two_neurons_by_hand():
    net = rn.Network(["relu"], centered=False)
    finite = rn.FiniteNetwork(net, (np.array([[1.0, 0.0], [1.0, -1.0]]),), (np.zeros(2),), np.array([3.0, -1.0]))
    x = np.array([[2.0, 1.0]])
    # u = (2, 1), f = (2, 1)/√2; output = (3·2 − 1)/√2; gradient in W_k: r_k x/√2, in the readout f
    assert_allclose(finite.features(x), [[2.0 / math.sqrt(2.0), 1.0 / math.sqrt(2.0)]], rtol=4 * EPS)
    assert finite.ck(x)[0, 0] == pytest.approx(2.5, rel=4 * EPS)
    assert finite.ntk(x)[0, 0] == pytest.approx(2.5 + 5.0 * (9.0 + 1.0) / 2.0, rel=4 * EPS)


# Sampling


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("law", LAWS)
def test_weights_have_mean_zero_and_variance_one(law, sparsity):
    finite = rn.FiniteNetwork.sample(rn.Network(["relu"]), [200], 500, 3, law=law, sparsity=sparsity)
    w = finite.weights[0].reshape(-1)
    kurtosis = (w**4).mean()
    # five standard errors of a mean over 10⁵ weights, from their own second and fourth moments
    assert abs(w.mean()) <= 5 * math.sqrt(1.0 / w.size)
    assert abs((w**2).mean() - 1.0) <= 5 * math.sqrt((kurtosis - 1.0) / w.size) + 1e-12
    share = (w == 0.0).mean()
    assert abs(share - sparsity) <= 5 * math.sqrt(sparsity * (1.0 - sparsity) / w.size)
    if law in ("ternary", "bernoulli"):
        assert set(np.round(np.unique(np.abs(w[w != 0.0])), 12)) == {round((1.0 - sparsity) ** -0.5, 12)}
    if law == "student" and sparsity == 0.0:
        assert kurtosis > 4.0  # 6 in the population; a Gaussian has 3
    assert finite.readout.shape == (200,)
    assert (finite.biases[0] != 0.0).all()  # sparsity is of the weights


def test_shapes_and_seeds():
    net = rn.Network(["relu", "tanh", "relu"])
    one, two = (rn.FiniteNetwork.sample(net, np.array([5, 4, 3]), 7, rng) for rng in (3, np.random.default_rng(3)))
    assert [w.shape for w in one.weights] == [(5, 7), (4, 5), (3, 4)]
    assert [b.shape for b in one.biases] == [(5,), (4,), (3,)]
    assert one.readout.shape == (3,)
    for a, b in zip(one.weights, two.weights, strict=True):
        assert (a == b).all()
    other = rn.FiniteNetwork.sample(net, [5, 4, 3], 7, 4)
    assert not (one.weights[0] == other.weights[0]).all()
    x = data(6, 7)
    for call in ("features", "ck", "ntk"):
        for dtype in (np.float32, np.float64):
            assert (getattr(one, call)(x, dtype=dtype) == getattr(two, call)(x, dtype=dtype)).all()
    assert one.n_features == 7


@pytest.mark.parametrize("sparsity", [0.0, 0.7])
@pytest.mark.parametrize("law", LAWS)
def test_a_seed_means_the_same_network_in_both_dtypes_and_pieces(law, sparsity, monkeypatch):
    net = rn.Network(["relu", "tanh"])
    options = {"law": law, "sparsity": sparsity}
    whole = rn.FiniteNetwork.sample(net, [40, 30], 20, 3, **options)
    monkeypatch.setattr(sampling, "DRAWN_AT_ONCE", 64)
    pieces = rn.FiniteNetwork.sample(net, [40, 30], 20, 3, **options)
    single = rn.FiniteNetwork.sample(net, [40, 30], 20, 3, **options, dtype="float32")
    for a, b, c in zip(
        (*whole.weights, *whole.biases, whole.readout),
        (*pieces.weights, *pieces.biases, pieces.readout),
        (*single.weights, *single.biases, single.readout),
        strict=True,
    ):
        assert (a == b).all()
        assert c.dtype == np.float32
        # draw and scale by (1 − sparsity)^{-1/2}: two roundings
        assert_allclose(c, a, rtol=2 * float(np.finfo(np.float32).eps))


# Weights from elsewhere


def test_from_arrays_is_the_network_of_these_arrays():
    net = rn.Network(["relu", "tanh"], bias_std=0.3)
    one = rn.FiniteNetwork.sample(net, [5, 4], 3, 0)
    two = rn.FiniteNetwork.from_arrays(net, list(one.weights), tuple(one.biases), one.readout)
    for call in ("features", "ck", "ntk"):
        assert (getattr(one, call)(data()) == getattr(two, call)(data())).all()
    three = rn.FiniteNetwork.from_arrays(net, [w.tolist() for w in one.weights], readout=one.readout.tolist())
    zeros = rn.FiniteNetwork(net, one.weights, tuple(np.zeros(w) for w in (5, 4)), one.readout)
    assert (three.ntk(data()) == zeros.ntk(data())).all()


def test_from_arrays_copies_and_keeps_float32():
    w, r = np.ones((2, 3), dtype=np.float32), np.ones(2)
    finite = rn.FiniteNetwork.from_arrays(rn.Network(["relu"]), [w], readout=r)
    assert finite.weights[0].dtype == np.float32
    assert finite.readout.dtype == np.float64
    w[0, 0], r[0] = 7.0, 7.0
    assert finite.weights[0][0, 0] == finite.readout[0] == 1.0
    ternary = rn.FiniteNetwork.from_arrays(rn.Network(["relu"]), [np.ones((2, 3), dtype=np.int8)])
    assert ternary.weights[0].dtype == np.float64


def test_without_a_readout_there_is_no_ntk():
    finite = rn.FiniteNetwork.from_arrays(rn.Network(["relu"]), [np.ones((2, 3))])
    assert finite.ck(data()).shape == (4, 4)
    with pytest.raises(ValueError, match="`readout`"):
        finite.ntk(data())


@pytest.mark.parametrize(
    "changes, error, name",
    [
        ({"net": "relu"}, TypeError, "`net`"),
        ({"weights": [np.ones((3, 2))]}, ValueError, "`weights`"),
        ({"weights": np.ones((2, 2, 2))}, TypeError, "`weights`"),
        ({"weights": None}, TypeError, "`weights`"),
        ({"weights": [np.ones((3, 2)), np.ones((4, 5))]}, ValueError, r"`weights\[1\]` must have 3 columns"),
        ({"weights": [np.ones(3), np.ones((4, 3))]}, ValueError, r"`weights\[0\]`"),
        ({"weights": [np.ones((0, 2)), np.ones((4, 3))]}, ValueError, r"`weights\[0\]`"),
        ({"weights": [np.full((3, 2), np.nan), np.ones((4, 3))]}, ValueError, r"`weights\[0\]`"),
        ({"weights": [np.ones((3, 2), dtype=complex), np.ones((4, 3))]}, TypeError, r"`weights\[0\]`"),
        ({"biases": [np.ones(3)]}, ValueError, "`biases`"),
        ({"biases": np.ones((2, 3))}, TypeError, "`biases`"),
        ({"biases": [np.ones(3), np.ones(3)]}, ValueError, r"`biases\[1\]` must have 4"),
        ({"biases": [np.ones(3), np.full(4, np.inf)]}, ValueError, r"`biases\[1\]`"),
        ({"readout": np.ones(3)}, ValueError, "`readout` must have 4"),
        ({"readout": np.ones((4, 1))}, ValueError, "`readout`"),
        ({"readout": "abcd"}, TypeError, "`readout`"),
    ],
)
def test_bad_arrays(changes, error, name):
    arguments = {"net": NET, "weights": [np.ones((3, 2)), np.ones((4, 3))], **changes}
    with pytest.raises(error, match=name):
        rn.FiniteNetwork.from_arrays(**arguments)


def test_dtype_of_the_result():
    finite, x = rn.FiniteNetwork.sample(rn.Network(["relu"]), [4], 3, 0), data()
    for call in (finite.ck, finite.ntk):
        assert call(x).dtype == np.float64
        assert call(x, dtype="float32").dtype == np.float32
    assert finite.features(x).dtype == np.float64
    assert finite.features(x, dtype="float32").dtype == np.float32


# float32, batches, memory

EVERY = [
    "relu", activations.leaky_relu(0.3), "abs", "identity", "erf", "gelu", "sin", "cos", "tanh", "sigmoid", "softplus",
    "silu", "elu", "selu", "gaussian", activations.exp(0.5), activations.polynomial([0.5, 1.0, -0.3, 0.1]),
    activations.rectified_monomial(2), activations.custom(np.arctan, derivative=lambda t: 1.0 / (1.0 + t**2)),
]  # fmt: skip


@pytest.mark.parametrize("act", EVERY, ids=str)
@pytest.mark.parametrize("centered", [True, False])
def test_float32_is_close_to_float64(act, centered):
    # The promise of the class; the seed is one where no neuron is within rounding of a kink.
    net = rn.Network([act, act], bias_std=0.3, weight_std=0.9, centered=centered)
    finite, x, y = rn.FiniteNetwork.sample(net, [300, 200], 50, 1), data(30, 50), data(20, 50, seed=5)
    for call in (finite.ck, finite.ntk):
        for pair in ((x, None), (x, y)):
            want, got = call(*pair), call(*pair, dtype=np.float32)
            assert_allclose(got, want, rtol=0.0, atol=4e-6 * call(x).diagonal().max())
    want = finite.features(x)
    assert_allclose(finite.features(x, dtype=np.float32), want, rtol=0.0, atol=5e-6 * np.abs(want).max())


@pytest.mark.parametrize("name", sorted(module.NATIVE))
def test_native_activations_are_exact_in_float32(name):
    made = {"exp": activations.exp(1.0), "exp_square": activations.exp_square(-1.0)}
    act = made.get(name) or activations.get(name)
    t = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 2
    single = float(np.finfo(np.float32).eps)
    for of32, of64 in ((act.function(t), act(t)), (act.derivative_function(t), act.derivative(t))):
        # a few units in the last place of the largest intermediate, the argument's relative rounding included
        assert np.abs(of32 - of64).max() <= 8 * single * max(1.0, np.abs(of64).max())


def test_a_neuron_on_the_other_side_of_a_kink_moves_its_sample_only():
    net = rn.Network(["relu"], tau0=1.0)
    weights = np.random.default_rng(0).standard_normal((100, 3))
    weights[0] = [1.0, -(1.0 + 1e-9), 0.0]  # 0 in float32, below in float64
    finite = rn.FiniteNetwork.from_arrays(net, [weights], readout=np.ones(100))
    x = np.array([[0.7, 0.7, 0.0], [0.1, 0.5, 0.2], [0.3, -0.2, 0.4]])
    gap = np.abs(finite.ntk(x, dtype="float32") - finite.ntk(x))
    assert 1e-3 < gap[0].max() < 2 / 100  # one neuron of 100, ‖x‖² ≈ 1
    assert gap[1:, 1:].max() < 2e-6


def test_float32_stays_float32(monkeypatch):
    # No float64 copy of anything that grows with n² or n Σ d: only the data and pieces of a layer.
    seen = []
    matmul = np.matmul

    def spy(a, b, **options):
        seen.extend([a.dtype, b.dtype])
        return matmul(a, b, **options)

    monkeypatch.setattr(np, "matmul", spy)
    finite = rn.FiniteNetwork.sample(rn.Network(["tanh", "relu"], bias_std=0.1), [8, 7], 5, 0)
    plan = finite._plan(data(6, 5), None, np.dtype(np.float32), None, gradients=True)
    layers = module.layers(finite.net, plan, data(6, 5))
    assert {array.dtype for part in layers for array in part} == {np.dtype(np.float32)}
    finite.ntk(data(6, 5), dtype=np.float32)
    finite.ck(data(6, 5), dtype=np.float32)
    assert len(seen) == 2 * (1 + 2 * 2) + 2
    assert set(seen) == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tile", [4, 512])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 12, 13, 100])
def test_batches_and_tiles_change_rounding_only(batch_size, tile, dtype, monkeypatch):
    net = rn.Network(["relu", "tanh"], bias_std=0.3, input_scaling="fan_in")
    finite, x, y = rn.FiniteNetwork.sample(net, [9, 8], 6, 2), 3.0 * data(13, 6), 3.0 * data(7, 6, seed=5)
    want = {name: (getattr(finite, name)(x), getattr(finite, name)(x, y)) for name in ("ck", "ntk")}
    features = finite.features(x)
    monkeypatch.setattr(module, "TILE", tile)
    monkeypatch.setattr(module, "CHUNK", 20)
    atol = 30 * float(np.finfo(dtype).eps)
    for name, (square, cross) in want.items():
        call, scale = getattr(finite, name), np.abs(square).max()
        got = call(x, dtype=dtype, batch_size=batch_size)
        assert_allclose(got, square, rtol=0.0, atol=atol * scale)
        assert (got == got.T).all()
        assert_allclose(call(x, y, dtype=dtype, batch_size=batch_size), cross, rtol=0.0, atol=atol * scale)
        assert_allclose(call(y, y, dtype=dtype, batch_size=batch_size), call(y), rtol=0.0, atol=atol * scale)
    got = finite.features(x, dtype=dtype, batch_size=batch_size)
    assert_allclose(got, features, rtol=0.0, atol=atol * np.abs(features).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_result_is_symmetric_at_any_size(dtype):
    finite = rn.FiniteNetwork.sample(rn.Network(["tanh", "relu"], bias_std=0.2), [70, 50], 20, 0)
    for n in (1, 2, 63, 511, 512, 513, 700):  # around a tile
        for call in (finite.ck, finite.ntk):
            k = call(data(n, 20), dtype=dtype)
            assert (k == k.T).all()


@pytest.mark.parametrize("kernel", ["ck", "ntk"])
def test_the_workspace_does_not_grow(kernel, monkeypatch):
    monkeypatch.setattr(module, "WORKSPACE", 2**20)
    monkeypatch.setattr(module, "TILE", 64)
    finite = rn.FiniteNetwork.sample(rn.Network(["tanh"] * 2), [50, 50], 20, 0)
    extra = []
    for n in (2500, 5000):
        x = data(n, 20)
        tracemalloc.start()
        result = getattr(finite, kernel)(x, dtype=np.float32)
        extra.append(tracemalloc.get_traced_memory()[1] - result.nbytes)
        tracemalloc.stop()
    # all layers of 5000 samples would take 4.4 MB; the pieces an activation takes in float64 come on top
    assert max(extra) < 2**20 + 8 * module.CHUNK * 4
    assert extra[1] < 1.2 * extra[0]  # batches are equal shares, so not all of one size


def test_nothing_is_kept_between_calls():
    finite, x = rn.FiniteNetwork.sample(rn.Network(["relu"]), [4], 3, 0), data()
    before = finite.ck(x, dtype="float32")
    finite.weights[0][...] *= 2.0
    assert not np.allclose(finite.ck(x, dtype="float32"), before)


@pytest.mark.parametrize("kernel", ["ck", "ntk"])
def test_overflow_is_an_error(kernel):
    finite = rn.FiniteNetwork.sample(rn.Network(["relu", "relu"]), [4, 4], 3, 0)
    x = 1e25 * data()
    assert np.isfinite(getattr(finite, kernel)(x)).all()
    with pytest.raises(ValueError, match=r"float32.*dtype=float64"):
        getattr(finite, kernel)(x, dtype=np.float32)
    blows_up = activations.custom(lambda t: np.where(np.abs(t) > 5.0, np.inf, t), derivative=np.ones_like)
    broken = rn.FiniteNetwork.from_arrays(rn.Network([blows_up], centered=False, tau0=0.1), [[[1.0]]], readout=[1.0])
    with pytest.raises(ValueError, match="not finite"):
        getattr(broken, kernel)([[6.0]])


def test_custom_functions_get_and_may_return_float64():
    seen = []

    def function(t):
        seen.append(t.dtype)
        return np.arctan(t)

    act = activations.custom(function, derivative=lambda t: 1.0 / (1.0 + t**2))
    finite = rn.FiniteNetwork.sample(rn.Network([act]), [40], 3, 0)
    for call in (finite.features, finite.ck, finite.ntk):
        assert call(data(), dtype=np.float32).dtype == np.float32
    assert set(seen) == {np.dtype(np.float64)}


def test_input_is_left_alone():
    finite, x = rn.FiniteNetwork.sample(rn.Network(["relu"], input_scaling="fan_in"), [4], 3, 0), data()
    x.setflags(write=False)
    want = finite.ntk(x)
    assert (finite.ntk(np.asfortranarray(x)) == want).all()
    assert (finite.ntk(x.tolist()) == want).all()


# Monte Carlo: the average over draws against the infinite width


def average(net, widths, x, draws, law, sparsity, kernel):
    values = []
    for seed in range(draws):
        finite = rn.FiniteNetwork.sample(net, widths, x.shape[1], seed, law=law, sparsity=sparsity)
        values.append(getattr(finite, kernel)(x))
    values = np.array(values)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(draws)


@pytest.mark.parametrize("name", ["relu", "tanh", "abs", "erf", "gelu"])
def test_one_gaussian_layer_is_unbiased(name):
    # E over Gaussian weights of one layer is the infinite-width kernel at any width
    net, x = rn.Network([name], weight_std=1.2, bias_std=0.3, tau0=0.9), data(4, 3)
    for kernel in ("ck", "ntk"):
        mean, error = average(net, [50], x, 300, "gaussian", 0.0, kernel)
        want = getattr(rn, kernel)(net, x)
        assert (np.abs(mean - want) <= 5 * error + 1e-9).all(), kernel  # five standard errors


def test_steps_have_the_right_ck():
    net, x = rn.Network([activations.step([-0.4, 0.9], [-1.0, 0.0, 1.0])], tau0=0.9), data(4, 3)
    mean, error = average(net, [100], x, 300, "gaussian", 0.0, "ck")
    assert (np.abs(mean - rn.ck(net, x)) <= 5 * error).all()  # five standard errors


@pytest.mark.parametrize(
    "law, sparsity",
    [("gaussian", 0.0), ("gaussian", 0.5), ("ternary", 0.0), ("ternary", 0.5), ("student", 0.0), ("bernoulli", 0.3)],
)
@pytest.mark.parametrize(
    "options", [{}, {"weight_std": 1.3, "bias_std": 0.2}, {"input_scaling": "fan_in", "centered": False}]
)
def test_wide_networks_approach_the_kernels(law, sparsity, options):
    # every feature enters with weight O(1/√p): the law matters at order 1/p of the kernel only, the width at order 1/d
    p = 150
    x = np.random.default_rng(7).standard_normal((3, p)) / (
        1.0 if options.get("input_scaling") == "fan_in" else math.sqrt(p)
    )
    x[1] += 0.7 * x[0]
    net = rn.Network(["relu", "tanh"], **options)
    for kernel in ("ck", "ntk"):
        mean, error = average(net, [300, 300], x, 24, law, sparsity, kernel)
        want = getattr(rn, kernel)(net, x)
        bias = 4.0 / (p * (1.0 - sparsity)) + 2.0 / 300.0  # the two orders named above, with room
        assert (np.abs(mean - want) <= 5 * error + bias * np.abs(want).max()).all(), kernel


def test_the_deviation_of_one_draw_falls_with_the_width():
    net, x = rn.Network(["tanh"], tau0=1.0), data(5, 4)
    want = rn.ck(net, x)
    widths = [100, 400, 1600, 6400]
    found = [
        np.mean([np.abs(rn.FiniteNetwork.sample(net, [width], 4, seed).ck(x) - want).max() for seed in range(12)])
        for width in widths
    ]
    slope = np.polyfit(np.log(widths), np.log(found), 1)[0]
    assert -0.65 < slope < -0.35  # −½ by the central limit theorem, 12 draws a width


@pytest.mark.parametrize("kernel", ["ck", "ntk"])
def test_deep_networks_approach_the_kernels_like_one_over_the_root_of_the_width(kernel):
    net, x = rn.Network(["tanh", "relu"], tau0=1.0, bias_std=0.2), data(5, 200)
    want = getattr(rn, kernel)(net, x)
    widths = [50, 200, 800]
    found = []
    for width in widths:
        draws = [rn.FiniteNetwork.sample(net, [width, width], 200, seed) for seed in range(16)]
        found.append(np.mean([np.linalg.norm(getattr(draw, kernel)(x) - want) for draw in draws]))
    slope = np.polyfit(np.log(widths), np.log(found), 1)[0]
    assert -0.65 < slope < -0.35  # −½ by the central limit theorem, 16 draws a width


# Bad input

NET = rn.Network(["relu", "relu"])


@pytest.mark.parametrize(
    "changes, error, name",
    [
        ({"net": ["relu"]}, TypeError, "net"),
        ({"net": True}, TypeError, "net"),
        ({"net": None}, TypeError, "net"),
        ({"widths": [3]}, ValueError, "widths"),
        ({"widths": [3, 3, 3]}, ValueError, "widths"),
        ({"widths": []}, ValueError, "widths"),
        ({"widths": [3, 0]}, ValueError, r"widths\[1\]"),
        ({"widths": [3.0, 3]}, TypeError, r"widths\[0\]"),
        ({"widths": [True, 3]}, TypeError, r"widths\[0\]"),
        ({"widths": "33"}, TypeError, "widths"),
        ({"widths": 3}, TypeError, "widths"),
        ({"widths": None}, TypeError, "widths"),
        ({"n_features": 0}, ValueError, "n_features"),
        ({"n_features": 2.0}, TypeError, "n_features"),
        ({"n_features": "2"}, TypeError, "n_features"),
        ({"rng": None}, TypeError, "rng"),
        ({"rng": -1}, ValueError, "rng"),
        ({"rng": 0.5}, TypeError, "rng"),
        ({"law": "cauchy"}, ValueError, "law"),
        ({"law": None}, ValueError, "law"),
        ({"sparsity": 1.0}, ValueError, "sparsity"),
        ({"sparsity": -0.1}, ValueError, "sparsity"),
        ({"sparsity": math.nan}, ValueError, "sparsity"),
        ({"sparsity": "half"}, TypeError, "sparsity"),
        ({"sparsity": True}, TypeError, "sparsity"),
        ({"dtype": "float16"}, ValueError, "dtype"),
        ({"dtype": "banana"}, TypeError, "dtype"),
        ({"net": rn.Network([activations.exp_normalized(), "relu"])}, ValueError, "net"),
    ],
)
def test_bad_sample(changes, error, name):
    arguments = {"net": NET, "widths": [3, 3], "n_features": 2, "rng": 0, **changes}
    positional = [arguments.pop(key) for key in ("net", "widths", "n_features", "rng")]
    with pytest.raises(error, match=f"`{name}`"):
        rn.FiniteNetwork.sample(*positional, **arguments)


@pytest.mark.parametrize("call", ["features", "ck", "ntk"])
@pytest.mark.parametrize(
    "x, error",
    [
        (np.ones(3), ValueError),
        (np.ones((2, 4)), ValueError),
        (np.zeros((0, 3)), ValueError),
        (np.full((2, 3), np.nan), ValueError),
        (np.full((2, 3), np.inf), ValueError),
        (np.ones((2, 3), dtype=complex), TypeError),
        ([["a", "b", "c"]], TypeError),
        (None, TypeError),
        (np.zeros((2, 3)), ValueError),
        (np.full((2, 3), 1e200), ValueError),
    ],
)
def test_bad_x(call, x, error):
    finite = rn.FiniteNetwork.sample(NET, [3, 3], 3, 0)
    with pytest.raises(error, match="`x`"):
        getattr(finite, call)(x)


@pytest.mark.parametrize("call", ["ck", "ntk"])
@pytest.mark.parametrize(
    "y, error",
    [
        (np.ones((2, 4)), ValueError),
        (np.ones(3), ValueError),
        (np.full((2, 3), np.nan), ValueError),
        (np.ones((2, 3), dtype=complex), TypeError),
        ("abc", TypeError),
    ],
)
def test_bad_y(call, y, error):
    finite = rn.FiniteNetwork.sample(NET, [3, 3], 3, 0)
    with pytest.raises(error, match="`y`"):
        getattr(finite, call)(data(), y)


@pytest.mark.parametrize("dtype, error", [("float16", ValueError), ("complex128", ValueError), ("banana", TypeError)])
def test_bad_dtype(dtype, error):
    finite = rn.FiniteNetwork.sample(NET, [3, 3], 3, 0)
    for call in (finite.ck, finite.ntk, finite.features):
        with pytest.raises(error, match="`dtype`"):
            call(data(), dtype=dtype)


@pytest.mark.parametrize("value, error", [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_bad_batch_size(value, error):
    finite = rn.FiniteNetwork.sample(NET, [3, 3], 3, 0)
    for call in (finite.ck, finite.ntk, finite.features):
        with pytest.raises(error, match="`batch_size`"):
            call(data(), batch_size=value)


def test_jumps_have_no_empirical_ntk():
    jump = activations.custom(lambda t: np.where(t > 0.5, 1.0, 0.0), breakpoints=(0.5,), derivative=np.zeros_like)
    for act in ("sign", activations.step([0.0], [0.0, 1.0]), jump):
        finite = rn.FiniteNetwork.sample(rn.Network([act]), [3], 3, 0)
        assert finite.ck(data()).shape == (4, 4)
        with pytest.raises(ValueError, match="without jumps"):
            finite.ntk(data())


def test_a_custom_activation_needs_its_derivative():
    calls = []

    def function(t):
        calls.append(t.size)
        return np.tanh(t)

    finite = rn.FiniteNetwork.sample(rn.Network([activations.custom(function)]), [3], 3, 0)
    assert finite.ck(data()).shape == (4, 4)
    calls.clear()
    with pytest.raises(ValueError, match="`derivative`"):
        finite.ntk(data())
    assert not calls  # before any work
