r"""Eigenpairs and ridge systems of tiled kernels: block Krylov methods, a pass over all tiles an iteration."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_choice, check_columns, check_integer, check_real
from rmtntk.errors import ConvergenceError
from rmtntk.solvers import Eigenpairs, RidgeSolution
from rmtntk.solvers.eigen import as_eigenpairs
from rmtntk.solvers.krylov import block_lanczos
from rmtntk.solvers.lowrank import LowRank, Woodbury
from rmtntk.solvers.ridge import restarted

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
    return as_eigenpairs(found, k, tol, "lanczos", throw=throw)


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
    right, flat = check_columns(b, "b", n)
    ridge = check_real(ridge, "ridge", low=0.0)
    tol = check_real(tol, "tol", low=0.0, open_low=True)
    maxiter = check_integer(maxiter, "maxiter", low=1)
    count = min(_LANDMARKS, n // 4) if landmarks is None else check_integer(landmarks, "landmarks", low=0, high=n)
    precondition = _preconditioner(columns, diagonal, ridge, count)
    result = restarted(
        apply, right, ridge, precondition, tol, maxiter, progress, definite="or tiles of float64",
        rounding="a larger `tol`",
    )  # fmt: skip
    if throw and not result.converged:
        raise ConvergenceError(result.message, result.residual)
    return replace(result, x=result.x[:, 0]) if flat else result


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
