r"""Eigenpairs and ridge systems of equivalents and of kernels in tiles, without an n × n matrix where n is large.

The theorem's form c1 X Xᵀ + V A Vᵀ + c I has both exactly from a system of p + K + 1 unknowns; the others by block
Krylov methods whose products and preconditioner use the kernel's structure.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._validation import check_choice, check_columns, check_integer, check_real
from rmtntk.errors import ConvergenceError
from rmtntk.operator import Equivalent
from rmtntk.solvers.eigen import Eigenpairs, as_eigenpairs, constant_parts, dense_pairs, gram_pairs, lanczos_start
from rmtntk.solvers.krylov import block_lanczos, block_width
from rmtntk.solvers.lowrank import Woodbury, low_rank
from rmtntk.solvers.product import Product
from rmtntk.solvers.ridge import Dense, RidgeSolution, conjugate, refined

__all__ = ["Eigenpairs", "RidgeSolution", "eigenpairs", "ridge_solve"]

_DENSE = 8192  # samples up to which n × n is the default, 512 MiB
_DENSE_PAIRS = 1024
_SYSTEM = 2048  # unknowns up to which Woodbury's formula is the default
_LANDMARKS = 2048


@runtime_checkable
class TiledSolvers(Protocol):
    """A symmetric kernel that has these methods itself: :class:`rmtntk.KernelMatrix`, on disk or on the fly."""

    @property
    def is_symmetric(self) -> bool:
        """Whether it is the kernel of one set of samples."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n, n)."""
        ...

    def eigenpairs(
        self,
        k: int = ...,
        *,
        which: Literal["largest", "magnitude"] = ...,
        tol: float = ...,
        maxiter: int = ...,
        throw: bool = ...,
    ) -> Eigenpairs:
        """Return leading eigenpairs."""
        ...

    def ridge_solve(
        self,
        b: ArrayLike,
        ridge: float,
        *,
        tol: float = ...,
        maxiter: int = ...,
        landmarks: int | None = ...,
        throw: bool = ...,
        progress: Callable[[int, float], None] | None = ...,
    ) -> RidgeSolution:
        """Solve (K + λ I) x = b."""
        ...


def _check_operator(operator: Any, what: str) -> Equivalent | TiledSolvers:
    if isinstance(operator, type) or not isinstance(operator, Equivalent | TiledSolvers):
        raise TypeError(
            "`operator` must be an Equivalent, made by rmtntk.equivalent, or a KernelMatrix, got "
            f"{f'the class {operator.__name__}' if isinstance(operator, type) else type(operator).__name__}"
        )
    if not operator.is_symmetric:
        raise ValueError(f"`operator` must be a symmetric kernel for {what}, got a cross kernel of {operator.shape}")
    return operator


def _check_tiled(kernel: TiledSolvers, method: str, precision: str) -> None:
    if method == "direct":
        raise ValueError(
            f"`method` must be 'auto' or 'cg' for a kernel in tiles, got 'direct': if {kernel.shape[0]} rows fit into "
            "memory, take np.asarray(kernel) and scipy.linalg.solve(..., assume_a='pos')"
        )
    if precision != "double":
        raise ValueError(f"`precision` must be 'double' for a kernel in tiles, got {precision!r}: its tiles set it")


def eigenpairs(
    operator: Equivalent | TiledSolvers,
    k: int = 20,
    *,
    which: Literal["largest", "magnitude"] = "largest",
    tol: float = 1e-8,
    maxiter: int = 200,
    throw: bool = True,
) -> Eigenpairs:
    r"""Return the k leading eigenvalues and eigenvectors of a symmetric kernel.

    Parameters
    ----------
    operator : Equivalent or KernelMatrix
        Symmetric kernel. Of a :class:`rmtntk.KernelMatrix`, on disk or on the fly, this is its own method, always
        "lanczos": a pass over the tiles for each product.
    k : int
        How many, at most n.
    which : {"largest", "magnitude"}
        Largest values, or largest absolute values.
    tol : float
        Largest residual ‖K̃ v − λ v‖ over the largest |λ|.
    maxiter : int
        Most products with a block of about 1.25 k vectors.
    throw : bool
        Whether to raise if `tol` is not met; else the result says so.

    Returns
    -------
    Eigenpairs

    Raises
    ------
    ConvergenceError
        If `tol` is not met and `throw` is true.
    ValueError, TypeError
        If an argument is not as described.

    Notes
    -----
    For the theorem's form with p + K + 1 < n (method "gram"): K̃ − c I = W J Wᵀ, J = diag(±1), W of p + K + 1
    columns, and with WᵀW = E Γ Eᵀ its non-zero eigenvalues are those of Γ^{1/2} Eᵀ J E Γ^{1/2}; then Rayleigh–Ritz
    on the k vectors. n p² operations, O(n k) memory beyond the operator, residuals about 1e-15 ‖K̃‖. Vectors of
    eigenvalues close to each other are determined as a subspace only, as always.
    Method "dense" for n ≤ 1024 or where n is less than p: n³ operations.
    Method "lanczos" elsewhere: block Lanczos, as many products as the gaps between eigenvalues ask for, in O(20 k n)
    memory, from the vectors of the nearest kernel of the theorem's form where p is below 100 k (n p² operations). At
    the edge of a bulk they are many: ask for the outliers only, or take a larger `tol`; the values' errors are about
    tol² over the relative gap to the rest.
    """
    kernel = _check_operator(operator, "eigenpairs")
    if not isinstance(kernel, Equivalent):
        return kernel.eigenpairs(k, which=which, tol=tol, maxiter=maxiter, throw=throw)
    n, p = kernel.rows.shape
    k = check_integer(k, "k", low=1, high=n)
    check_choice(which, "which", ("largest", "magnitude"))
    tol = check_real(tol, "tol", low=0.0, open_low=True)
    maxiter = check_integer(maxiter, "maxiter", low=1)
    method = "lanczos"
    low = None
    if constant_parts(kernel) and p + kernel.factor.shape[1] < n:
        method, low = "gram", low_rank(kernel)
    elif n <= max(_DENSE_PAIRS, 4 * k) or (kernel.degree <= 1 and n <= min(p, _DENSE)):
        method = "dense"
    if low is not None:
        found = gram_pairs(kernel, low, k, which)
    elif method == "dense":
        found = dense_pairs(kernel, k, which)
    else:
        start = lanczos_start(kernel, k, block_width(n, k), which)
        found = block_lanczos(Product(kernel), n, k, which, tol, maxiter, start)
    return as_eigenpairs(found, k, tol, method, throw=throw)


def ridge_solve(
    operator: Equivalent | TiledSolvers,
    b: ArrayLike,
    ridge: float,
    *,
    method: Literal["auto", "direct", "cg"] = "auto",
    tol: float = 1e-8,
    maxiter: int = 1000,
    landmarks: int | None = None,
    precision: Literal["double", "mixed", "single"] = "double",
    throw: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> RidgeSolution:
    r"""Solve (K̃ + λ I) x = b.

    Parameters
    ----------
    operator : Equivalent or KernelMatrix
        Symmetric kernel K̃. Of a :class:`rmtntk.KernelMatrix`, on disk or on the fly, this is its own method, always
        "cg" in "double": a pass over the tiles for each iteration, `landmarks` 1000 by default.
    b : array_like, shape (n,) or (n, k)
        Right sides; several together share the products.
    ridge : float
        λ ≥ 0.
    method : {"auto", "direct", "cg"}
        "direct" is Woodbury's formula or, with powers of X Xᵀ above 1, a varying diagonal that is not positive or fewer
        samples than unknowns, the dense matrix. "cg" is block conjugate gradients, in O(n (p + landmarks)) memory.
        "auto" is "direct" for systems of up to 2048 unknowns and matrices of up to 8192 samples, else "cg".
    tol : float
        Largest relative residual of a column.
    maxiter : int
        Most iterations of "cg", each one product with all columns.
    landmarks : int, optional
        Size of the preconditioner of "cg", a Nyström approximation from so many samples; 0 is the diagonal alone. By
        default 2048, or n/4 if less; without powers above 1 the main factor of the linear term and the low rank.
    precision : {"double", "mixed", "single"}
        "mixed" forms the powers of X Xᵀ in float32 within "cg", twice as fast, and refines with products in float64.
        "single" computes the final residual in float32 as well: it is then right to about 1e-7 ‖ |K̃| |x| ‖ / ‖b‖.
    throw : bool
        Whether to raise if `tol` is not met; else the result says so.
    progress : callable, optional
        Called as progress(iterations, relative residual) after every iteration of "cg".

    Returns
    -------
    RidgeSolution

    Raises
    ------
    ConvergenceError
        If `tol` is not met and `throw` is true; with conjugate gradients also if K̃ + λ I is found not to be positive
        definite.
    MemoryLimitError
        If a dense matrix or system would not fit into memory.
    ValueError, TypeError
        If an argument is not as described.

    Notes
    -----
    Woodbury: K̃ + λ I = D + W J Wᵀ with D = λ + diag(s) > 0, W of q columns (p for each factor of the linear term, and
    the low rank), in n q² + q³/3 operations; the residual is computed with K̃ itself and the solution refined with it.
    `negative` counts negative eigenvalues: the equivalent of a positive kernel need not be positive. A direct solution
    is one of the linear system all the same.
    Conjugate gradients need at most about √κ log(2/tol)/2 iterations, κ the condition number after preconditioning
    with N Nᵀ + diag(K̃ + λ I − N Nᵀ), N from the landmarks: about 1 + (first eigenvalue that they miss)/(smallest of
    D), which grows with n and falls with λ. Products cost n² p operations for all columns together with powers above
    1 (each tile of X Xᵀ serves both its sides), else O(n p). Predictions need less than the default: with a residual
    of 1e-2, those for digits are within 1 % of the solution's (``validation/bench_equivalents.py``).
    """
    kernel = _check_operator(operator, "a ridge system")
    check_choice(method, "method", ("auto", "direct", "cg"))
    check_choice(precision, "precision", ("double", "mixed", "single"))
    if not isinstance(kernel, Equivalent):
        _check_tiled(kernel, method, precision)
        return kernel.ridge_solve(
            b, ridge, tol=tol, maxiter=maxiter, landmarks=landmarks, throw=throw, progress=progress
        )  # fmt: skip
    n = kernel.shape[0]
    block, flat = check_columns(b, "b", n)
    ridge = check_real(ridge, "ridge", low=0.0)
    tol = check_real(tol, "tol", low=0.0, open_low=True)
    maxiter = check_integer(maxiter, "maxiter", low=1)
    if landmarks is not None:
        landmarks = check_integer(landmarks, "landmarks", low=0, high=n)
    elif kernel.degree > 1:
        landmarks = min(_LANDMARKS, n // 4)
    diagonal = ridge + (np.zeros(n) if kernel.shift is None else kernel.shift)
    low = low_rank(kernel)
    formula = kernel.degree <= 1 and low.rank < n and bool(diagonal.min() > 0.0)
    small = (formula and low.rank <= _SYSTEM) or n <= _DENSE
    if method == "direct" or (method == "auto" and small):
        solver: Woodbury | Dense = Woodbury(low, diagonal) if formula else Dense(kernel, ridge)
        name = "woodbury" if formula else "dense"
        result = refined(kernel, solver, block, ridge, tol, name)
    else:
        result = conjugate(kernel, block, ridge, diagonal, tol, maxiter, landmarks, precision, progress)
    if throw and not result.converged:
        raise ConvergenceError(result.message, result.residual)
    return replace(result, x=result.x[:, 0]) if flat else result
