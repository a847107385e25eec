import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import rmtntk as rn
from rmtntk.mixture import toeplitz_covariance

EPS = float(np.finfo(np.float64).eps)


def wishart(p, seed, rank=None):
    a = np.random.default_rng(seed).standard_normal((p, rank or p))
    return a @ a.T / (rank or p)


def mixture(structure, p=6):
    """Two classes with different means and covariances of the given structure."""
    means = np.zeros((2, p))
    means[0, 0], means[1, 1] = 2.0, -1.0
    covariances = {
        "scalar": np.array([0.5, 2.0]),
        "diagonal": np.stack([np.linspace(0.2, 1.5, p), np.linspace(2.0, 0.1, p)]),
        "full": np.stack([wishart(p, 0), np.eye(p) + 0.5]),
        "singular": np.stack([wishart(p, 1, rank=2), wishart(p, 2, rank=p - 1)]),
    }[structure]
    return rn.GaussianMixture(means, covariances, [0.3, 0.7])


def dense(mix, a):
    cov = mix.covariances[a]
    return cov * np.eye(mix.n_features) if np.ndim(cov) == 0 else np.diag(cov) if np.ndim(cov) == 1 else cov


STRUCTURES = ["scalar", "diagonal", "full", "singular"]


# What the numbers mean


@pytest.mark.parametrize("structure", STRUCTURES)
def test_population_numbers_by_hand(structure):
    mix = mixture(structure)
    p = mix.n_features
    full = [dense(mix, a) for a in range(2)]
    centre = 0.3 * full[0] + 0.7 * full[1]
    # rtol: sums of p² products
    assert_allclose(mix.traces, [np.trace(c) / p for c in full], rtol=1e-14)
    assert_allclose(mix.tau0, math.sqrt(np.trace(centre) / p), rtol=1e-14)
    assert_allclose(mix.trace_deviations, [np.trace(c - centre) / math.sqrt(p) for c in full], rtol=1e-13, atol=1e-15)
    products = [[np.trace(a @ b) / p for b in full] for a in full]
    assert_allclose(mix.trace_products, products, rtol=1e-13)
    assert (mix.n_classes, mix.n_features, mix.classes) == (2, p, (0, 1))


def test_the_three_structures_agree():
    p = 5
    means, scale = np.ones((2, p)), np.array([0.5, 2.0])
    forms = [scale, scale[:, None] * np.ones(p), scale[:, None, None] * np.eye(p)]
    mixes = [rn.GaussianMixture(means, form) for form in forms]
    for mix in mixes[1:]:
        assert_allclose(mix.tau0, mixes[0].tau0, rtol=4 * EPS)
        assert_allclose(mix.traces, mixes[0].traces, rtol=4 * EPS)
        assert_allclose(mix.trace_products, mixes[0].trace_products, rtol=4 * EPS)
        x, labels = mix.sample(7, 3)
        want, want_labels = mixes[0].sample(7, 3)
        assert (labels == want_labels).all()
        assert_allclose(x @ x.T, want @ want.T, rtol=1e-12)  # an eigenbasis may be rotated or mirrored: norms agree
    assert_allclose(mixes[1].sample(7, 3)[0], mixes[0].sample(7, 3)[0], rtol=4 * EPS)


def test_equal_weights_are_the_default():
    assert rn.GaussianMixture(np.zeros((4, 2)), np.ones(4)).weights.tolist() == [0.25] * 4


@given(
    scale=st.floats(0.1, 10.0),
    p=st.integers(1, 8),
    k=st.integers(1, 4),
    seed=st.integers(0, 1000),
    structure=st.integers(1, 3),
)
def test_laws_of_the_population(scale, p, k, seed, structure):
    rng = np.random.default_rng(seed)
    cov = {
        1: rng.random(k) + 0.1,
        2: rng.random((k, p)) + 0.1,
        3: np.stack([wishart(p, seed + a) for a in range(k)]),
    }[structure]
    weights = rng.random(k) + 0.2
    weights /= weights.sum()
    mix, wide = (rn.GaussianMixture(np.zeros((k, p)), c, weights) for c in (cov, scale * cov))
    assert abs(mix.weights @ mix.trace_deviations) <= 1e-13 * mix.tau0**2 * math.sqrt(
        p
    )  # Σ weights_a t_a = 0, rounding
    assert (mix.trace_products == mix.trace_products.T).all()
    assert np.linalg.eigvalsh(mix.trace_products).min() >= -1e-13 * np.trace(mix.trace_products)  # a Gram matrix
    assert (np.diag(mix.trace_products) >= mix.traces**2 * (1 - 1e-13)).all()  # tr C²/p ≥ (tr C/p)²
    assert_allclose(wide.tau0, math.sqrt(scale) * mix.tau0, rtol=1e-14)
    assert_allclose(wide.trace_products, scale**2 * mix.trace_products, rtol=1e-13)


# Samples


@pytest.mark.parametrize("structure", STRUCTURES)
def test_samples_have_the_stated_means_and_covariances(structure):
    mix = mixture(structure)
    n, p = 60_000, mix.n_features
    x, labels = mix.sample(n, 11)
    assert x.shape == (n, p)
    assert x.dtype == np.float64
    assert labels.dtype == np.int64
    for a in range(2):
        rows = x[labels == a] * math.sqrt(p)
        count, cov = len(rows), dense(mix, a)
        # five standard errors throughout
        assert abs(count - n * mix.weights[a]) <= 5 * math.sqrt(n * 0.3 * 0.7)
        assert (np.abs(rows.mean(axis=0) - mix.means[a]) <= 5 * np.sqrt(np.diag(cov) / count) + 1e-9).all()
        centred = rows - rows.mean(axis=0)
        error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / count)
        assert (np.abs(centred.T @ centred / count - cov) <= 5 * error + 1e-9).all()
        # and the fourth moment says Gaussian: E[z⁴] = 3, its standard error √(96/n)
        lead = np.linalg.eigh(cov)[1][:, -1]
        z = centred @ lead / math.sqrt(lead @ cov @ lead)
        assert abs((z**4).mean() - 3.0) <= 5 * math.sqrt(96.0 / count)


def test_singular_covariances_keep_samples_in_their_range():
    mix = mixture("singular")
    x, labels = mix.sample(50, 0)
    rows = x[labels == 0] * math.sqrt(6) - mix.means[0]
    singular = np.linalg.svd(rows, compute_uv=False)
    assert singular[2] <= 1e-6 * singular[0]  # rank 2; eigh leaves eigenvalues of a few eps, roots of 1e-8


@pytest.mark.parametrize("n", [1, 2, 7, 10, 101])
def test_stratified_counts(n):
    mix = rn.GaussianMixture(np.zeros((3, 2)), np.ones(3), [0.5, 0.3, 0.2])
    x, labels = mix.sample(n, 0, stratified=True)
    counts = np.bincount(labels, minlength=3)
    assert len(x) == n
    assert counts.sum() == n
    assert (np.abs(counts - n * mix.weights) <= 1.0).all()  # two bounds, each rounded by at most ½
    assert (np.diff(labels) >= 0).all()
    if n == 10:
        assert counts.tolist() == [5, 3, 2]


def test_the_seed_decides():
    mix = mixture("full")
    assert (mix.sample(5, 3)[0] == mix.sample(5, np.random.default_rng(3))[0]).all()
    assert not (mix.sample(5, 3)[0] == mix.sample(5, 4)[0]).all()
    rng = np.random.default_rng(3)
    first, second = mix.sample(5, rng)[0], mix.sample(5, rng)[0]
    assert not (first == second).all()


def test_the_global_generator_is_left_alone():
    np.random.seed(0)  # noqa: NPY002 - the global generator must be left alone
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator must be left alone
    mixture("full").sample(5, 3)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002 - the global generator must be left alone


# Estimates


@pytest.mark.parametrize("structure", ["full", "diagonal", "scalar"])
def test_from_data_by_plain_numpy(structure):
    x, labels = mixture("full").sample(40, 5)
    names = np.array(["cat", "dog"])[labels]
    mix = rn.GaussianMixture.from_data(x, names, covariance=structure)
    assert mix.classes == ("cat", "dog")
    assert_allclose(mix.weights, np.bincount(labels) / 40, rtol=EPS)
    for a in range(2):
        rows = x[labels == a] * math.sqrt(6)
        cov = np.cov(rows.T)
        want = {"full": cov, "diagonal": np.diag(cov), "scalar": np.trace(cov) / 6}[structure]
        assert_allclose(mix.covariances[a], want, rtol=1e-12, atol=1e-14)
        assert_allclose(mix.means[a], rows.mean(axis=0), rtol=1e-12, atol=1e-14)
    assert_allclose(mix.tau0**2, mix.weights @ [np.trace(np.cov(x[labels == a].T)) for a in range(2)], rtol=1e-12)


def test_from_data_estimates_trace_products_without_bias():
    # few samples of many features: the plain tr(Ĉ²)/p is dominated by (tr C)²/(n p)
    p, n, draws = 40, 10, 400
    truth = rn.GaussianMixture(np.zeros((2, p)), np.stack([np.linspace(0.5, 1.5, p), np.linspace(2.0, 0.2, p)]))
    unbiased, plain = np.empty((draws, 2, 2)), np.empty((draws, 2, 2))
    for k in range(draws):
        x, labels = truth.sample(2 * n, k, stratified=True)
        mix = rn.GaussianMixture.from_data(x, labels)
        unbiased[k] = mix.trace_products
        flat = mix.covariances.reshape(2, -1)
        plain[k] = flat @ flat.T / p
    error = unbiased.std(axis=0, ddof=1) / math.sqrt(draws)
    # five standard errors of the average
    assert (np.abs(unbiased.mean(axis=0) - truth.trace_products) <= 5 * error).all()
    assert (np.diag(plain.mean(axis=0) - truth.trace_products) > 50 * np.diag(error)).all()
    assert (np.diag(plain.mean(axis=0)) > 3 * np.diag(truth.trace_products)).all()


@pytest.mark.parametrize("structure", ["diagonal", "scalar"])
def test_structured_estimates_converge_to_the_truth(structure):
    p, n = 8, 20_000
    cov = np.array([[0.5] * p, [1.5] * p])
    truth = rn.GaussianMixture(np.zeros((2, p)), cov, [0.4, 0.6])
    x, labels = truth.sample(n, 2)
    mix = rn.GaussianMixture.from_data(x, labels, covariance=structure)
    # a variance is known to √(2/n_a) relative; five of those, and squares of it double
    assert_allclose(mix.tau0, truth.tau0, rtol=5 * math.sqrt(2.0 / (0.4 * n * p)))
    assert_allclose(mix.trace_products, truth.trace_products, rtol=10 * math.sqrt(2.0 / (0.4 * n)))


def dense_structure(kind, p):
    """Two classes that are in truth of the given structure."""
    if kind == "scalar":
        return np.array([0.5, 1.5])
    diagonals = np.stack([np.linspace(0.5, 1.5, p), np.linspace(2.0, 0.2, p)])
    if kind == "diagonal":
        return diagonals
    return np.stack([np.diag(diagonals[0]) + 0.3, toeplitz_covariance(p, 0.6)])


@pytest.mark.parametrize(
    "structure, pooled, n",
    [
        ("scalar", False, (2, 3)),
        ("diagonal", False, (2, 4)),
        ("full", False, (3, 5)),
        ("traces", False, (3, 5)),
        ("scalar", True, (1, 2)),
        ("diagonal", True, (1, 3)),
        ("full", True, (1, 4)),
        ("traces", True, (1, 4)),
    ],
)
def test_estimates_have_no_bias_down_to_the_smallest_samples(structure, pooled, n):
    p, draws = 5, 6000
    cov = dense_structure("full" if structure == "traces" else structure, p)
    if pooled:
        cov[1] = cov[0]
    truth = rn.GaussianMixture(np.ones((2, p)) * [[1.0], [-2.0]], cov)
    labels = np.repeat([0, 1], n)
    rng = np.random.default_rng(0)
    parts = [truth._root(a) for a in range(2)]
    products, traces = np.empty((draws, 2, 2)), np.empty((draws, 2))
    for k in range(draws):
        z = rng.standard_normal((len(labels), p))
        x = np.concatenate(
            [z[labels == a] @ parts[a].T if parts[a].ndim == 2 else z[labels == a] * parts[a] for a in (0, 1)]
        )
        mix = rn.GaussianMixture.from_data(
            (x + truth.means[labels]) / math.sqrt(p), labels, covariance=structure, pooled=pooled
        )
        products[k], traces[k] = mix.trace_products, mix.traces
    # five standard errors of the average, over 7 numbers: a false alarm in 250,000 seeds
    assert (np.abs(traces.mean(axis=0) - truth.traces) <= 5 * traces.std(axis=0) / math.sqrt(draws)).all()
    error = products.std(axis=0) / math.sqrt(draws)
    assert (np.abs(products.mean(axis=0) - truth.trace_products) <= 5 * error).all()
    # and the test has power: the plain tr Ĉ²/p of one degree of freedom is too large by a factor 1 + 2/N at least
    assert (error < 0.05 * truth.trace_products).all()


@pytest.mark.parametrize("counts", [(6, 9), (40, 30), (3, 60)])
@pytest.mark.parametrize("pooled", [False, True])
def test_traces_are_those_of_the_full_estimate_on_both_routes(counts, pooled):
    p = 24  # K p is above the first n and below the others: blocks of the Gram matrix and covariances
    labels = np.repeat([0, 1], counts)
    x = np.random.default_rng(1).standard_normal((len(labels), p)) * np.linspace(0.2, 2.0, p)
    full = rn.GaussianMixture.from_data(x, labels, pooled=pooled)
    slim = rn.GaussianMixture.from_data(x, labels, covariance="traces", pooled=pooled)
    assert slim.covariances.shape == (2,)
    assert_allclose(slim.traces, full.traces, rtol=1e-13)  # sums of n p terms in another order
    assert_allclose(slim.trace_products, full.trace_products, rtol=1e-10)  # and a difference of such sums


def test_traces_form_no_square_matrix():
    p, n = 6000, 12  # p × p would be 288 MB
    x = np.random.default_rng(0).standard_normal((n, p)) / math.sqrt(p)
    tracemalloc.start()
    mix = rn.GaussianMixture.from_data(x, np.arange(n) % 2, covariance="traces")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 10 * x.nbytes
    assert_allclose(mix.traces, 1.0, atol=5 * math.sqrt(2.0 / (5 * p)))  # five standard errors
    # tr Ĉ² has spread of 2/N and less around tr C² = p
    assert_allclose(mix.trace_products, 1.0, atol=1.0)


def test_too_large_covariances_are_refused_before_the_work(monkeypatch):
    monkeypatch.setattr("rmtntk._memory.available_memory", lambda: 1 << 20)
    x, labels = np.ones((6, 3000)), [0, 0, 0, 1, 1, 1]
    with pytest.raises(rn.MemoryLimitError, match="traces"):
        rn.GaussianMixture.from_data(x, labels)
    with pytest.raises(rn.MemoryLimitError, match="sample of 10000 rows"):
        rn.GaussianMixture(np.zeros((1, 3000)), [1.0]).sample(10_000, 0)
    with pytest.raises(rn.MemoryLimitError, match="covariance"):
        toeplitz_covariance(3000, 0.5)


@pytest.mark.parametrize(
    "structure, pooled, labels",
    [
        ("full", False, [0, 0, 0, 1, 1]),
        ("traces", False, [0, 0, 0, 1, 1]),
        ("diagonal", False, [0, 0, 0, 0, 1]),
        ("scalar", False, [0, 0, 0, 0, 1]),
        ("full", True, [0, 0, 1, 2, 3]),
        ("traces", True, [0, 0, 1, 2, 3]),
        ("scalar", True, [0, 1, 2, 3, 4]),
    ],
)
def test_one_sample_less_than_an_estimate_needs(structure, pooled, labels):
    with pytest.raises(ValueError, match=r"`labels` must (give|leave)"):
        rn.GaussianMixture.from_data(GOOD[:5], labels, covariance=structure, pooled=pooled)


def test_pooled_covariance_by_plain_numpy():
    x, labels = mixture("full").sample(40, 5)
    mix = rn.GaussianMixture.from_data(x, labels, pooled=True)
    centred = np.concatenate([x[labels == a] - x[labels == a].mean(axis=0) for a in range(2)])
    for a in range(2):
        assert_allclose(mix.covariances[a], centred.T @ centred * 6 / 38, rtol=1e-12, atol=1e-14)
    assert np.ptp(mix.trace_products) == 0.0
    assert_allclose(mix.trace_deviations, 0.0, atol=1e-14)
    with pytest.raises(TypeError, match="`pooled`"):
        rn.GaussianMixture.from_data(x, labels, pooled=1)


@pytest.mark.parametrize("structure", ["full", "diagonal", "scalar", "traces"])
def test_one_feature_one_class(structure):
    x = np.array([[1.0], [2.0], [4.0], [9.0]])
    mix = rn.GaussianMixture.from_data(x, ["a"] * 4, covariance=structure)
    assert_allclose(mix.traces, [np.var(x, ddof=1)], rtol=1e-14)
    assert_allclose(mix.trace_products, [[np.var(x, ddof=1) ** 2 * 3 / 5]], rtol=1e-13)  # E[s⁴] = σ⁴ (1 + 2/3)
    assert mix.sample(3, 0)[0].shape == (3, 1)
    assert mix.check_assumptions() == ()  # a mean of 4 against a deviation of 3.6: 1.1 < 1.7


@pytest.mark.parametrize("p, n", [(3, 300), (300, 9)])
def test_few_and_many_features(p, n):
    truth = rn.GaussianMixture(np.zeros((1, p)), np.ones(1))
    x, labels = truth.sample(n, 0)
    mix = rn.GaussianMixture.from_data(x, labels)
    assert np.linalg.matrix_rank(mix.covariances[0]) == min(p, n - 1)  # singular where p ≥ n
    # five standard errors √(2/(N p)) of the trace; of tr C²/p, √(4/N² + 8/(N p)) (Gaussian data, C = 1)
    dof = n - 1
    assert_allclose(mix.tau0**2, 1.0, atol=5 * math.sqrt(2 / (dof * p)))
    assert_allclose(mix.trace_products, 1.0, atol=5 * math.sqrt(4 / dof**2 + 8 / (dof * p)))
    again, _ = mix.sample(5, 0)
    assert np.isfinite(again).all()


def test_labels_may_be_any_hashable():
    x = np.random.default_rng(0).standard_normal((12, 3))
    assert rn.GaussianMixture.from_data(x, [(1, 2)] * 6 + [(0, 1)] * 6).classes == ((0, 1), (1, 2))
    assert rn.GaussianMixture.from_data(x, ["b"] * 6 + [1] * 6).classes == ("b", 1)
    assert rn.GaussianMixture.from_data(x, np.arange(12) % 3).n_classes == 3
    assert rn.GaussianMixture.from_data(x, [0] * 12).n_classes == 1


# Bad input


GOOD = np.random.default_rng(0).standard_normal((12, 3))


@pytest.mark.parametrize(
    "means, error",
    [
        (np.zeros(3), ValueError),
        (np.zeros((2, 0)), ValueError),
        (np.full((2, 3), np.nan), ValueError),
        (np.full((2, 3), np.inf), ValueError),
        (np.zeros((2, 3), dtype=complex), TypeError),
        ([["a", "b"]], TypeError),
        (None, TypeError),
    ],
)
def test_bad_means(means, error):
    with pytest.raises(error, match="`means`"):
        rn.GaussianMixture(means, np.ones(2))


@pytest.mark.parametrize(
    "covariances, error, name",
    [
        (np.ones(3), ValueError, "covariances"),
        (1.0, ValueError, "covariances"),
        (np.ones((2, 4)), ValueError, "covariances"),
        (np.ones((2, 3, 4)), ValueError, "covariances"),
        (np.ones((3, 3)), ValueError, "covariances"),
        (np.ones((2, 3, 3, 1)), ValueError, "covariances"),
        ([-1.0, 1.0], ValueError, "covariances"),
        (np.array([[1.0, 1.0, -1e-3], [1.0, 1.0, 1.0]]), ValueError, "covariances"),
        (np.stack([np.eye(3), np.diag([1.0, 1.0, -0.1])]), ValueError, r"covariances\[1\]"),
        (
            np.stack([np.eye(3), np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])]),
            ValueError,
            r"covariances\[1\]",
        ),
        (np.stack([np.triu(np.ones((3, 3))), np.eye(3)]), ValueError, r"covariances\[0\]"),
        (np.zeros(2), ValueError, "covariances"),
        (np.zeros((2, 3, 3)), ValueError, "covariances"),
        ([1.0, np.nan], ValueError, "covariances"),
        (np.ones(2, dtype=complex), TypeError, "covariances"),
        (["a", "b"], TypeError, "covariances"),
        (None, TypeError, "covariances"),
    ],
)
def test_bad_covariances(covariances, error, name):
    with pytest.raises(error, match=f"`{name}`"):
        rn.GaussianMixture(np.zeros((2, 3)), covariances)


@pytest.mark.parametrize(
    "weights, error",
    [
        ([0.5, 0.6], ValueError),
        ([1.0, 0.0], ValueError),
        ([1.5, -0.5], ValueError),
        ([1.0], ValueError),
        ([0.2, 0.3, 0.5], ValueError),
        ([0.5, np.nan], ValueError),
        ([[0.5, 0.5]], ValueError),
        (["a", "b"], TypeError),
        (0.5, ValueError),
    ],
)
def test_bad_weights(weights, error):
    with pytest.raises(error, match="`weights`"):
        rn.GaussianMixture(np.zeros((2, 3)), np.ones(2), weights)


def test_bad_classes_and_products():
    with pytest.raises(ValueError, match="`classes`"):
        rn.GaussianMixture(np.zeros((2, 3)), np.ones(2), classes=("a",))
    with pytest.raises(ValueError, match="`trace_products`"):
        rn.GaussianMixture(np.zeros((2, 3)), np.ones(2), trace_products=np.ones((3, 3)))
    with pytest.raises(ValueError, match="`trace_products`"):
        rn.GaussianMixture(np.zeros((2, 3)), np.ones(2), trace_products=np.full((2, 2), np.nan))


@pytest.mark.parametrize(
    "n, error",
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError), (None, TypeError)],
)
def test_bad_sample_sizes(n, error):
    with pytest.raises(error, match="`n`"):
        mixture("scalar").sample(n, 0)


@pytest.mark.parametrize(
    "rng, error",
    [
        (None, TypeError),
        ("0", TypeError),
        (1.5, TypeError),
        (True, TypeError),
        (-1, ValueError),
        (np.random.RandomState(0), TypeError),
    ],
)
def test_bad_sources_of_randomness(rng, error):
    with pytest.raises(error, match="`rng`"):
        mixture("scalar").sample(3, rng)


@pytest.mark.parametrize(
    "x, error",
    [
        (np.ones(3), ValueError),
        (np.zeros((0, 3)), ValueError),
        (np.full((12, 3), np.nan), ValueError),
        (np.ones((12, 3), dtype=complex), TypeError),
        ("x", TypeError),
    ],
)
def test_from_data_bad_x(x, error):
    with pytest.raises(error, match="`x`"):
        rn.GaussianMixture.from_data(x, [0] * 12)


@pytest.mark.parametrize(
    "labels, error",
    [
        ([0] * 11, ValueError),
        ([0] * 10 + [1] * 2, ValueError),
        ([0.0] * 11 + [math.nan], ValueError),
        ([[0]] * 12, TypeError),
        (np.zeros((12, 2)), TypeError),
        (3, TypeError),
        (None, TypeError),
    ],
)
def test_from_data_bad_labels(labels, error):
    with pytest.raises(error, match="`labels`"):
        rn.GaussianMixture.from_data(GOOD, labels)


@pytest.mark.parametrize("covariance", ["ful", None, 3])
def test_from_data_bad_structure(covariance):
    with pytest.raises(ValueError, match="`covariance`"):
        rn.GaussianMixture.from_data(GOOD, [0] * 12, covariance=covariance)


def test_constant_data_has_no_mixture():
    with pytest.raises(ValueError, match="`covariances`"):
        rn.GaussianMixture.from_data(np.ones((12, 3)), [0] * 12)


def test_a_mixture_is_frozen():
    with pytest.raises(AttributeError):
        mixture("scalar").weights = np.ones(2)


# Samples in place


def by_the_formula(mix, n, seed, stratified=False):
    """The stream of `sample`, one row at a time and with its own square root."""
    rng = np.random.default_rng(seed)
    if stratified:
        bounds = np.rint(np.concatenate([[0.0], np.cumsum(mix.weights)]) * n).astype(int)
        labels = np.repeat(np.arange(mix.n_classes), np.diff(bounds))
    else:
        labels = rng.choice(mix.n_classes, size=n, p=mix.weights)
    z = rng.standard_normal((n, mix.n_features))
    rows = []
    for a, white in zip(labels, z, strict=True):
        if mix.covariances.ndim == 3:
            values, vectors = np.linalg.eigh(mix.covariances[a])
            white = vectors @ (np.sqrt(np.maximum(values, 0.0)) * white)
        else:
            white = np.sqrt(mix.covariances[a]) * white
        rows.append((white + mix.means[a]) / math.sqrt(mix.n_features))
    return np.array(rows), labels


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("stratified", [False, True])
def test_the_stream_of_random_numbers_is_fixed(structure, stratified, monkeypatch):
    monkeypatch.setattr("rmtntk.mixture._CHUNK", 20)  # three rows at a time
    mix = mixture(structure)
    x, labels = mix.sample(17, 4, stratified=stratified)
    want, want_labels = by_the_formula(mix, 17, 4, stratified)
    assert (labels == want_labels).all()
    assert_allclose(x, want, rtol=1e-12, atol=1e-13)  # products of 6 terms


def test_sampling_needs_little_beside_its_result():
    mix = rn.GaussianMixture(np.zeros((1, 784)), np.full((1, 784), 2.0))
    tracemalloc.start()
    x, _ = mix.sample(20_000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= x.nbytes + (48 << 20)  # a chunk of 32 MiB and labels


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_class_may_stay_empty(structure):
    mix = mixture(structure)
    x, labels = mix.sample(1, 0, stratified=True)
    assert labels.tolist() == [1]  # round(.3) = 0 samples of the first class
    assert np.isfinite(x).all()


# Helpers


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.5, 0.99])
@pytest.mark.parametrize("p", [1, 2, 7])
def test_toeplitz_covariance(p, rho):
    want = np.array([[rho ** abs(i - j) for j in range(p)] for i in range(p)])
    cov = toeplitz_covariance(p, rho)
    assert_allclose(cov, want, rtol=4 * EPS)
    assert np.linalg.eigvalsh(cov)[-1] < (1 + abs(rho)) / (1 - abs(rho)) + 1e-12
    # of an autoregressive sequence the inverse is tridiagonal and the determinant (1 − ρ²)^(p−1)
    assert np.linalg.det(cov) == pytest.approx((1 - rho**2) ** (p - 1), rel=1e-9)
    assert rn.GaussianMixture(np.zeros((1, p)), cov[None]).tau0 == 1.0


@pytest.mark.parametrize(
    "p, rho, error, name",
    [(0, 0.5, ValueError, "p"), (2.0, 0.5, TypeError, "p"), (3, 1.0, ValueError, "rho"), (3, "a", TypeError, "rho")],
)
def test_bad_toeplitz_arguments(p, rho, error, name):
    with pytest.raises(error, match=f"`{name}`"):
        toeplitz_covariance(p, rho)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_scaled_by_its_formula(structure):
    mix = mixture(structure)
    centre = 0.3 * dense(mix, 0) + 0.7 * dense(mix, 1)
    for s, r in [(2.0, 0.5), (0.0, 0.0), (-1.0, 1.0)]:
        got = mix.scaled(means=s, deviations=r)
        assert got.covariances.shape == mix.covariances.shape
        assert_allclose(got.means, s * mix.means)
        full = [centre + r * (dense(mix, a) - centre) for a in range(2)]
        for a in range(2):
            assert_allclose(dense(got, a), full[a], rtol=1e-13, atol=1e-14)
        assert_allclose(got.trace_products, [[np.trace(a @ b) / 6 for b in full] for a in full], rtol=1e-12)
        assert_allclose(got.tau0, mix.tau0, rtol=4 * EPS)
        assert_allclose(got.trace_deviations, r * mix.trace_deviations, atol=1e-14)
    same = mix.scaled()
    assert_allclose(same.trace_products, mix.trace_products, rtol=4 * EPS)
    assert (same.weights == mix.weights).all()


def test_scaled_keeps_names_and_estimates_without_bias():
    x, labels = mixture("full").sample(40, 5)
    mix = rn.GaussianMixture.from_data(x, np.array(["a", "b"])[labels])
    got = mix.scaled(deviations=0.5)
    assert got.classes == ("a", "b")
    w = mix.weights  # bilinear in the classes: the estimates stay unbiased
    half = np.array([[0.5 + 0.5 * w[0], 0.5 * w[1]], [0.5 * w[0], 0.5 + 0.5 * w[1]]])
    assert_allclose(got.trace_products, half @ mix.trace_products @ half.T, rtol=1e-13)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_scaled_beyond_positive_semi_definiteness(structure):
    with pytest.raises(ValueError, match="`deviations` must leave"):
        mixture(structure).scaled(deviations=50.0)


@pytest.mark.parametrize("option, value, error", [("means", "1", TypeError), ("deviations", math.nan, ValueError)])
def test_scaled_bad_arguments(option, value, error):
    with pytest.raises(error, match=f"`{option}`"):
        mixture("scalar").scaled(**{option: value})


# Assumptions


def sequence(name, p, size):
    """One class (or two) whose quantity of that name is `size`, at scale 3."""
    means, cov = np.zeros((2, p)), np.ones((2, p))
    if name == "mean":
        means[1, 0] = size
    elif name == "trace":
        cov += size / math.sqrt(p) * np.array([[-1.0], [1.0]])
    elif name == "operator_norm":
        cov[1] = (p - size) / (p - 1)
        cov[1, 2] = size
    return rn.GaussianMixture(3.0 * means, 9.0 * cov, classes=("left", "right"))


@pytest.mark.parametrize("p", [50, 400, 1000])
@pytest.mark.parametrize("name, limit", [("mean", (1.7, 0.25)), ("trace", (4.0, 0.0)), ("operator_norm", (2.5, 0.5))])
def test_limits_and_the_numbers_that_break_them(name, limit, p):
    most = limit[0] * p ** limit[1]
    inside = sequence(name, p, 0.99 * most)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inside.check_assumptions() == ()
    outside = sequence(name, p, 1.01 * most)
    assert outside.check_assumptions(warn=False)
    with pytest.warns(rn.errors.AssumptionWarning, match="class 'right'.*second_order") as caught:
        found = outside.check_assumptions()
    assert caught[0].filename == __file__
    violation = found[-1]
    assert (violation.name, violation.label) == (name, "right")
    assert violation.value == pytest.approx(1.01 * most, rel=1e-9)
    assert violation.limit == pytest.approx(most, rel=1e-9)
    assert f"{1.01 * most:.3g}" in violation.message
    assert len(found) == (2 if name == "trace" else 1)  # both classes deviate


def test_operator_norms_of_full_covariances():
    for p in (40, 100):  # dense eigenvalues and Lanczos
        q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((p, p)))
        for size, count in [(1.02 * 2.5 * math.sqrt(p), 1), (0.98 * 2.5 * math.sqrt(p), 0)]:
            values = np.full(p, (p - size) / (p - 1))
            values[0] = size
            mix = rn.GaussianMixture(np.zeros((1, p)), ((q * values) @ q.T)[None])
            found = mix.check_assumptions(warn=False)
            assert len(found) == count
            if count:
                assert found[0].value == pytest.approx(size, rel=1e-3)  # as documented
    # many equal leading values: the bound by the Frobenius norm does not decide, and the norm is small
    values = np.concatenate([np.full(10, 9.0), np.full(90, 1e-3)])
    assert rn.GaussianMixture(np.zeros((1, 100)), np.diag(values)[None]).check_assumptions() == ()


@pytest.mark.parametrize("p", [1, 2, 3, 10, 100, 1000])
@pytest.mark.parametrize("structure", [1, 2, 3])
def test_white_data_break_no_assumption(p, structure):
    if structure == 3 and p == 1000:
        p = 300
    cov = {1: np.ones(2), 2: np.ones((2, p)), 3: np.stack([np.eye(p)] * 2)}[structure]
    assert rn.GaussianMixture(np.zeros((2, p)), cov).check_assumptions(1, warn=False) != ()  # half a sample a class
    assert rn.GaussianMixture(np.zeros((2, p)), cov).check_assumptions(2) == ()


def test_a_class_that_a_sample_lacks():
    mix = rn.GaussianMixture(np.zeros((2, 5)), np.ones(2), [0.99, 0.01])
    assert mix.check_assumptions(100) == ()
    with pytest.warns(rn.errors.AssumptionWarning, match="n·weight = 0.5"):
        (found,) = mix.check_assumptions(50)
    assert (found.name, found.label, found.value, found.limit) == ("weight", 1, pytest.approx(0.5), 1.0)
    with pytest.raises(TypeError, match="`n`"):
        mix.check_assumptions(5.0)


def test_a_strong_but_admissible_mixture_is_inside():
    p = 2000
    means = np.zeros((2, p))
    means[0, 0] = means[1, 8] = 8.0
    assert rn.GaussianMixture(means, [1.0, 1.0 + 8.0 / math.sqrt(p)]).check_assumptions() == ()


def test_the_warning_says_at_most_three():
    mix = rn.GaussianMixture(np.full((5, 4), 9.0), np.ones(5))
    with pytest.warns(rn.errors.AssumptionWarning, match="and 2 more") as caught:
        assert len(mix.check_assumptions()) == 5
    assert len(caught) == 1


@pytest.mark.filterwarnings("ignore::rmtntk.errors.AssumptionWarning")  # that is what it is about
@pytest.mark.parametrize("acts", [("relu",), ("erf", "erf")])
def test_violations_do_dominate_the_error(acts):
    # at twice each limit the equivalent is 4.8 to 9.5 times as far off as for a white mixture
    p = n = 400
    net = rn.Network(acts, tau0=3.0)

    def error(mix):
        x, labels = mix.sample(n, 0, stratified=True)
        index = np.array(mix.classes)[labels]
        return rn.spectral_error(rn.ck(net, x), rn.equivalent(net, x, index, mixture=mix))

    white = error(sequence("none", p, 0.0))
    for name, size in [("mean", 2 * 1.7 * p**0.25), ("trace", 8.0), ("operator_norm", 5.0 * math.sqrt(p))]:
        mix = sequence(name, p, size)
        assert mix.check_assumptions(warn=False)
        assert error(mix) > 2.0 * white


def test_later_writes_by_the_caller_do_nothing():
    means, covariances, weights = np.zeros((2, 3)), np.ones((2, 3)), np.array([0.5, 0.5])
    products = np.ones((2, 2))
    mix = rn.GaussianMixture(means, covariances, weights, trace_products=products)
    for array in (means, covariances, weights, products):
        array[:] = 9.0
    assert_allclose(mix.means, 0.0)
    assert_allclose(mix.covariances, 1.0)
    assert_allclose(mix.weights, 0.5)
    assert_allclose(mix.trace_products, 1.0)
    assert mix.tau0 == 1.0


def test_pooled_covariances_stay_one():
    x, labels = rn.GaussianMixture(np.zeros((3, 4)), np.ones(3)).sample(60, 0)
    mix = rn.GaussianMixture.from_data(x, labels, pooled=True)
    assert mix.covariances.strides[0] == 0
    assert mix.covariances.shape == (3, 4, 4)


@pytest.mark.parametrize(
    "classes, error, text",
    [
        (("a", "a"), ValueError, "'a' more than once"),
        ((1, True), ValueError, "True more than once"),  # equal, as labels of rows would be
        (([1], [2]), TypeError, "hashable"),
        (("a",), ValueError, "2 classes, got 1"),
        (3, TypeError, "sequence of 2 labels"),
    ],
)
def test_classes_have_names_of_their_own(classes, error, text):
    with pytest.raises(error, match=text):
        rn.GaussianMixture(np.zeros((2, 3)), np.ones(2), classes=classes)
    assert rn.GaussianMixture(np.zeros((2, 3)), np.ones(2), classes=["b", "a"]).classes == ("b", "a")
