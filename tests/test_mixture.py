import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import rmtntk as rn

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
        ([0] * 9 + [1] * 3, ValueError),
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
