"""Ridge systems of equivalents: a direct solution and its refinement, and preconditioned conjugate gradients."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigvalsh_tridiagonal, ldl, solve_banded, solve_triangular

from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.operator import Equivalent
from rmtntk.solvers.krylov import block_cg
from rmtntk.solvers.lowrank import LowRank, Woodbury, low_rank, nystroem
from rmtntk.solvers.product import Product

__all__ = ["Dense", "RidgeSolution", "conjugate", "refined", "restarted"]

_REFINEMENTS = 3
_MIXED = 1e-4  # what one round of float32 products is asked for

Apply = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class RidgeSolution:
    """Solution of (K̃ + λ I) x = b.

    Attributes
    ----------
    x : ndarray, shape of b
        Solution.
    converged : bool
        Whether `residual` is at most ``tol``.
    n_iter : int
        Iterations of conjugate gradients, or refinements of a direct solution.
    residual : float
        Largest ‖b − (K̃ + λ I) x‖ / ‖b‖ of a column, computed from x.
    negative : int or None
        Number of negative eigenvalues of K̃ + λ I, where the method tells.
    method : {"woodbury", "dense", "cg"}
        How.
    message : str
        Outcome in words.
    """

    x: FloatArray
    converged: bool
    n_iter: int
    residual: float
    negative: int | None
    method: str
    message: str


class Dense:
    """(K̃ + λ I)⁻¹ from the n × n matrix: Cholesky, or L D Lᵀ with 2 × 2 blocks if it is not positive definite."""

    def __init__(self, kernel: Equivalent, ridge: float) -> None:
        check_memory(16 * kernel.shape[0] ** 2, f"a dense system of {kernel.shape[0]} samples", "take method='cg'")
        dense = kernel.to_dense()
        dense[np.diag_indices_from(dense)] += ridge
        self.negative = 0
        self.factor: Any = None
        try:
            self.factor = cho_factor(dense.T, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            lower, blocks, self.order = ldl(dense, lower=True)
            self.lower = lower[self.order]
            main, beside = np.diag(blocks).copy(), np.diag(blocks, -1).copy()
            self.negative = int((eigvalsh_tridiagonal(main, beside) < 0.0).sum())
            self.band = np.zeros((3, len(main)))
            self.band[0, 1:], self.band[1], self.band[2, :-1] = beside, main, beside

    def solve(self, right: FloatArray) -> FloatArray:
        """Return (K̃ + λ I)⁻¹ B."""
        if self.factor is not None:
            return np.asarray(cho_solve(self.factor, right, check_finite=False))
        inner = solve_triangular(self.lower, right[self.order], lower=True, unit_diagonal=True)
        inner = solve_triangular(self.lower.T, solve_banded((1, 1), self.band, inner), lower=False, unit_diagonal=True)
        out = np.empty_like(right)
        out[self.order] = inner
        return out


def _residual(apply: Callable[[FloatArray], FloatArray], x: FloatArray, b: FloatArray, ridge: float) -> FloatArray:
    return np.asarray(b - apply(x) - ridge * x)


def _relative(residual: FloatArray, size: FloatArray) -> float:
    return float((np.linalg.norm(residual, axis=0) / np.where(size > 0.0, size, 1.0)).max())


def refined(
    kernel: Equivalent, solver: "Woodbury | Dense", b: FloatArray, ridge: float, tol: float, name: str
) -> RidgeSolution:
    """Direct solution, refined while that helps."""
    apply = Product(kernel)
    size = np.linalg.norm(b, axis=0)
    x = solver.solve(b)
    rest = _residual(apply, x, b, ridge)
    error = _relative(rest, size)
    steps = 0
    while error > 0.01 * tol and steps < _REFINEMENTS and np.isfinite(error):
        better = x + solver.solve(rest)
        rest = _residual(apply, better, b, ridge)
        found = _relative(rest, size)
        if not found < 0.5 * error:
            if found < error:
                x, error = better, found
            break
        x, error, steps = better, found, steps + 1
    converged = bool(error <= tol)
    message = f"relative residual {error:.1e}, wanted {tol:.1e}"
    if solver.negative:
        message += f"; the matrix has {solver.negative} negative eigenvalue(s): take a larger `ridge` if it must not"
    if not converged:
        message += "; the system is too ill-conditioned: take a larger `ridge` or `tol`"
    return RidgeSolution(x, converged, steps, error, solver.negative, name, message)


def _preconditioner(
    kernel: Equivalent, diagonal: FloatArray, landmarks: int | None
) -> Callable[[FloatArray], FloatArray]:
    """Positive definite approximation of the inverse: W Wᵀ plus what it lacks of the diagonal, by Woodbury's formula.

    W is a Nyström factor or, for `landmarks` None, the main factor of the linear term and the positive low rank. The
    diagonal is that of the FITC approximation (Snelson and Ghahramani 2005). Entries below a tenth of the mean are
    lifted to it: this is a preconditioner, and the solution does not depend on it.
    """
    n = len(diagonal)
    low = LowRank(kernel.rows, np.zeros((n, 0)), np.zeros(0), np.zeros((n, 0)), np.zeros(0))
    if landmarks is None:
        whole = low_rank(kernel)
        main = np.argsort(-np.linalg.norm(whole.weights, axis=0) * (whole.weight_signs > 0.0))[:1]
        main = main[whole.weight_signs[main] > 0.0]
        own = whole.column_signs > 0.0
        low = LowRank(
            kernel.rows, whole.weights[:, main], np.ones(len(main)), whole.columns[:, own], np.ones(int(own.sum()))
        )
    elif landmarks:
        columns = nystroem(kernel, landmarks)
        low = replace(low, columns=columns, column_signs=np.ones(columns.shape[1]))
    missing = kernel.diagonal() + (diagonal - (0.0 if kernel.shift is None else kernel.shift))
    missing -= np.einsum("ij,ij->i", low.columns, low.columns, dtype=np.float64)
    missing -= (low.weights**2).sum(1) * np.einsum("ij,ij->i", kernel.rows, kernel.rows)
    lifted = np.maximum(missing, 0.1 * float(np.abs(missing).mean()) or 1.0)
    if not low.rank:
        return lambda block: block / lifted[:, None]
    return Woodbury(low, lifted).solve


def conjugate(
    kernel: Equivalent,
    b: FloatArray,
    ridge: float,
    diagonal: FloatArray,
    tol: float,
    maxiter: int,
    landmarks: int | None,
    precision: str,
    progress: Callable[[int, float], None] | None,
) -> RidgeSolution:
    """Block conjugate gradients for an equivalent, with its structure in products and preconditioner."""
    exact = Product(kernel, np.float32 if precision == "single" else np.float64)
    mixed = precision == "mixed" and kernel.degree > 1
    return restarted(
        exact, b, ridge, _preconditioner(kernel, diagonal, landmarks), tol, maxiter, progress,
        quick=Product(kernel, np.float32) if mixed else None,
        definite="another `degree`, quadratic='class_means', or method='direct'",
        rounding="a larger `tol`, or precision='mixed'" if precision == "single" else "a larger `tol`",
    )  # fmt: skip


def restarted(
    apply: Apply,
    b: FloatArray,
    ridge: float,
    precondition: Apply,
    tol: float,
    maxiter: int,
    progress: Callable[[int, float], None] | None,
    *,
    quick: Apply | None = None,
    definite: str,
    rounding: str,
) -> RidgeSolution:
    """Block conjugate gradients, restarted from the residual computed with `apply` until that meets the tolerance.

    Parameters
    ----------
    apply : callable
        Product K B.
    b : ndarray, shape (n, k)
        Right sides.
    ridge : float
        λ.
    precondition : callable
        Approximation of (K + λ I)⁻¹ B, positive definite.
    tol : float
        Largest ‖b − (K + λ I) x‖ / ‖b‖ of a column.
    maxiter : int
        Most iterations.
    progress : callable or None
        Called as progress(iterations, relative residual).
    quick : callable, optional
        Product of less precision for the iterations between restarts, each of which then gains four digits only.
    definite, rounding : str
        What else to try if K + λ I is not positive definite, or if rounding stops the iterations.

    Returns
    -------
    RidgeSolution
        With `x` of shape (n, k).
    """
    size = np.linalg.norm(b, axis=0)
    live = size > 0.0
    x = np.zeros_like(b)
    rest: AnyArray = b
    error, n_iter = _relative(b, size), 0
    curvature = None
    product = apply if quick is None else quick

    def lifted(block: FloatArray) -> FloatArray:
        return product(block) + ridge * block

    while error > tol and n_iter < maxiter:
        goal = 0.9 * tol * size[live]
        if quick is not None:
            goal = np.maximum(goal, _MIXED * np.linalg.norm(rest[:, live], axis=0))
        found = block_cg(lifted, precondition, rest[:, live], goal, maxiter - n_iter, progress, n_iter)
        n_iter += found.n_iter
        x[:, live] += found.x
        rest = _residual(apply, x, b, ridge)
        before, error = error, _relative(rest, size)
        curvature = found.curvature
        if curvature is not None or not error < 0.5 * before:
            break
    converged = bool(error <= tol)
    message = f"relative residual {error:.1e} after {n_iter} iterations, wanted {tol:.1e}"
    if curvature is not None and not converged:
        message = (
            f"K + λ I is not positive definite: a Rayleigh quotient of {curvature:.3g} was met at iteration {n_iter}: "
            f"take a `ridge` above {ridge - 1.1 * min(curvature, 0.0):.3g}, {definite}"
        )
    elif not converged:
        advice = "a larger `maxiter`" if n_iter >= maxiter else f"{rounding}: it is rounding that stops it here"
        message += f": take a larger `ridge`, more `landmarks`, or {advice}"
    return RidgeSolution(x, converged, n_iter, error, None, "cg", message)
