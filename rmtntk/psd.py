"""How far a kernel matrix is from losing its positive semi-definiteness to rounding, and which rows are to blame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

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
    Costs a few n³/3 operations: tridiagonal reduction, then one eigenpair at each end. Eigenvalues are accurate to
    `rounding`.

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
    values, vectors = linalg.eigh(matrix, subset_by_index=[0, 0], driver="evr")
    smallest = float(values[0])
    largest = smallest if n == 1 else float(linalg.eigh(matrix, eigvals_only=True, subset_by_index=[n - 1, n - 1])[0])
    rounding = n * float(np.finfo(np.float32 if single else np.float64).eps) * max(abs(smallest), abs(largest))
    rows = _rows_of(vectors[:, 0])
    return PsdMargin(smallest, largest, rounding, rows, smallest > rounding, _words(smallest, rounding, rows, matrix))


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
