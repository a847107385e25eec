"""How far a kernel matrix is from losing its positive semi-definiteness to rounding, and which rows are to blame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from scipy.linalg import lapack

from rmtntk._typing import FloatArray
from rmtntk._validation import check_square

__all__ = ["PsdMargin", "psd_margin"]

_SHARE = 0.9  # of the eigenvector's squared length that the named rows hold
_NAMED = 8  # rows named at most


@dataclass(frozen=True, eq=False)
class PsdMargin:
    """Smallest eigenvalue of a kernel matrix.

    Attributes
    ----------
    smallest, largest : float
        Extreme eigenvalues.
    rounding : float
        n · eps · largest, what rounding of entries can move an eigenvalue by; eps is that of the kernel's own dtype.
    rows : tuple of int
        Rows that hold most of the eigenvector of `smallest`, largest first; empty if it is spread over many.
    positive : bool
        Whether `smallest` > `rounding`: a Cholesky factor exists whatever the rounding.
    message : str
        The same in words, with the likely cause and what to do.
    """

    smallest: float
    largest: float
    rounding: float
    rows: tuple[int, ...]
    positive: bool
    message: str


def psd_margin(kernel: ArrayLike) -> PsdMargin:
    r"""Return the smallest eigenvalue of a kernel matrix and why it is what it is.

    Parameters
    ----------
    kernel : array_like, shape (n, n)
        Symmetric, finite, n ≥ 1; a CK, NNGP or NTK.

    Returns
    -------
    PsdMargin

    Raises
    ------
    TypeError, ValueError
        If `kernel` is not a finite symmetric matrix (the NTK of a step network has no finite diagonal: give it one
        with ``diagonal=``).

    Notes
    -----
    Costs 4n³/3 operations, a reduction to tridiagonal form, and one copy of the matrix; both ends of the spectrum are
    then found in O(n²). Eigenvalues are accurate to `rounding`.

    Examples
    --------
    >>> import numpy as np, rmtntk as rn
    >>> x = np.random.default_rng(0).standard_normal((5, 40))
    >>> x[3] = x[1]
    >>> rn.psd_margin(rn.ck(rn.Network(["relu"]), x)).rows
    (1, 3)
    """
    single = getattr(kernel, "dtype", None) == np.float32
    matrix = check_square(kernel, "kernel")
    n = len(matrix)
    smallest, largest, vector = _ends(matrix)
    rounding = n * float(np.finfo(np.float32 if single else np.float64).eps) * max(abs(smallest), abs(largest))
    rows = _rows_of(vector)
    return PsdMargin(smallest, largest, rounding, rows, smallest > rounding, _words(smallest, rounding, rows, matrix))


def _ends(matrix: FloatArray) -> tuple[float, float, FloatArray]:
    """Return the extreme eigenvalues and the eigenvector of the smallest, from one reduction A = Q T Qᵀ."""
    n = len(matrix)
    if n == 1:
        return float(matrix[0, 0]), float(matrix[0, 0]), np.ones(1)
    size = int(lapack.dsytrd_lwork(n, lower=1)[0])
    reduced, diagonal, beside, tau, _ = lapack.dsytrd(matrix, lower=1, lwork=size)
    # T over its largest entry: eigenvalues far from 1 cost LAPACK's bisection digits
    scale = max(float(np.abs(diagonal).max()), float(np.abs(beside).max())) or 1.0
    diagonal, beside = diagonal / scale, beside / scale
    values, vectors = linalg.eigh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))
    top = linalg.eigh_tridiagonal(diagonal, beside, eigvals_only=True, select="i", select_range=(n - 1, n - 1))
    # Q leaves the first coordinate alone, and acts on the others by the reflections below the diagonal.
    size = int(lapack.dormqr("L", "N", reduced[1:, :-1], tau, vectors[1:], -1)[1][0])
    rest = lapack.dormqr("L", "N", reduced[1:, :-1], tau, vectors[1:], size)[0]
    return scale * float(values[0]), scale * float(top[0]), np.concatenate([vectors[0], rest[:, 0]])


def _rows_of(vector: FloatArray) -> tuple[int, ...]:
    order = np.argsort(-np.abs(vector), kind="stable")
    share = np.cumsum(vector[order] ** 2)
    count = int(np.argmax(share >= _SHARE)) + 1
    return tuple(sorted(int(k) for k in order[:count])) if count <= _NAMED else ()


def _words(smallest: float, rounding: float, rows: tuple[int, ...], matrix: FloatArray) -> str:
    state = f"smallest eigenvalue {smallest:.3g}, rounding {rounding:.3g}: "
    if smallest > rounding:
        return state + "positive definite beyond rounding"
    if smallest < -rounding:
        return (
            state
            + "not positive semi-definite, by more than rounding: entries were changed, or the diagonal was filled "
            "with values too small for a step network's NTK"
        )
    if not rows:
        return (
            state
            + "singular to rounding in a direction spread over many rows: fewer dimensions than samples (a linear "
            "layer?), or more samples than the dtype can tell apart; add a ridge of the size of the rounding"
        )
    names = ", ".join(str(k) for k in rows)
    if len(rows) == 1:
        zero = matrix[rows[0], rows[0]] == 0.0
        return state + f"row {names} " + ("is a zero input" if zero else "has a diagonal far below the others'")
    return (
        state
        + f"singular to rounding because of rows {names}: duplicates, or rows that depend on each other; drop some"
    )
