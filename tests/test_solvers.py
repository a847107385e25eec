"""Eigenpairs and ridge systems of equivalents against dense linear algebra."""

from functools import lru_cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.linalg import eigsh

import rmtntk as rn
from rmtntk.errors import ConvergenceError
from rmtntk.operator import Equivalent, PowerTerm
from rmtntk.solvers import eigenpairs, ridge_solve
from rmtntk.solvers.krylov import block_cg, block_lanczos
from rmtntk.solvers.lowrank import LowRank, Woodbury, low_rank
from rmtntk.solvers.product import _SIDE, Product

P = 40
FORMS = {
    "none": {"correction": "none"},
    "diagonal": {"correction": "diagonal"},
    "degree 1": {"correction": "second_order", "degree": 1},
    "degree 2": {"correction": "second_order", "degree": 2},
    "degree 4": {"correction": "second_order", "degree": 4},
    "class_means": {"correction": "second_order", "degree": 2, "quadratic": "class_means"},
}


@lru_cache
def made(form, n, kind="ntk"):
    """An equivalent with three outliers or so, and its dense form."""
    means = 3.0 * np.eye(3, P)
    mixture = rn.GaussianMixture(means, np.array([1.0, 1.3, 0.8]), np.array([0.4, 0.3, 0.3]))
    x, labels = mixture.sample(n, 1)
    eq = rn.equivalent(rn.Network(["relu", "relu"]), x, labels, kind=kind, **FORMS[form])
    return eq, eq.to_dense()


def custom(n=200, p=10, *, sign=1.0, core=(1.0,), shift=0.5, power=1, seed=0):
    """sign X Xᵀ (or its power) + F diag(core) Fᵀ + shift I."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) / np.sqrt(p)
    factor = rng.standard_normal((n, len(core))) / np.sqrt(n)
    term = PowerTerm(power, np.ones((n, 1)), np.full((n, 1), sign))
    some = made("none", 60)[0].coefficients
    return Equivalent(x, (term,), factor, np.diag(core), np.full(n, shift), some)


def leading(dense, k, which):
    values = np.linalg.eigvalsh(dense)
    order = np.argsort(-values if which == "largest" else -np.abs(values))
    return np.sort(values[order[:k]])[::-1]


# eigenpairs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["largest", "magnitude"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [30, 300, 1200])
def test_eigenpairs_against_dense(form, n, which):
    eq, dense = made(form, n)
    found = eigenpairs(eq, 4, which=which, tol=1e-9)
    size = np.abs(found.values).max()
    assert found.converged
    # symmetric: the error of a value is at most its residual; 1e-9 asked, LAPACK's own error is n eps
    assert_allclose(found.values, leading(dense, 4, which), atol=1.1e-9 * size)
    assert_allclose(np.linalg.norm(dense @ found.vectors - found.vectors * found.values, axis=0), found.residuals,
                    atol=1e-13 * size)  # fmt: skip
    assert_allclose(found.vectors.T @ found.vectors, np.eye(4), atol=1e-12)
    assert found.method == ("dense" if n == 30 else "gram" if form == "none" else "dense" if n == 300 else "lanczos")


def test_gram_method_is_exact_to_rounding():
    eq, dense = made("none", 1200)
    found = eigenpairs(eq, 30, tol=1e-13)
    assert found.method == "gram"
    assert_allclose(found.values, leading(dense, 30, "largest"), atol=1e-13 * found.values[0])
    assert found.residuals.max() <= 1e-13 * found.values[0]
    assert_allclose(found.vectors.T @ found.vectors, np.eye(30), atol=1e-13)


def test_eigenvectors_span_the_outliers_of_eigsh():
    eq, _ = made("none", 1200)
    values, vectors = eigsh(eq, k=2, v0=np.ones(1200))
    found = eigenpairs(eq, 2)
    gap = found.values[1] - eigenpairs(eq, 3).values[2]
    assert gap > 0.01 * found.values[0]  # else the angle says nothing
    assert_allclose(found.values, values[::-1], rtol=1e-10)
    # sin of the angle ≤ residual / gap, both residuals being below 1e-12
    assert_allclose(np.linalg.svd(vectors.T @ found.vectors, compute_uv=False), 1.0, atol=1e-10)


@pytest.mark.parametrize("core", [(2.0, -30.0), (-1.0, -2.0, 5.0)])
def test_indefinite_core_and_more_pairs_than_the_rank(core):
    n, p = 120, 6
    eq = custom(n, p, core=core, shift=-0.2)
    dense = eq.to_dense()
    for which in ("largest", "magnitude"):
        for k in (1, p + 1, p + len(core), p + len(core) + 5):  # the last reach into the eigenspace of the shift
            found = eigenpairs(eq, k, which=which, tol=1e-12)
            assert found.method == "gram"
            assert_allclose(found.values, leading(dense, k, which), atol=1e-12 * np.abs(dense).sum(0).max())
            assert_allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-12)


def test_small_eigenvalues_keep_small_residuals():
    # singular values over 1e-6: eigenvalues of XᵀX over 1e-12, where vectors through the Gram matrix are poor
    eq = custom(300, 12, shift=0.0, core=(1e-3,))
    eq.rows *= np.logspace(0, -6, 12)
    found = eigenpairs(eq, 12, tol=1e-14)
    assert found.residuals.max() <= 1e-14 * found.values[0]
    assert_allclose(found.vectors.T @ found.vectors, np.eye(12), atol=1e-13)


def test_more_features_than_samples():
    eq = custom(50, 90)
    found = eigenpairs(eq, 50)
    assert found.method == "dense"
    assert_allclose(found.values, leading(eq.to_dense(), 50, "largest"), atol=1e-12)


def test_lanczos_says_when_it_fails():
    eq, _ = made("diagonal", 1200)
    with pytest.raises(ConvergenceError, match="larger `maxiter`") as raised:
        eigenpairs(eq, 20, tol=1e-12, maxiter=3)
    found = eigenpairs(eq, 20, tol=1e-12, maxiter=3, throw=False)
    assert not found.converged
    assert found.n_iter == 3
    assert found.residuals.max() == raised.value.residual > 1e-12 * found.values[0]


@pytest.mark.parametrize("n", [20, 23, 60])
def test_block_lanczos_on_small_and_degenerate_matrices(n):
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.repeat(np.arange(1.0, n / 4 + 1), 4)[:n]  # fourfold eigenvalues
    matrix = (q * values) @ q.T
    found = block_lanczos(lambda v: matrix @ v, n, 6, "largest", 1e-10, 100)
    assert found.converged
    assert_allclose(found.values, np.sort(values)[::-1][:6], atol=1e-9 * n)
    nothing = block_lanczos(lambda v: 0.0 * v, n, 3, "largest", 1e-10, 100)
    assert_array_equal(nothing.values, 0.0)
    one = block_lanczos(lambda v: 2.0 * v, n, 3, "magnitude", 1e-10, 100)
    assert_allclose(one.values, 2.0, atol=1e-14)


# ridge systems ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "direct", "cg"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [30, 300, 1200])
def test_ridge_against_dense(form, n, method):
    eq, dense = made(form, n)
    b = np.random.default_rng(2).standard_normal((n, 3))
    ridge = 0.05
    found = ridge_solve(eq, b, ridge, method=method)
    full = dense + ridge * np.eye(n)
    exact = np.linalg.solve(full, b)
    residual = np.linalg.norm(b - full @ found.x, axis=0) / np.linalg.norm(b, axis=0)
    assert found.converged
    assert_allclose(found.residual, residual.max(), rtol=1e-3, atol=1e-13)
    # ‖error‖ ≤ κ ‖exact‖ × relative residual; direct solutions have residuals near rounding
    limit = 1e-12 if found.method != "cg" else 1e-8
    assert found.residual <= limit
    condition = np.linalg.cond(full)
    assert np.linalg.norm(found.x - exact) <= condition * limit * np.linalg.norm(exact)


def test_shapes_methods_and_zero_columns():
    eq, dense = made("none", 300)
    b = np.random.default_rng(0).standard_normal(300)
    one = ridge_solve(eq, b, 0.1)
    assert one.x.shape == (300,)
    assert one.method == "woodbury"
    assert one.negative == 0
    assert_allclose(one.x, np.linalg.solve(dense + 0.1 * np.eye(300), b), rtol=1e-10, atol=1e-12)
    for method in ("direct", "cg"):
        several = ridge_solve(eq, np.column_stack([b, 0.0 * b, 1e6 * b, b]), 0.1, method=method)
        assert_array_equal(several.x[:, 1], 0.0)
        assert_allclose(several.x[:, [0, 2, 3]] / [1.0, 1e6, 1.0], np.column_stack([one.x] * 3), rtol=1e-5, atol=1e-7)
    assert_array_equal(ridge_solve(eq, 0.0 * b, 0.1, method="cg").x, 0.0)
    assert made("degree 4", 300)[0].degree == 4
    assert ridge_solve(made("degree 4", 300)[0], b, 0.1, method="direct").method == "dense"


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("core", [(3.0,), (-0.3, 2.0), (-0.75, 2.0), (-4.0, 2.0), (-4.0, -5.0)])
def test_inertia_and_solution_of_indefinite_systems(core, sign):
    eq = custom(150, 8, sign=sign, core=core)
    full = eq.to_dense() + 0.1 * np.eye(150)
    expected = int((np.linalg.eigvalsh(full) < 0).sum())
    b = np.random.default_rng(1).standard_normal((150, 2))
    found = ridge_solve(eq, b, 0.1, method="direct")
    assert found.method == "woodbury"
    assert found.negative == expected
    assert ("negative eigenvalue" in found.message) == (expected > 0)
    assert_allclose(found.x, np.linalg.solve(full, b), rtol=1e-9, atol=1e-11)
    # the same through the dense factorisation: squares instead of the linear term
    square = custom(150, 8, sign=sign, core=core, power=2)
    full = square.to_dense() + 0.1 * np.eye(150)
    found = ridge_solve(square, b, 0.1, method="direct")
    assert found.method == "dense"
    assert found.negative == int((np.linalg.eigvalsh(full) < 0).sum())
    assert_allclose(found.x, np.linalg.solve(full, b), rtol=1e-8, atol=1e-10)


def test_conjugate_gradients_find_negative_curvature():
    eq = custom(300, 8, core=(-4.0, 2.0), power=2)
    smallest = np.linalg.eigvalsh(eq.to_dense())[0] + 0.1
    assert smallest < -1.0
    b = np.random.default_rng(1).standard_normal(300)
    with pytest.raises(ConvergenceError, match=r"not positive definite.*`ridge` above"):
        ridge_solve(eq, b, 0.1, method="cg")
    found = ridge_solve(eq, b, 0.1, method="cg", throw=False)
    assert not found.converged
    assert ridge_solve(eq, b, 0.2 - smallest, method="cg").converged


def test_varying_diagonal_that_is_not_positive():
    eq = custom(150, 8)
    eq.shift = np.full(150, 0.5)
    eq.shift[3] = -0.05
    eq.rows[3] *= 10.0  # so that the whole is still positive definite
    full = eq.to_dense() + 0.01 * np.eye(150)
    assert np.linalg.eigvalsh(full)[0] > 0.0
    b = np.random.default_rng(1).standard_normal(150)
    for method in ("direct", "cg"):
        found = ridge_solve(eq, b, 0.01, method=method)
        assert found.method == ("dense" if method == "direct" else "cg")
        assert_allclose(found.x, np.linalg.solve(full, b), rtol=1e-5, atol=1e-6)


def test_ill_conditioned_systems_are_refined_or_refused():
    eq = custom(400, 12, shift=0.0)
    b = eq.to_dense() @ np.random.default_rng(1).standard_normal(400)
    found = ridge_solve(eq, b, 1e-9, method="direct", tol=1e-6)  # κ about 1e11
    assert found.residual <= 1e-6
    with pytest.raises(ConvergenceError, match="larger `ridge`"):
        ridge_solve(eq, np.random.default_rng(1).standard_normal(400), 1e-15, method="direct", tol=1e-14)


def test_cg_reports_iterations_and_stops():
    eq, _ = made("degree 4", 1200)
    b = np.random.default_rng(2).standard_normal((1200, 2))
    seen = []
    found = ridge_solve(eq, b, 0.05, method="cg", progress=lambda k, r: seen.append((k, r)))
    assert [k for k, _ in seen] == list(range(1, found.n_iter + 1))
    assert seen[-1][1] <= 1e-8
    stopped = ridge_solve(eq, b, 0.05, method="cg", maxiter=2, throw=False)
    assert stopped.n_iter == 2
    assert not stopped.converged
    assert "larger `maxiter`" in stopped.message
    with pytest.raises(ConvergenceError, match="after 2 iterations"):
        ridge_solve(eq, b, 0.05, method="cg", maxiter=2)


def test_landmarks_save_iterations_and_do_not_change_the_solution():
    eq, _ = made("degree 4", 1200)
    b = np.random.default_rng(2).standard_normal((1200, 2))
    results = [ridge_solve(eq, b, 0.01, method="cg", landmarks=m) for m in (0, 100, 600)]
    counts = [found.n_iter for found in results]
    assert counts[2] < counts[1] < counts[0]
    for found in results:  # residual 1e-8 over the smallest eigenvalue, about 0.1
        assert_allclose(found.x, results[0].x, atol=1e-6 * np.abs(results[0].x).max())


def test_mixed_precision_meets_the_tolerance_of_double():
    eq, _ = made("degree 4", 1200)
    b = np.random.default_rng(2).standard_normal((1200, 2))
    found = ridge_solve(eq, b, 0.05, method="cg", precision="mixed", tol=1e-10)
    assert found.residual <= 1e-10
    rough = ridge_solve(eq, b, 0.05, method="cg", precision="single", tol=1e-4)
    assert rough.residual <= 1e-4
    assert_allclose(rough.x, found.x, atol=1e-3 * np.abs(found.x).max())  # κ = 1e4 at most, but the error is spread
    rough = Product(eq, np.float32)(b)
    gap = np.linalg.norm(rough - eq @ b) / np.linalg.norm(eq @ b)
    assert 1e-9 < gap < 1e-5  # float32 it is


def test_several_right_sides_share_the_search():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    matrix = (q * np.linspace(1.0, 100.0, 200)) @ q.T
    b = rng.standard_normal((200, 8))
    goal = 1e-9 * np.linalg.norm(b, axis=0)
    together = block_cg(lambda v: matrix @ v, lambda v: v, b, goal, 500, None, 0)
    alone = block_cg(lambda v: matrix @ v, lambda v: v, b[:, :1], goal[:1], 500, None, 0)
    assert together.n_iter < 0.5 * alone.n_iter
    assert_allclose(together.x, np.linalg.solve(matrix, b), atol=1e-8)
    twice = block_cg(lambda v: matrix @ v, lambda v: v, b[:, [0, 0]], goal[[0, 0]], 500, None, 0)  # dependent columns
    assert_allclose(twice.x[:, 0], twice.x[:, 1], atol=1e-12)
    assert_allclose(twice.x[:, 0], alone.x[:, 0], atol=1e-8)


# parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["none", "degree 1", "class_means"])
def test_low_rank_plus_diagonal_is_the_operator(form):
    eq, dense = made(form, 300)
    low = low_rank(eq)
    w = low.block(slice(0, 300))
    assert_allclose((w * low.signs) @ w.T + np.diag(eq.shift), dense, atol=1e-12 * np.abs(dense).max())
    b = np.random.default_rng(0).standard_normal((300, 2))
    assert_allclose(low.project(b), w.T @ b, atol=1e-12)
    assert_allclose(low.expand(w.T @ b), w @ (w.T @ b), atol=1e-11)
    assert_allclose(low.gram(np.full(300, 2.0)), 2.0 * w.T @ w, atol=1e-11)


def test_woodbury_without_positive_columns():
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((50, 3)) / 10
    low = LowRank(np.zeros((50, 4)), np.zeros((50, 0)), np.zeros(0), columns, -np.ones(3))
    matrix = np.diag(np.linspace(1, 2, 50)) - columns @ columns.T
    b = rng.standard_normal((50, 2))
    solver = Woodbury(low, np.linspace(1, 2, 50))
    assert_allclose(solver.solve(b), np.linalg.solve(matrix, b), atol=1e-13)
    assert solver.negative == int((np.linalg.eigvalsh(matrix) < 0).sum())


@pytest.mark.parametrize("n", [1, 7, _SIDE, 2 * _SIDE + 5])
@pytest.mark.parametrize("powers", [(2,), (1, 3), (1, 2, 4)])
def test_symmetric_tiles_against_dense(n, powers):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 5))
    x[:, 2] = 0.0
    x[n // 2] = 0.0
    terms = []
    for power in powers:
        left = rng.standard_normal((n, 2))
        terms.append(PowerTerm(power, left, left * [1.0, -1.0]))
    factor = rng.standard_normal((n, 2))
    eq = Equivalent(
        x, tuple(terms), factor, np.diag([1.0, -1.0]), rng.standard_normal(n), made("none", 60)[0].coefficients
    )
    b = rng.standard_normal((n, 3))
    gram = x @ x.T
    dense = factor @ np.diag([1.0, -1.0]) @ factor.T + np.diag(eq.shift)
    for term in terms:
        dense += (term.left @ term.right.T) * gram**term.power
    scale = np.abs(dense) @ np.abs(b)
    assert (np.abs(Product(eq)(b) - dense @ b) <= 1e-13 * scale + 1e-300).all()
    assert (np.abs(Product(eq, np.float32)(b) - dense @ b) <= 1e-5 * scale + 1e-300).all()


def test_products_do_not_depend_on_threads():
    eq, _ = made("degree 4", 1200)
    b = np.random.default_rng(0).standard_normal((1200, 2))
    product = Product(eq, np.float32)
    try:
        found = []
        for count in (1, 2, 5):
            rn.set_num_threads(count)
            found.append(product(b))
    finally:
        rn.set_num_threads(None)
    assert_array_equal(found[0], found[1])
    assert_array_equal(found[0], found[2])


# input -----------------------------------------------------------------------------------------------------------


def test_input_is_checked():
    eq, dense = made("none", 60)
    b = np.ones(60)
    cross = rn.equivalent(rn.Network(["relu"]), eq.rows, correction="second_order", y=eq.rows[:5])
    for call in (lambda op: eigenpairs(op, 1), lambda op: ridge_solve(op, b, 0.1)):
        with pytest.raises(TypeError, match="`operator` must be an Equivalent"):
            call(dense)
        with pytest.raises(ValueError, match="`operator` must be a symmetric kernel"):
            call(cross)
    for k in (0, 61):
        with pytest.raises(ValueError, match="`k`"):
            eigenpairs(eq, k)
    with pytest.raises(ValueError, match="`which`"):
        eigenpairs(eq, 1, which="smallest")
    with pytest.raises(ValueError, match="`tol`"):
        eigenpairs(eq, 1, tol=0.0)
    with pytest.raises(ValueError, match="`b` must have one row per sample, 60"):
        ridge_solve(eq, b[:-1], 0.1)
    with pytest.raises(ValueError, match="`b` must be finite"):
        ridge_solve(eq, b * np.nan, 0.1)
    with pytest.raises(ValueError, match="`ridge`"):
        ridge_solve(eq, b, -0.1)
    for name, value in (("method", "lu"), ("precision", "half"), ("landmarks", 61), ("maxiter", 0), ("tol", -1.0)):
        with pytest.raises(ValueError, match=f"`{name}`"):
            ridge_solve(eq, b, 0.1, **{name: value})


def test_lanczos_finds_what_its_start_does_not_contain():
    # one sample's own large diagonal: an eigenvector next to e_i with no part in the theorem's form
    eq, dense = made("diagonal", 1200)
    shift, far = eq.shift.copy(), dense.copy()
    lift = 0.9 * np.linalg.eigvalsh(dense)[-1]
    shift[17] += lift
    far[17, 17] += lift
    eq = Equivalent(eq.rows, eq.terms, eq.factor, eq.core, shift, eq.coefficients)
    found = eigenpairs(eq, 6, tol=1e-8)
    assert found.method == "lanczos"
    assert_allclose(found.values, leading(far, 6, "largest"), rtol=1e-8)  # a value's error is at most its residual
    assert np.abs(found.vectors[17]).max() > 0.9


def test_the_start_saves_products():
    """From random numbers the same block Lanczos needs more than twice as many; at n = 20,000, p = 784: 35, here 9."""
    n, p = 3000, 200
    mixture = rn.GaussianMixture(3.0 * np.eye(3, p), np.array([1.0, 1.3, 0.8]))
    x, labels = mixture.sample(n, 1)
    eq = rn.equivalent(rn.Network(["relu", "relu"]), x, labels, kind="ntk", **FORMS["class_means"])
    found = eigenpairs(eq, 12, tol=1e-4)
    plain = block_lanczos(Product(eq), n, 12, "largest", 1e-4, 200)
    assert plain.converged
    assert found.n_iter <= 0.5 * plain.n_iter
    assert_allclose(found.values, plain.values, rtol=1e-4)  # residuals of both are below 1e-4 of the first


def test_classes_are_no_operators():
    with pytest.raises(TypeError, match=r"`operator` must be an Equivalent.*got the class KernelMatrix"):
        rn.eigenpairs(rn.KernelMatrix)
