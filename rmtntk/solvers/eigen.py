"""Leading eigenpairs of an equivalent: through a p × p matrix where that is exact, by block Lanczos elsewhere."""

from dataclasses import dataclass

import numpy as np

from rmtntk._typing import FloatArray, IntArray
from rmtntk.errors import ConvergenceError
from rmtntk.operator import Equivalent
from rmtntk.solvers.krylov import Ritz
from rmtntk.solvers.lowrank import LowRank, low_rank

__all__ = ["Eigenpairs", "as_eigenpairs", "constant_parts", "dense_pairs", "gram_pairs", "lanczos_start", "order_of"]

_RANDOM = 0.1  # share of random numbers in the vectors to start from beyond the wanted ones
_WORTH = 100  # columns of W per vector of a block, up to which the start costs less than the products it saves
_CUT = 1e-13  # of the largest eigenvalue of WᵀW: below it there are only rounding errors


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Leading eigenpairs.

    Attributes
    ----------
    values : ndarray, shape (k,)
        Descending.
    vectors : ndarray, shape (n, k)
        Orthonormal columns.
    residuals : ndarray, shape (k,)
        ‖K v − λ v‖ of each; λ is within this distance of an eigenvalue.
    converged : bool
        Whether every residual is at most ``tol`` times the largest |λ|.
    n_iter : int
        Products with blocks of vectors; passes over all tiles of a kernel in tiles.
    method : {"gram", "dense", "lanczos"}
        How.
    message : str
        Outcome in words.
    """

    values: FloatArray
    vectors: FloatArray
    residuals: FloatArray
    converged: bool
    n_iter: int
    method: str
    message: str


def as_eigenpairs(found: Ritz, k: int, tol: float, method: str, *, throw: bool) -> Eigenpairs:
    """Return pairs by descending value and say whether `tol` is met, or raise ConvergenceError if it is not."""
    order = np.argsort(-found.values, kind="stable")
    values, vectors, residuals = found.values[order], found.vectors[:, order], found.residuals[order]
    limit = tol * float(np.abs(values).max(initial=0.0))
    worst = float(residuals.max(initial=0.0))
    missed = k - int((residuals <= limit).sum())
    message = f"all {k} residuals are at most {worst:.1e}, wanted {limit:.1e}"
    if missed:
        message = (
            f"{missed} of {k} residuals are above {limit:.1e} after {found.n_iter} products (largest {worst:.1e}): "
            "take a larger `maxiter` or `tol`, or another `k`, since eigenvalues inside a bulk are hard to tell apart"
        )
        if throw:
            raise ConvergenceError(message, worst)
    return Eigenpairs(values, vectors, residuals, missed == 0, found.n_iter, method, message)


def constant_parts(operator: Equivalent) -> bool:
    """Whether the kernel is a fixed matrix of low rank plus a multiple of the identity: the theorem's form."""
    shift = operator.shift
    constant = shift is None or bool((shift == shift[0]).all())
    return operator.degree <= 1 and constant and all((term.left == term.left[0]).all() for term in operator.terms)


def order_of(values: FloatArray, which: str) -> IntArray:
    """Return the positions of values, wanted ones first."""
    return np.argsort(-values if which == "largest" else -np.abs(values), kind="stable")


def gram_pairs(operator: Equivalent, low: LowRank, k: int, which: str) -> Ritz:
    """Return eigenpairs of W J Wᵀ + c I from WᵀW = E Γ Eᵀ and Γ^{1/2} Eᵀ J E Γ^{1/2}: n q² + q³ operations.

    Vectors of eigenvalues λ come out with an error of about 1e-16 ‖WᵀW‖/|λ − c|, which a QR decomposition of the k
    vectors and Rayleigh–Ritz on their span take to rounding: residuals of about 1e-15 ‖K̃‖.
    """
    c = 0.0 if operator.shift is None else float(operator.shift[0])
    vectors = np.linalg.qr(_gram_vectors(low, c, k, which))[0]
    image = operator @ vectors
    inner = vectors.T @ image
    values, turn = np.linalg.eigh(0.5 * (inner + inner.T))
    place = order_of(values, which)
    values, turn = values[place], turn[:, place]
    vectors, image = vectors @ turn, image @ turn
    return Ritz(values, vectors, np.linalg.norm(image - vectors * values, axis=0), 1, True)


def _gram_vectors(low: LowRank, c: float, k: int, which: str) -> FloatArray:
    """Leading k eigenvectors of W J Wᵀ + c I, shape (n, k), each other's only to what :func:`gram_pairs` says."""
    n = len(low.rows)
    gamma, basis = np.linalg.eigh(low.gram(np.ones(n)))
    keep = gamma > _CUT * gamma.max(initial=0.0)
    basis, root = basis[:, keep], np.sqrt(gamma[keep])
    inner = root[:, None] * (basis.T @ (low.signs[:, None] * basis)) * root
    small, turn = np.linalg.eigh(0.5 * (inner + inner.T))
    known = np.concatenate([small, np.zeros(min(k, n - len(small)))])  # all other eigenvalues are c
    chosen = order_of(known + c, which)[:k]
    inside = chosen[chosen < len(small)]
    vectors = low.expand(basis @ (turn[:, inside] / root[:, None]))
    missing = len(chosen) - len(inside)
    if missing:
        start = np.random.default_rng(0).standard_normal((n, missing))
        project = basis / root  # W project is an orthonormal basis of the range
        for _ in range(2):
            start -= low.expand(project @ (project.T @ low.project(start)))
        vectors = np.concatenate([vectors, start], axis=1)
    return vectors


def lanczos_start(operator: Equivalent, k: int, width: int, which: str) -> FloatArray:
    """Return a block to start from, shape (n, width), fixed.

    Its vectors are those of the kernel nearest to the theorem's form: the largest linear factor, the low rank and the
    mean of the diagonal. That leaves out some per cent of ‖K̃‖, and saves most of the products where eigenvalues are
    close. Those beyond the first k have a tenth of random numbers in them, so that nothing is out of reach; all are
    random where that form is not worth its n q² operations.
    """
    n, p = operator.rows.shape
    block = np.random.default_rng(0).standard_normal((n, width))
    low = low_rank(operator)
    if not len(low.weight_signs) or width > p or not p + low.columns.shape[1] < min(n, _WORTH * width):
        return block
    main = int(np.argmax(np.einsum("ij,ij->j", low.weights, low.weights)))
    low = LowRank(low.rows, low.weights[:, [main]], low.weight_signs[[main]], low.columns, low.column_signs)
    known = _gram_vectors(low, 0.0 if operator.shift is None else float(operator.shift.mean()), width, which)
    known /= np.linalg.norm(known, axis=0)
    known[:, k:] += _RANDOM / np.sqrt(n) * block[:, k:]
    return known


def dense_pairs(operator: Equivalent, k: int, which: str) -> Ritz:
    """Return eigenpairs of the dense matrix: n³ operations."""
    dense = operator.to_dense()
    values, vectors = np.linalg.eigh(dense)
    chosen = order_of(values, which)[:k]
    values, vectors = values[chosen], np.ascontiguousarray(vectors[:, chosen])
    return Ritz(values, vectors, np.linalg.norm(dense @ vectors - vectors * values, axis=0), 1, True)
