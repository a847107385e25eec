"""Readouts against normal equations, criteria written out with matrices, Newton's method and exhaustive search."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rmtntk.errors import ConvergenceError
from rmtntk.readout import StreamingRidge, fit_logistic, fit_ridge, quantise, restore, softmax
from rmtntk.readout.logistic import _folds

EPS = float(np.finfo(np.float64).eps)
SHAPES = [(40, 7), (40, 39), (12, 30), (30, 30), (200, 5), (5, 200)]  # more samples than features, and fewer


def problem(n, d, k=3, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d)) * rng.uniform(0.5, 2.0, d) + rng.uniform(-3.0, 3.0, d)
    targets = features @ rng.standard_normal((d, k)) / math.sqrt(d) + noise * rng.standard_normal((n, k)) + 2.0
    return features, targets


def augmented(features, targets, alpha):
    """Coefficients and intercept from the normal equations of [F, 1] with the intercept not penalised."""
    n, d = features.shape
    design = np.hstack([features, np.ones((n, 1))])
    penalty = np.diag([*[alpha] * d, 0.0])
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ targets)
    return solution[:-1], solution[-1]


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("n, d", SHAPES)
def test_solves_the_augmented_normal_equations(n, d, alpha):
    features, targets = problem(n, d)
    ridge = fit_ridge(features, targets, alpha)
    coefficients, intercept = augmented(features, targets, alpha)
    assert ridge.alpha == alpha
    assert ridge.coefficients.shape == (d, 3)
    assert ridge.intercept.shape == (3,)
    # both routes square the condition number of [F, 1], at most 1e3 here beside the penalty: 1e6 · 1e2 eps / alpha
    tolerance = 1e-9 / min(alpha, 1.0) * 1e-1
    assert_allclose(ridge.coefficients, coefficients, rtol=0, atol=tolerance * np.abs(coefficients).max())
    assert_allclose(ridge.intercept, intercept, rtol=0, atol=tolerance * np.abs(targets).max())


@pytest.mark.parametrize("n, d", [(40, 7), (100, 60), (12, 30), (5, 200)])
def test_no_penalty_is_least_squares(n, d):
    features, targets = problem(n, d)
    ridge = fit_ridge(features, targets, 0.0)
    centred = features - features.mean(axis=0)
    # for fewer samples than features, the solution of least norm
    coefficients = np.linalg.lstsq(centred, targets - targets.mean(axis=0), rcond=1e-10)[0]
    # the Gram matrix squares a condition number below 100
    assert_allclose(ridge.coefficients, coefficients, rtol=0, atol=1e-10 * np.abs(coefficients).max())
    assert_allclose(ridge.intercept, targets.mean(axis=0) - features.mean(axis=0) @ coefficients, atol=1e-9)
    assert ridge.alpha == 0.0
    assert ridge.gcv == math.inf
    if n <= d:  # interpolates, to the same rounding
        assert_allclose(features @ ridge.coefficients + ridge.intercept, targets, rtol=0, atol=1e-9)


def criterion(features, targets, alpha):
    """GCV from its definition: n ‖(I − H) Y‖² / (n − 1 − tr H)² per target, with the hat matrix written out."""
    n, d = features.shape
    centred, y = features - features.mean(axis=0), targets - targets.mean(axis=0)
    if n < d:
        hat = np.linalg.solve(centred @ centred.T + alpha * np.eye(n), centred @ centred.T)
    else:
        hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(d), centred.T)
    misfit = ((y - hat @ y) ** 2).sum()
    return n * misfit / (n - 1 - np.trace(hat)) ** 2 / targets.shape[1]


@pytest.mark.parametrize("alpha", [0.03, 1.0, 300.0])
@pytest.mark.parametrize("n, d", SHAPES)
def test_criterion_is_its_definition(n, d, alpha):
    features, targets = problem(n, d)
    # (I − H) Y and n − 1 − tr H lose what alpha over the top eigenvalue (1e-5 at least) is small: 1e5 · 1e2 eps
    assert_allclose(fit_ridge(features, targets, alpha).gcv, criterion(features, targets, alpha), rtol=1e-8)


@pytest.mark.parametrize("n, d, rank", [(40, 100, 5), (30, 40, 28), (6, 20, 2), (100, 20, 5), (21, 20, 3)])
def test_criterion_of_features_of_low_rank(n, d, rank):
    # repeated samples or features: what they cannot reach belongs to the misfit and to the degrees of freedom
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))
    targets = features @ rng.standard_normal((d, 2)) / math.sqrt(d) + 3.0 * rng.standard_normal((n, 2))
    for alpha in (0.1, 10.0):
        # tr H of the explicit matrix is good to the condition number, 1e4, times eps, over n − 1 − tr H of at least 1
        assert_allclose(fit_ridge(features, targets, alpha).gcv, criterion(features, targets, alpha), rtol=1e-8)
    ridge = fit_ridge(features, targets)
    top = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)[0] ** 2
    least = min(criterion(features, targets, alpha) for alpha in top * np.geomspace(1e-5, 1e2, 80))
    assert ridge.gcv <= least * (1 + 1e-6)  # flat at the minimum
    assert_allclose(ridge.gcv, criterion(features, targets, ridge.alpha), rtol=1e-6)  # conditioning, as above


# the last six have at least as many features as samples less one: without a penalty they fit anything
NOISY = [(40, 7, 0.3), (40, 39, 3.0), (200, 5, 10.0), (12, 30, 1.0), (60, 60, 2.0), (61, 60, 2.0), (40, 60, 3.0)]
NOISY += [(60, 150, 2.0), (60, 600, 4.0)]


@pytest.mark.parametrize("n, d, noise", NOISY)
def test_chosen_penalty_is_the_least_on_a_dense_grid(n, d, noise):
    features, targets = problem(n, d, noise=noise)
    ridge = fit_ridge(features, targets)
    centred = features - features.mean(axis=0)
    top = np.linalg.svd(centred, compute_uv=False)[0] ** 2
    assert 1e-12 * top * (1 - 1e-9) <= ridge.alpha <= 1e3 * top * (1 + 1e-9)  # the range searched, to rounding
    grid = top * np.geomspace(1e-5, 1e2, 80)  # lower down, the definition is lost in rounding
    least = min(criterion(features, targets, alpha) for alpha in grid)
    assert ridge.gcv <= least * (1 + 1e-6)  # flat at the minimum: xatol 1e-4 in log alpha is 1e-8 in value
    assert_allclose(ridge.gcv, criterion(features, targets, ridge.alpha), rtol=1e-6)  # conditioning, as above
    fixed = fit_ridge(features, targets, ridge.alpha)
    assert_allclose(fixed.coefficients, ridge.coefficients, rtol=0, atol=0)  # the same operations


def test_pure_noise_gets_a_large_penalty():
    rng = np.random.default_rng(3)
    features, targets = rng.standard_normal((100, 50)), rng.standard_normal((100, 1))
    top = np.linalg.eigvalsh(np.cov(features.T) * 99)[-1]
    assert fit_ridge(features, targets).alpha > 0.1 * top


def test_exact_data_gets_a_small_penalty():
    features, targets = problem(100, 10, noise=0.0)
    ridge = fit_ridge(features, targets)
    assert_allclose(features @ ridge.coefficients + ridge.intercept, targets, rtol=0, atol=1e-8)  # penalty 1e-12 of top


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 12), d=st.integers(1, 12), alpha=st.floats(0.01, 100.0))
def test_laws(seed, n, d, alpha):
    features, targets = problem(n, d, seed=seed)
    ridge = fit_ridge(features, targets, alpha)
    unit = np.abs(targets).max()
    residual = targets - features @ ridge.coefficients - ridge.intercept
    # stationarity: the residual sums to 0, and F°ᵀ r = alpha c. Rounding of products of O(100) terms, over alpha.
    assert_allclose(residual.sum(axis=0), 0.0, atol=1e-10 * unit)
    centred = features - features.mean(axis=0)
    assert_allclose(centred.T @ residual, alpha * ridge.coefficients, rtol=0, atol=1e-9 * unit)
    # shifts of features and targets move the intercept alone
    shifted = fit_ridge(features + 5.0, targets - 3.0, alpha)
    assert_allclose(shifted.coefficients, ridge.coefficients, rtol=0, atol=1e-9 * unit)
    predictions = (features + 5.0) @ shifted.coefficients + shifted.intercept + 3.0
    assert_allclose(predictions, targets - residual, rtol=0, atol=1e-9 * unit)


def test_duplicated_features_are_harmless():
    features, targets = problem(30, 6)
    double = np.hstack([features, features])
    for alpha in (0.0, 1.0):
        ridge = fit_ridge(double, targets, alpha)
        # halves the coefficients, to the square root of the cut at 1e-14 for alpha = 0
        single = fit_ridge(features, targets, alpha / 2)
        assert_allclose(ridge.coefficients[:6], single.coefficients / 2, rtol=0, atol=1e-8)
        assert_allclose(ridge.coefficients[6:], single.coefficients / 2, rtol=0, atol=1e-8)


def test_inputs_are_left_alone():
    features, targets = problem(10, 4)
    before = features.copy(), targets.copy()
    fit_ridge(features, targets)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(targets, before[1])


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -0.3, 1e8 / 3.0])
@pytest.mark.parametrize("n, d", [(2, 5), (3, 4), (7, 4), (30, 4), (4, 30)])
def test_constant_features_are_refused(n, d, value):
    # also where their mean is off by a rounding, so that they differ from it in the last place
    with pytest.raises(ValueError, match="the features are the same for every sample"):
        fit_ridge(np.full((n, d), value), np.eye(2)[np.arange(n) % 2])


def test_nearly_constant_features_are_not():
    features = 1.0 + 1e-6 * np.random.default_rng(0).standard_normal((20, 3))
    targets = (features[:, :1] > 1.0).astype(float)
    ridge = fit_ridge(features, targets)
    predicted = features @ ridge.coefficients + ridge.intercept
    assert ((predicted > 0.5) == (targets > 0.5)).mean() > 0.8
    assert ridge.alpha < 1e3 * 1e-12 * 20 * 10 * 10  # in units of squared singular values, 20 · 1e-12


@pytest.mark.parametrize(
    "features, targets, words",
    [
        (np.ones((3, 2)) * np.nan, np.eye(3), "`features` must be finite"),
        (np.eye(3), [[np.inf]] * 3, "`targets` must be finite"),
        (np.eye(3), np.eye(4), "`targets` must have one row per row of `features`, 3, got shape"),
        (np.eye(3), np.ones(3), "`targets` must have samples in rows"),
        (np.ones(3), np.eye(3), "`features` must have samples in rows"),
    ],
)
def test_ridge_refuses(features, targets, words):
    with pytest.raises(ValueError, match=words):
        fit_ridge(features, targets)
    with pytest.raises(ValueError, match=words):
        fit_logistic(features, targets)


# --- Streams


def streamed(features, targets, cuts):
    stream = StreamingRidge(features.shape[1], targets.shape[1])
    for part in np.split(np.arange(len(features)), cuts):
        stream.update(features[part], targets[part])
    return stream


@pytest.mark.parametrize("alpha", [None, 0.5])
@pytest.mark.parametrize("cuts", [[], [1, 2, 30], list(range(1, 40)), [39]])
@pytest.mark.parametrize("n, d", SHAPES)
def test_stream_is_the_fit_in_memory(n, d, cuts, alpha):
    features, targets = problem(n, d, noise=2.0)
    cuts = [cut for cut in cuts if cut < n]
    found, wanted = streamed(features, targets, cuts).solve(alpha), fit_ridge(features, targets, alpha)
    # GCV is flat at its minimum, and found there to 1e-4 in log alpha by a search that sees other roundings
    assert_allclose(found.alpha, wanted.alpha, rtol=2e-3 if alpha is None else 0)
    assert_allclose(found.gcv, wanted.gcv, rtol=1e-6 if alpha is None else 1e-8)
    same = fit_ridge(features, targets, found.alpha)
    # both square a condition number below 1e3, beside a penalty of at least 1e-5 of the top eigenvalue
    assert_allclose(found.coefficients, same.coefficients, rtol=0, atol=1e-9 * np.abs(same.coefficients).max())
    assert_allclose(found.intercept, same.intercept, rtol=0, atol=1e-9 * np.abs(targets).max())


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_merging_is_seeing_all(seed, sizes):
    rng = np.random.default_rng(seed)
    parts = [(rng.standard_normal((m, 4)) + 7.0, rng.standard_normal((m, 2)) - 3.0) for m in sizes]
    features, targets = (np.concatenate(blocks) for blocks in zip(*parts, strict=True))
    whole = StreamingRidge(4, 2).update(features, targets)
    left, right = StreamingRidge(4, 2), StreamingRidge(4, 2)
    for k, (f, y) in enumerate(parts):
        (left if k % 2 else right).update(f, y)
    before = right.gram.copy()
    merged = StreamingRidge(4, 2).merge(left).merge(right).merge(StreamingRidge(4, 2))
    np.testing.assert_array_equal(right.gram, before)  # what was merged stays as it was
    assert merged.n == whole.n == len(features)
    centred, y = features - features.mean(axis=0), targets - targets.mean(axis=0)
    for stream in (whole, merged):  # sums of 30 products of O(1)
        assert_allclose(stream.gram, centred.T @ centred, rtol=0, atol=1e-12)
        assert_allclose(stream.cross, centred.T @ y, rtol=0, atol=1e-12)
        assert_allclose(stream.target_squares, (y**2).sum(), rtol=1e-12, atol=1e-12)
        assert_allclose(stream.feature_mean, features.mean(axis=0), rtol=1e-14)
        assert_allclose(stream.target_mean, targets.mean(axis=0), rtol=1e-14)


def test_stream_keeps_its_digits_far_from_zero():
    # whole numbers near 2^40, whose squares' sums differ in digits that float64 does not have; Python's integers do
    rng = np.random.default_rng(0)
    small = rng.integers(-1000, 1000, (64, 3))
    big = small + 2**40
    stream = streamed(big.astype(float), small[:, :1].astype(float), [5, 20, 41])
    exact = [
        [sum(int(a) * int(b) for a, b in zip(p, q, strict=True)) - int(p.sum()) * int(q.sum()) / 64 for q in small.T]
        for p in small.T
    ]
    # the means are good to an ulp of 2^40, 2.4e-4, which enters n δ · 1000; the naive difference of sums loses all
    assert_allclose(stream.gram, exact, rtol=0, atol=64 * 2.5e-4 * 1000)
    naive = big.astype(float).T @ big.astype(float) - 64 * np.outer(big.mean(axis=0), big.mean(axis=0))
    assert np.abs(naive - exact).max() > 1e6
    assert_allclose(stream.gram, exact, rtol=1e-6, atol=20.0)  # entries up to 2e7, and far better than the bound


def test_stream_with_a_new_target_is_as_if_it_had_been_there():
    features, targets = problem(30, 5, k=2)
    late = np.hstack([targets, np.zeros((30, 1))])
    view = StreamingRidge(5, 2).update(features, targets).with_targets([1, -1, 0])
    wanted = StreamingRidge(5, 3).update(features, late[:, [1, 2, 0]])
    assert_allclose(view.cross, wanted.cross, rtol=0, atol=1e-12)
    assert_allclose(view.solve(0.1).coefficients, wanted.solve(0.1).coefficients, rtol=0, atol=1e-13)
    assert_allclose(view.solve(0.1).intercept, wanted.solve(0.1).intercept, rtol=0, atol=1e-13)


def test_stream_refuses():
    stream = StreamingRidge(3, 2)
    with pytest.raises(ValueError, match="at least two samples, got 0"):
        stream.solve()
    with pytest.raises(ValueError, match="`features` must have 3 columns as declared"):
        stream.update(np.eye(4), np.eye(4)[:, :2])
    with pytest.raises(ValueError, match="`targets` must have 2 columns as declared"):
        stream.update(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="`features` must be finite"):
        stream.update([[1.0, 2.0, np.nan]], [[0.0, 1.0]])
    with pytest.raises(ValueError, match="`other` must have the shape"):
        stream.merge(StreamingRidge(3, 1))
    with pytest.raises(TypeError, match="`other` must be a StreamingRidge"):
        stream.merge(None)
    assert stream.n == 0
    stream.update(np.full((4, 3), 0.1), np.eye(4)[:, :2])
    with pytest.raises(ValueError, match="the features are the same for every sample"):
        stream.solve()
    with pytest.raises(ValueError, match="`alpha` must be"):
        stream.solve(-1.0)


# --- Logistic


def labelled(n, d, k=3, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    index = np.arange(n) % k
    means = rng.standard_normal((k, d))
    features = means[index] + spread * rng.standard_normal((n, d)) * rng.uniform(0.3, 3.0, d)
    return features + rng.uniform(-2.0, 2.0, d), np.eye(k)[index]


def gradient(features, targets, coefficients, intercept, alpha):
    """Gradient of J/n from its definition."""
    z = features @ coefficients + intercept
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    residual = targets.sum(axis=1, keepdims=True) * p - targets
    centred = features - features.mean(axis=0)
    return np.vstack([centred.T @ residual + alpha * coefficients, residual.sum(axis=0)]) / len(features)


@pytest.mark.parametrize("alpha", [0.05, 3.0, 200.0])
@pytest.mark.parametrize("n, d", [(120, 7), (60, 100), (200, 40)])
def test_logistic_is_stationary(n, d, alpha):
    features, targets = labelled(n, d)
    found = fit_logistic(features, targets, alpha)
    slope = gradient(features, targets, found.coefficients, found.intercept, alpha)
    start = gradient(features, targets, np.zeros((d, 3)), np.zeros(3), alpha)
    assert np.linalg.norm(slope) < 1e-3 * np.linalg.norm(start)
    # 1e-5 of αW in scaled coordinates; the condition of the scaling, up to a few hundred here, comes on top
    assert np.linalg.norm(slope) < 2e-3 * alpha * np.linalg.norm(found.coefficients) / n
    assert_allclose(found.gradient_norm, np.linalg.norm(slope), rtol=1e-4, atol=1e-12)
    assert_allclose(found.coefficients.sum(axis=1), 0.0, atol=1e-12)
    z = found.scores(features)
    wanted = np.mean(np.log(np.exp(z).sum(axis=1)) - (targets * z).sum(axis=1))
    assert_allclose(found.loss, wanted, rtol=1e-10, atol=1e-14)
    assert found.validation_loss is None
    assert (found.kind, found.bits, found.alpha) == ("logistic", 64, alpha)


def test_two_classes_are_binary_logistic_regression():
    features, targets = labelled(80, 6, k=2)
    alpha = 0.7
    found = fit_logistic(features, targets, alpha, tolerance=1e-8)
    # softmax of (−z/2, z/2) is the logistic function of z, and ‖W‖² = ‖w‖²/2: Newton's method on the binary problem
    design = np.hstack([features, np.ones((80, 1))])
    penalty = np.diag([alpha / 2] * 6 + [0.0])
    w = np.zeros(7)
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-design @ w))
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + penalty
        w -= np.linalg.solve(hessian, design.T @ (p - targets[:, 1]) + penalty @ w)
    assert_allclose(found.coefficients[:, 1] - found.coefficients[:, 0], w[:6], rtol=0, atol=1e-6 * np.abs(w).max())
    assert_allclose(found.intercept[1] - found.intercept[0], w[6], rtol=0, atol=1e-6 * np.abs(w).max())
    assert_allclose(softmax(found.scores(features))[:, 1], p, rtol=0, atol=1e-6)


def test_logistic_laws():
    features, targets = labelled(60, 8)
    base = fit_logistic(features, targets, 0.5, tolerance=1e-8)
    unit = np.abs(base.coefficients).max()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    turned = fit_logistic(features @ turn + 100.0, targets, 0.5, tolerance=1e-8)
    assert_allclose(turn @ turned.coefficients, base.coefficients, rtol=0, atol=1e-6 * unit)  # to the tolerance
    scaled = fit_logistic(1e3 * features, targets, 0.5e6, tolerance=1e-8)
    assert_allclose(1e3 * scaled.coefficients, base.coefficients, rtol=0, atol=1e-6 * unit)
    order = [2, 0, 1]
    swapped = fit_logistic(features, targets[:, order], 0.5, tolerance=1e-8)
    assert_allclose(swapped.coefficients, base.coefficients[:, order], rtol=0, atol=1e-6 * unit)
    assert_allclose(swapped.intercept, base.intercept[order], rtol=0, atol=1e-6)


def test_soft_targets_are_votes():
    # a sample of (1/4, 3/4) weighs as one copy of the first class and three of the second, over four
    features, _ = labelled(40, 5, k=2)
    quarters = np.random.default_rng(0).integers(0, 5, 40)
    soft = np.stack([quarters, 4 - quarters], axis=1) / 4.0
    copies = np.repeat(features, 4, axis=0)
    hard = np.eye(2)[np.concatenate([[0] * q + [1] * (4 - q) for q in quarters])]
    one, four = fit_logistic(features, soft, 0.3, tolerance=1e-8), fit_logistic(copies, hard, 1.2, tolerance=1e-8)
    assert_allclose(one.coefficients, four.coefficients, rtol=0, atol=1e-6 * np.abs(four.coefficients).max())
    assert_allclose(one.intercept, four.intercept, rtol=0, atol=1e-6)
    rounded = soft.astype(np.float32) * np.float32(1.0 + 3e-7)  # sums as those of float32 are accepted as they are
    assert_allclose(fit_logistic(features, rounded, 0.3).scores(features), one.scores(features), rtol=0, atol=1e-3)


@pytest.mark.parametrize("validation", [0.25, 4])
def test_chosen_penalty_has_the_least_loss_on_what_was_held_out(validation):
    features, targets = labelled(150, 60, spread=2.0)
    found = fit_logistic(features, targets, validation=validation, rng=5)
    folds = _folds(targets, validation, np.random.default_rng(5))
    assert len(folds) == (1 if validation == 0.25 else 4)

    def held_out(alpha):
        losses = []
        for inside, outside in folds:
            assert not set(inside) & set(outside)
            assert len(inside) + len(outside) == 150
            z = fit_logistic(features[inside], targets[inside], alpha).scores(features[outside])
            losses.extend(np.log(np.exp(z).sum(axis=1)) - (targets[outside] * z).sum(axis=1))
        return np.mean(losses)

    at = held_out(found.alpha)
    assert_allclose(found.validation_loss, at, rtol=1e-3)  # the search solves to 1e-3 of the gradient
    assert at < min(held_out(found.alpha * 10.0**0.5), held_out(found.alpha / 10.0**0.5)) + 1e-3
    assert_allclose(found.coefficients, fit_logistic(features, targets, found.alpha).coefficients, rtol=0, atol=1e-3)


def test_logistic_of_noise_converges_too():
    # next to nothing to fit, so that J is flat to rounding at large penalties
    features = np.random.default_rng(0).standard_normal((200, 30))
    targets = np.eye(2)[np.arange(200) % 2]
    found = fit_logistic(features, targets)
    assert found.alpha > 10.0
    assert abs(found.validation_loss - math.log(2.0)) < 0.05
    for alpha in (1e4, 1e8, 1e12):
        found = fit_logistic(features, targets, alpha)
        # to first order in 1/alpha: W = centred Fᵀ(Y − 1/2)/alpha
        wanted = (features - features.mean(axis=0)).T @ (targets - 0.5) / alpha
        assert_allclose(found.coefficients, wanted, rtol=0, atol=(1e-4 + 200 / alpha) * np.abs(wanted).max())


def test_no_class_is_held_out_whole():
    features, targets = labelled(40, 3)
    targets = np.hstack([targets, np.zeros((40, 1))])
    targets[7] = [0.0, 0.0, 0.0, 1.0]  # one sample of a class
    for inside, _ in _folds(targets, 5, np.random.default_rng(0)):
        assert (targets[inside].sum(axis=0) > 0.0).all()
    assert fit_logistic(features, targets).coefficients.shape == (3, 4)


def test_convergence_is_required():
    many, labels = labelled(60, 10)
    with pytest.raises(
        ConvergenceError, match=r"did not converge at alpha=0.001 in 2 iterations: .* take a larger"
    ) as caught:
        fit_logistic(many, labels, 1e-3, max_iterations=2)
    assert caught.value.residual > 0.0


@pytest.mark.parametrize(
    "targets, words",
    [
        ([[1.0, 0.0], [0.5, 0.4], [0.0, 1.0]], "rows that sum to 1 .* row 1 sums to 0.9"),
        ([[1.0, 0.0], [1.5, -0.5], [0.0, 1.0]], r"probabilities .* got -0.5 at index \(1, 1\)"),
        ([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], "column 1 is 0 throughout"),
        ([[1.0], [1.0], [1.0]], "at least two classes"),
    ],
)
def test_logistic_refuses_targets(targets, words):
    with pytest.raises(ValueError, match=words):
        fit_logistic(np.eye(3), targets)


def test_logistic_refuses():
    features, targets = labelled(30, 4)
    for options, words in [
        ({"alpha": 0.0}, "`alpha`"),  # separable classes would have no minimum
        ({"alpha": -1.0}, "`alpha`"),
        ({"validation": 0.0}, "`validation`"),
        ({"validation": 1}, "`validation` must be at least 2"),
        ({"tolerance": 0.0}, "`tolerance`"),
        ({"max_iterations": 0}, "`max_iterations`"),
    ]:
        with pytest.raises(ValueError, match=words):
            fit_logistic(features, targets, **options)
    with pytest.raises(ValueError, match="the features are the same for every sample"):
        fit_logistic(np.ones((30, 4)), targets)
    with pytest.raises(ValueError, match="too few to hold some out"):
        fit_logistic(np.eye(3), np.eye(3))


# --- Integers


@pytest.fixture(scope="module", params=["ridge", "logistic"])
def rounding(request):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((40, 40)) * 0.7 ** np.arange(40)  # correlated features
    index = np.arange(300) % 4
    features = (rng.standard_normal((4, 40))[index] + rng.standard_normal((300, 40))) @ mixing + 5.0
    targets = np.eye(4)[index]
    readout = fit_ridge(features, targets, 3.0) if request.param == "ridge" else fit_logistic(features, targets, 3.0)
    mean = features.mean(axis=0)
    return features, targets, readout, (features - mean).T @ (features - mean), mean


@pytest.mark.parametrize("bits", [8, 2])
def test_quantised_scores_are_integer_products(rounding, bits):
    features, _, readout, gram, mean = rounding
    found = quantise(readout, bits, gram, mean)
    q, scale, intercept = found.integers()
    assert q.dtype == np.int8
    assert q.shape == (40, 4)
    assert np.abs(q.astype(int)).max() <= (127 if bits == 8 else 1)
    assert scale.shape == intercept.shape == (4,)
    assert (found.kind, found.bits, found.alpha) == (readout.kind, bits, 3.0)
    wanted = scale * (features @ q.astype(float)) + intercept
    assert_allclose(found.scores(features), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    assert_allclose(found.coefficients, q * scale, rtol=0, atol=0)
    # the scores of the mean stay, to rounding of sums of 40 terms O(10)
    assert_allclose(found.scores(mean[None]), readout.scores(mean[None]), rtol=0, atol=1e-12)
    assert found.nbytes == (160 if bits == 8 else 2 * 20) + 2 * 4 * 8
    gap = readout.coefficients - found.coefficients
    metric = gram + 3.0 * np.eye(40)
    relative = np.trace(gap.T @ metric @ gap) / np.trace(readout.coefficients.T @ metric @ readout.coefficients)
    assert_allclose(found.error, relative, rtol=1e-9)
    if bits == 8:
        assert found.error < 2e-3  # features of very different scales; 1e-5 on those of a network
        assert np.abs(q).max() > 100  # eight bits are used


@pytest.mark.parametrize("bits", [8, 2])
def test_feedback_ends_in_a_local_minimum_below_rounding(rounding, bits):
    _, _, readout, gram, mean = rounding
    nearest, found = (quantise(readout, bits, gram, mean, feedback=on) for on in (False, True))
    assert found.error < 0.9 * nearest.error  # measured .54 to .75
    metric = gram + 3.0 * np.eye(40)
    q, scale, _ = found.integers()

    def cost(c, column):
        gap = readout.coefficients[:, c] - scale[c] * column
        return gap @ metric @ gap

    for c in range(4):
        least = cost(c, q[:, c].astype(float))
        for j in range(40):
            for value in {-1, 0, 1} if bits == 2 else {int(q[j, c]) - 1, int(q[j, c]) + 1} - {-128, 128}:
                other = q[:, c].astype(float)
                other[j] = value
                assert cost(c, other) >= least * (1 - 1e-9)
        # and the scale is the best one
        image = metric @ q[:, c]
        assert_allclose(scale[c], readout.coefficients[:, c] @ image / (q[:, c] @ image), rtol=1e-9)


def test_error_is_what_rounding_adds_to_the_penalised_squares():
    features, targets = problem(50, 8)
    ridge = fit_ridge(features, targets, 2.0)
    centred = features - features.mean(axis=0)
    found = quantise(ridge, 2, centred.T @ centred, features.mean(axis=0))

    def objective(readout):
        return ((targets - readout.scores(features)) ** 2).sum() + 2.0 * (readout.coefficients**2).sum()

    metric = centred.T @ centred + 2.0 * np.eye(8)
    added = found.error * np.trace(ridge.coefficients.T @ metric @ ridge.coefficients)
    assert_allclose(objective(found) - objective(ridge), added, rtol=1e-9)


def test_ternary_rounding_is_near_the_best_there_is():
    # all 3^7 columns, each with its best scale
    columns = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=7)))
    columns = columns[np.abs(columns).sum(axis=1) > 0.0]
    ratios = []
    for seed in range(20):
        features, targets = problem(30, 7, k=1, seed=seed)
        ridge = fit_ridge(features, targets, 0.1)
        centred = features - features.mean(axis=0)
        metric = centred.T @ centred + 0.1 * np.eye(7)
        w = ridge.coefficients[:, 0]
        reach = (columns @ metric @ w) ** 2 / np.einsum("ij,jk,ik->i", columns, metric, columns)
        best = 1.0 - reach.max() / (w @ metric @ w)  # over the scale too
        found = quantise(ridge, 2, centred.T @ centred, features.mean(axis=0)).error
        assert found >= best * (1 - 1e-9)
        ratios.append(found / best)
    assert np.median(ratios) < 1.2  # a local minimum, mostly the global one


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
def test_two_bits_hold_any_ternary_matrix(seed, d, c):
    from rmtntk.readout.quantised import Quantised, pack_codes

    q = np.random.default_rng(seed).integers(-1, 2, (d, c)).astype(np.int8)
    held = Quantised("ridge", 2, pack_codes(q), np.ones(c), np.zeros(c), d, 1.0, 0.0)
    np.testing.assert_array_equal(held.integers()[0], q)
    assert held.codes.nbytes == 2 * math.ceil(d * c / 8)
    header, arrays = held.describe()
    np.testing.assert_array_equal(restore(header, arrays).integers()[0], q)


def test_a_class_without_coefficients_is_rounded_to_none():
    features, targets = problem(30, 5)
    targets[:, 1] = 4.0
    ridge = fit_ridge(features, targets, 1.0)
    centred = features - features.mean(axis=0)
    for bits in (8, 2):
        found = quantise(ridge, bits, centred.T @ centred, features.mean(axis=0))
        assert_allclose(found.scores(features)[:, 1], 4.0, rtol=1e-12)


def test_quantise_refuses():
    features, targets = problem(30, 5)
    ridge = fit_ridge(features, targets, 1.0)
    for bits in (4, 64, True, None):
        with pytest.raises(ValueError, match="`bits` must be 8 or 2"):
            quantise(ridge, bits, np.eye(5), np.zeros(5))
    with pytest.raises(ValueError, match="`gram` must have the shape"):
        quantise(ridge, 8, np.eye(4), np.zeros(5))
    with pytest.raises(ValueError, match="`mean` must have 5 entries"):
        quantise(ridge, 8, np.eye(5), np.zeros(4))
    with pytest.raises(TypeError, match="`readout` must be"):
        quantise(quantise(ridge, 8, np.eye(5), np.zeros(5)), 2, np.eye(5), np.zeros(5))


# --- Descriptions


@pytest.mark.parametrize("bits", [64, 8, 2])
def test_description_through_json_makes_the_same_readout(rounding, bits):
    features, targets, readout, gram, mean = rounding
    unpenalised = [fit_ridge(features, targets, 0.0)] if readout.kind == "ridge" else [fit_logistic(features, targets)]
    for one in [readout, *unpenalised] if bits == 64 else [quantise(readout, bits, gram, mean)]:
        header, arrays = one.describe()
        again = restore(json.loads(json.dumps(header, allow_nan=False)), arrays)
        assert type(again) is type(one)
        np.testing.assert_array_equal(again.scores(features), one.scores(features))
        assert again.describe()[0] == header
        assert again.nbytes == one.nbytes == sum(array.nbytes for array in arrays.values())


def test_restore_refuses(rounding):
    _, _, readout, gram, mean = rounding
    header, arrays = readout.describe()
    for change in ({"kind": "tree"}, {"bits": 4}):
        with pytest.raises(ValueError, match="must describe a ridge or logistic readout"):
            restore({**header, **change}, arrays)
    with pytest.raises(ValueError, match="must hold coefficients float64"):
        restore(header, {**arrays, "coefficients": arrays["coefficients"].astype(np.float32)})
    with pytest.raises(ValueError, match="must hold coefficients"):
        restore(header, {**arrays, "coefficients": arrays["coefficients"][:, :2]})
    with pytest.raises(KeyError):
        restore(header, {"coefficients": arrays["coefficients"]})
    header, arrays = quantise(readout, 2, gram, mean).describe()
    with pytest.raises(ValueError, match="must hold codes uint8"):
        restore(header, {**arrays, "codes": arrays["codes"][:, 1:]})
    with pytest.raises(ValueError, match="negative ones are not zero"):
        restore(header, {**arrays, "codes": arrays["codes"][::-1] | np.array([[0], [1]], dtype=np.uint8)})
