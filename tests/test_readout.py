"""The ridge readout against normal equations, least squares and the criterion written out with matrices."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rmtntk.readout import fit_ridge

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
