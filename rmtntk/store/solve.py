r"""Eigenpairs and ridge systems of tiled kernels: block Krylov methods, a pass over all tiles an iteration."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_choice, check_integer, check_real
from rmtntk.errors import ConvergenceError
from rmtntk.solvers import Eigenpairs, RidgeSolution
from rmtntk.solvers.krylov import block_cg, block_lanczos
from rmtntk.solvers.lowrank import LowRank, Woodbury

__all__ = ["eigenpairs", "ridge_solve"]

_LANDMARKS = 1000
_STRIP = 4096

Apply = Callable[[FloatArray], FloatArray]


def eigenpairs(apply: Apply, n: int, k: int, which: str, tol: float, maxiter: int, *, throw: bool) -> Eigenpairs:
    """Return the k leading eigenpairs of a symmetric operator; see :meth:`KernelMatrix.eigenpairs`."""
    k = check_integer(k, "k", low=1, high=n)
    check_choice(which, "which", ("largest", "magnitude"))
    tol = check_real(tol, "tol", low=0.0, open_low=True)
    maxiter = check_integer(maxiter, "maxiter", low=1)
    found = block_lanczos(apply, n, k, which, tol, maxiter)
    order = np.argsort(-found.values, kind="stable")
    values, vectors, residuals = found.values[order], found.vectors[:, order], found.residuals[order]
    limit = tol * float(np.abs(values).max(initial=0.0))
    worst = float(residuals.max(initial=0.0))
    converged = len(values) == k and bool(worst <= limit)
    if converged:
        message = f"all {k} residuals are at most {worst:.1e}, wanted {limit:.1e}"
    else:
        message = (
            f"{k - int((residuals <= limit).sum())} of {k} residuals are above {limit:.1e} after {found.n_iter} passes "
            f"(largest {worst:.1e}): take a larger `maxiter` or `tol`, or another `k`, since eigenvalues inside a bulk "
            "are hard to tell apart"
        )
        if throw:
            raise ConvergenceError(message, worst)
    return Eigenpairs(values, vectors, residuals, converged, found.n_iter, "lanczos", message)


def ridge_solve(
    apply: Apply,
    columns: Callable[[Any], AnyArray],
    diagonal: FloatArray,
    b: ArrayLike,
    ridge: float,
    tol: float,
    maxiter: int,
    landmarks: int | None,
    *,
    throw: bool,
    progress: Callable[[int, float], None] | None,
) -> RidgeSolution:
    """Solve (K + λ I) x = b; see :meth:`KernelMatrix.ridge_solve`. `columns` returns some columns of K."""
    n = len(diagonal)
    flat = np.ndim(b) == 1
    right = check_array(b, "b", 1 if flat else 2)
    if len(right) != n:
        raise ValueError(f"`b` must have one row per sample, {n}, got shape {right.shape}")
    ridge = check_real(ridge, "ridge", low=0.0)
    tol = check_real(tol, "tol", low=0.0, open_low=True)
    maxiter = check_integer(maxiter, "maxiter", low=1)
    count = min(_LANDMARKS, n // 4) if landmarks is None else check_integer(landmarks, "landmarks", low=0, high=n)
    right = np.ascontiguousarray(right.reshape(n, -1), dtype=np.float64)
    size = np.linalg.norm(right, axis=0)
    live = size > 0.0
    x = np.zeros_like(right)
    precondition = _preconditioner(columns, diagonal, ridge, count)

    def lifted(block: FloatArray) -> FloatArray:
        return apply(block) + ridge * block

    rest, error, n_iter = right, float(live.any()), 0
    curvature: float | None = None
    while error > tol and n_iter < maxiter:
        found = block_cg(
            lifted, precondition, rest[:, live], 0.9 * tol * size[live], maxiter - n_iter, progress, n_iter
        )
        n_iter += found.n_iter
        x[:, live] += found.x
        rest = right - lifted(x)
        before, error = error, float((np.linalg.norm(rest, axis=0)[live] / size[live]).max())
        curvature = found.curvature
        if curvature is not None or not error < 0.5 * before:
            break
    converged = bool(error <= tol)
    message = f"relative residual {error:.1e} after {n_iter} iterations, wanted {tol:.1e}"
    if curvature is not None and not converged:
        message = (
            f"K + λ I is not positive definite: a Rayleigh quotient of {curvature:.3g} was met at iteration {n_iter}: "
            f"take a `ridge` above {ridge - 1.1 * min(curvature, 0.0):.3g}, or tiles of float64"
        )
    elif not converged:
        advice = "a larger `maxiter`" if n_iter >= maxiter else "a larger `tol`: it is rounding that stops it here"
        message += f": take a larger `ridge`, more `landmarks`, or {advice}"
    result = RidgeSolution(x, converged, n_iter, error, None, "cg", message)
    if throw and not converged:
        raise ConvergenceError(message, error)
    return replace(result, x=x[:, 0]) if flat else result


def _preconditioner(columns: Callable[[Any], AnyArray], diagonal: FloatArray, ridge: float, count: int) -> Apply:
    """Return the inverse of N Nᵀ + what it lacks of the diagonal of K + λ I, N a Nyström factor of `count` columns.

    Entries of the diagonal below a tenth of their mean are lifted to it: the solution does not depend on this.
    """
    n = len(diagonal)
    if count == 0:
        lifted = diagonal + ridge
        lifted = np.maximum(lifted, 0.1 * float(np.abs(lifted).mean()) or 1.0)
        return lambda block: block / lifted[:, None]
    chosen = np.sort(np.random.default_rng(0).choice(n, size=count, replace=False))
    part = columns(chosen)
    corner = part[chosen].astype(np.float64)
    corner = 0.5 * (corner + corner.T)
    values, vectors = np.linalg.eigh(corner)
    keep = values > max(1e-12, 8.0 * count * float(np.finfo(part.dtype).eps)) * values[-1]
    basis = vectors[:, keep] / np.sqrt(values[keep])
    factor = np.empty((n, int(keep.sum())), dtype=part.dtype)
    for start in range(0, n, _STRIP):
        factor[start : start + _STRIP] = part[start : start + _STRIP].astype(np.float64) @ basis
    missing = diagonal + ridge - np.einsum("ij,ij->i", factor, factor, dtype=np.float64)
    lifted = np.maximum(missing, max(0.1 * float(np.abs(missing).mean()), 1e-3 * ridge) or 1.0)
    nothing = np.zeros((n, 0))
    return Woodbury(LowRank(nothing, nothing, np.zeros(0), factor, np.ones(factor.shape[1])), lifted).solve
