r"""Block Krylov methods: several vectors at a time, since a product with many costs hardly more than with one."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from rmtntk._typing import FloatArray

__all__ = ["CgResult", "Ritz", "block_cg", "block_lanczos", "block_width"]

_BASIS = 8  # blocks between restarts

Apply = Callable[[FloatArray], FloatArray]
Watch = Callable[[int, float], None]


class CgResult(NamedTuple):
    """What :func:`block_cg` found; `curvature` is the smallest Rayleigh quotient met if one was not positive."""

    x: FloatArray
    n_iter: int
    residual: float
    curvature: float | None


def _orthonormal(block: FloatArray) -> FloatArray:
    """Orthonormal basis of the columns' span, without directions below 1e-13 of the largest."""
    size = np.linalg.norm(block, axis=0)
    keep = size > 1e-13 * size.max(initial=0.0)
    q, r = np.linalg.qr(block[:, keep] / size[keep])
    u, s, _ = np.linalg.svd(r)
    return np.asarray(q @ u[:, s > 1e-13 * s.max(initial=0.0)])


def block_cg(
    apply: Apply, precondition: Apply, right: FloatArray, tol: FloatArray, maxiter: int, watch: Watch | None, done: int
) -> CgResult:
    """Solve A X = B, B (n, k), until every column's recursive residual is at most its own `tol`, in 2-norms.

    Breakdown-free block conjugate gradients (Ji and Li, BIT 57 (2017) 379, Algorithm 2): the search directions are
    orthonormal, and dependent ones are dropped. Stops early where Pᵀ A P is not positive definite, or where 12
    iterations bring no progress (rounding).
    """
    x = np.zeros_like(right)
    residual = right.copy()
    size = np.linalg.norm(right, axis=0)
    worst = best = float((np.linalg.norm(residual, axis=0) / tol).max())
    stale, n_iter = 0, 0
    direction = _orthonormal(precondition(residual))
    while worst > 1.0 and n_iter < maxiter and stale < 12 and direction.shape[1]:
        image = apply(direction)
        n_iter += 1
        inner = direction.T @ image
        inner = 0.5 * (inner + inner.T)
        values = np.linalg.eigvalsh(inner)
        if values[0] <= np.finfo(np.float64).eps * np.abs(values).max():
            return CgResult(x, n_iter, worst, float(values[0]))
        factor = cho_factor(inner, lower=True)
        step = cho_solve(factor, direction.T @ residual)
        x += direction @ step
        residual -= image @ step
        worst = float((np.linalg.norm(residual, axis=0) / tol).max())
        best, stale = (worst, 0) if worst < best else (best, stale + 1)
        if watch is not None:
            watch(done + n_iter, float((np.linalg.norm(residual, axis=0) / size).max()))
        if worst <= 1.0:
            break
        ahead = precondition(residual)
        direction = _orthonormal(ahead - direction @ cho_solve(factor, image.T @ ahead))
    return CgResult(x, n_iter, worst, None)


class Ritz(NamedTuple):
    """What :func:`block_lanczos` found: values in the order wanted, residual norms ‖A v − θ v‖, products made."""

    values: FloatArray
    vectors: FloatArray
    residuals: FloatArray
    n_iter: int
    converged: bool


def block_width(n: int, k: int) -> int:
    """Vectors in a block for k eigenpairs."""
    return min(n, k + max(4, k // 4))


def block_lanczos(
    apply: Apply, n: int, k: int, which: str, tol: float, maxiter: int, start: FloatArray | None = None
) -> Ritz:
    """Leading k eigenpairs of a symmetric operator, residuals at most `tol` times the largest absolute Ritz value.

    Block Lanczos with full orthogonalisation and thick restarts (Wu and Simon, SIAM J. Matrix Anal. Appl. 22 (2000)
    602), Rayleigh–Ritz on the stored products, so that the residuals are those of the operator. `start`, shape
    (n, :func:`block_width`), is fixed random numbers if not given.
    """
    width = block_width(n, k)
    most = min(n, _BASIS * width)
    block = np.linalg.qr(np.random.default_rng(0).standard_normal((n, width)) if start is None else start)[0]
    basis, images = np.empty((n, 0)), np.empty((n, 0))
    n_iter = 0
    while True:
        basis = np.concatenate([basis, block], axis=1)
        images = np.concatenate([images, apply(block)], axis=1)
        n_iter += 1
        inner = basis.T @ images
        values, vectors = np.linalg.eigh(0.5 * (inner + inner.T))
        order = np.argsort(-values if which == "largest" else -np.abs(values), kind="stable")
        values, vectors = values[order], vectors[:, order]
        kept = min(width, len(values))
        ritz, image = basis @ vectors[:, :kept], images @ vectors[:, :kept]
        rest = image - ritz * values[:kept]
        residuals = np.linalg.norm(rest, axis=0)[:k]
        converged = bool((residuals <= tol * np.abs(values).max()).all()) if len(values) >= k else False
        if converged or n_iter >= maxiter or basis.shape[1] >= n:
            return Ritz(values[:k], ritz[:, :k], residuals, n_iter, converged)
        if basis.shape[1] + width > most:
            basis, images = ritz, image
        for _ in range(2):
            rest = rest - basis @ (basis.T @ rest)
        size = np.linalg.norm(rest, axis=0)
        block = _orthonormal(rest[:, size > 0.0])[:, : n - basis.shape[1]]
        block -= basis @ (basis.T @ block)
        block = np.linalg.qr(block)[0]
