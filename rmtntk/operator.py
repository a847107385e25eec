r"""Kernels in O(n p) memory: sums of powers of a Gram matrix with per-sample factors, low rank and a diagonal.

.. math:: \tilde K = \sum_t (L_t R_t^T) \circ (X Y^T)^{\circ k_t} + F A H^T + \mathrm{diag}(s)

with Y = X, R = L up to signs, H = F and the diagonal for a symmetric kernel, and none of these for a cross kernel.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigsh

from rmtntk._memory import check_memory
from rmtntk._typing import FloatArray
from rmtntk._validation import check_square
from rmtntk.coefficients import Coefficients

__all__ = ["Equivalent", "PowerTerm", "operator_norm", "spectral_error"]

_TILE = 1 << 19  # entries of a tile of X Yᵀ, 4 MiB


class PowerTerm(NamedTuple):
    """(L Rᵀ) ∘ (X Yᵀ)^{∘power}.

    Attributes
    ----------
    power : int
        Power of every entry of X Yᵀ, at least 1.
    left, right : ndarray, shapes (n, r) and (m, r)
        L and R.
    """

    power: int
    left: FloatArray
    right: FloatArray


class Equivalent(LinearOperator):  # type: ignore[misc]  # SciPy has no types: its class counts as Any
    r"""Kernel as an operator: Σ_t (L_t R_tᵀ) ∘ (X Yᵀ)^{∘k_t} + F A Hᵀ + diag(s); made by :func:`rmtntk.equivalent`.

    Attributes
    ----------
    rows, columns : ndarray, shapes (n, p) and (m, p)
        X and Y, scaled so that X Yᵀ is K_0; the same array for a symmetric kernel.
    terms : tuple of PowerTerm
        The theorem's form has the single term c1 X Xᵀ.
    factor, core, factor_right : ndarray, shapes (n, k), (k, k) and (m, k)
        F, A and H; the theorem's V, A and V.
    shift : ndarray, shape (n,), or None
        s; constant and equal to c for the theorem's form; None for a cross kernel.
    coefficients : Coefficients or None
        The theorem's numbers for this network; None for "second_order", which does not use them, where they are not
        known: :func:`rmtntk.coefficients` says why.

    Notes
    -----
    A product costs O((n + m) p r) for terms of power 1. A square goes either through X (Xᵀ diag(u) X) Xᵀ, in
    4 n p² r operations, or, like every higher power, through tiles of X Yᵀ, in 2 n m p for all terms together; the
    cheaper way is taken. Neither needs more than a few MiB beyond its arguments and a p × p matrix.
    """

    def __init__(
        self,
        rows: FloatArray,
        terms: tuple[PowerTerm, ...],
        factor: FloatArray,
        core: FloatArray,
        shift: FloatArray | None,
        source: Coefficients | None,
        *,
        columns: FloatArray | None = None,
        factor_right: FloatArray | None = None,
    ) -> None:
        columns = rows if columns is None else columns
        super().__init__(dtype=np.dtype(np.float64), shape=(len(rows), len(columns)))
        self.rows = rows
        self.columns = columns
        self.terms = terms
        self.factor = factor
        self.core = core
        self.factor_right = factor if factor_right is None else factor_right
        self.shift = shift
        self.coefficients = source

    @property
    def is_symmetric(self) -> bool:
        """Whether this is the kernel of one set of samples, not a cross kernel."""
        return self.columns is self.rows

    @property
    def degree(self) -> int:
        """Highest power of X Yᵀ."""
        return max((term.power for term in self.terms), default=0)

    @property
    def streamed(self) -> bool:
        """Whether a product with one vector forms tiles of X Yᵀ: for powers above 2, or where that is cheaper."""
        return self._streams(1)

    def _streams(self, width: int) -> bool:
        """Tell the same for a block of vectors, which tiles serve all at once."""
        (n, m), p = self.shape, self.rows.shape[1]
        squares = sum(term.left.shape[1] for term in self.terms if term.power == 2)
        return self.degree > 2 or (squares > 0 and n * m < (n + m) * p * squares * width)

    def _matvec(self, vector: FloatArray) -> FloatArray:
        return self._matmat(np.reshape(vector, (-1, 1)))[:, 0]

    def _matmat(self, other: FloatArray) -> FloatArray:
        block = np.asarray(other)
        out = np.asarray(self.factor @ (self.core @ (self.factor_right.T @ block)))
        if self.shift is not None:
            out += self.shift[:, None] * block
        streamed = self._streams(block.shape[1])
        for term in self.terms:
            if term.power == 1 and not streamed:
                self._add_linear(term, block, out)
            elif term.power == 2 and not streamed:
                self._add_square(term, block, out)
        if streamed:
            for start, stop in self._tiles():
                out[start:stop] += self._tile(start, stop) @ block
        return out

    def _add_linear(self, term: PowerTerm, block: FloatArray, out: FloatArray) -> None:
        """Add Σ_r diag(l_r) X Yᵀ diag(r_r) B, all factors at once."""
        width, rank = block.shape[1], term.left.shape[1]
        if rank == 1:  # no copy of the block per factor
            out += term.left * (self.rows @ (self.columns.T @ (term.right * block)))
            return
        if rank == 0:  # a power without a coefficient of any size
            return
        inner = np.empty((self.rows.shape[1], rank, width), dtype=block.dtype)
        for r in range(rank):
            inner[:, r] = self.columns.T @ (term.right[:, r, None] * block)
        for start in range(0, len(self.rows), 4096):
            part = slice(start, start + 4096)
            image = (self.rows[part] @ inner.reshape(len(inner), -1)).reshape(-1, rank, width)
            out[part] += np.einsum("ir,irk->ik", term.left[part], image)

    def _add_square(self, term: PowerTerm, block: FloatArray, out: FloatArray) -> None:
        """Add Σ_r diag(l_r) (X Yᵀ)^{∘2} diag(r_r) B, with (X Yᵀ)^{∘2} u = diag(X (Yᵀ diag(u) Y) Xᵀ)."""
        for r in range(term.left.shape[1]):
            for k in range(block.shape[1]):
                weights = term.right[:, r] * block[:, k]
                inner = np.zeros((self.rows.shape[1],) * 2, dtype=weights.dtype)
                for start in range(0, len(self.columns), 4096):
                    part = self.columns[start : start + 4096]
                    inner += part.T @ (weights[start : start + 4096, None] * part)
                for start in range(0, len(self.rows), 4096):
                    part = self.rows[start : start + 4096]
                    found = np.einsum("ij,ij->i", part @ inner, part)
                    out[start : start + 4096, k] += term.left[start : start + 4096, r] * found

    def _tiles(self) -> list[tuple[int, int]]:
        height = max(1, _TILE // self.shape[1])
        return [(start, min(start + height, self.shape[0])) for start in range(0, self.shape[0], height)]

    def _tile(self, start: int, stop: int) -> FloatArray:
        """Return the terms' rows start … stop; Horner's rule over the powers."""
        by_power: dict[int, list[PowerTerm]] = {}
        for term in self.terms:
            by_power.setdefault(term.power, []).append(term)
        gram = self.rows[start:stop] @ self.columns.T
        out = np.zeros_like(gram)
        for power in range(self.degree, 0, -1):
            for term in by_power.get(power, ()):
                if term.left.shape[1] == 1:  # the product is then exactly symmetric
                    out += term.left[start:stop] * term.right[:, 0]
                else:
                    out += term.left[start:stop] @ term.right.T
            out *= gram
        return out

    def _adjoint(self) -> "Equivalent":
        if self.is_symmetric:
            return self
        flipped = tuple(PowerTerm(term.power, term.right, term.left) for term in self.terms)
        return Equivalent(
            self.columns, flipped, self.factor_right, self.core.T, None, self.coefficients,
            columns=self.rows, factor_right=self.factor,
        )  # fmt: skip

    def _transpose(self) -> "Equivalent":
        return self._adjoint()

    def _require_symmetric(self, what: str) -> None:
        if not self.is_symmetric:
            raise ValueError(f"a cross kernel has no {what}: its shape is {self.shape}")

    def diagonal(self) -> FloatArray:
        """Return the diagonal, shape (n,), of a symmetric kernel."""
        self._require_symmetric("diagonal")
        square = np.einsum("ij,ij->i", self.rows, self.rows)
        out = np.einsum("ij,ij->i", self.factor @ self.core, self.factor_right)
        if self.shift is not None:
            out += self.shift
        for term in self.terms:
            out += square**term.power * np.einsum("ir,ir->i", term.left, term.right)
        return np.asarray(out)

    def trace(self) -> float:
        """Return the trace of a symmetric kernel."""
        return float(self.diagonal().sum())

    def to_dense(self) -> FloatArray:
        """Return the matrix, shape (n, m), exactly symmetric if the kernel is.

        Raises
        ------
        MemoryLimitError
            If the matrix would not fit into memory.
        """
        check_memory(2 * 8 * self.shape[0] * self.shape[1], f"a dense kernel of shape {self.shape}")
        dense = np.empty(self.shape)
        half = self.core @ self.factor_right.T
        for start, stop in self._tiles():
            dense[start:stop] = self._tile(start, stop)
            dense[start:stop] += self.factor[start:stop] @ half
        if self.is_symmetric:
            for start, stop in self._tiles():  # tiles differ from their mirror images by rounding
                upper = dense[start:stop, start:]
                mean = 0.5 * (upper + dense[start:, start:stop].T)
                dense[start:stop, start:] = mean
                dense[start:, start:stop] = mean.T
            if self.shift is not None:
                dense[np.diag_indices_from(dense)] += self.shift
        return dense


def operator_norm(matrix: FloatArray | Equivalent) -> float:
    """Largest absolute eigenvalue of a symmetric matrix or operator, to about 1e-7 relative."""
    n = matrix.shape[0]
    if n <= 64:
        dense = matrix.to_dense() if isinstance(matrix, Equivalent) else matrix
        return float(np.abs(np.linalg.eigvalsh(dense)).max())
    start = np.random.default_rng(0).standard_normal(n)  # fixed: the result is deterministic
    if not (matrix @ start).any():  # Lanczos cannot start on the zero matrix
        return 0.0
    values = eigsh(matrix, k=1, which="LM", tol=1e-7, v0=start, return_eigenvectors=False, maxiter=10 * n)
    return float(abs(values[0]))


def spectral_error(k: ArrayLike, eq: Equivalent | ArrayLike | LinearOperator) -> float:
    """Return ‖K − K̃‖ / ‖K‖ in operator norm, to about 1e-6 relative.

    Parameters
    ----------
    k : array_like, shape (n, n)
        Symmetric kernel matrix.
    eq : Equivalent, array_like or LinearOperator, shape (n, n)
        What to compare it with; another operator is made an array by its products with the unit vectors.

    Raises
    ------
    ValueError
        If shapes differ, `k` is zero or not finite and symmetric, or `eq` is a cross kernel.
    """
    matrix = check_square(k, "k")
    if isinstance(eq, Equivalent) and not eq.is_symmetric:
        raise ValueError(
            f"`eq` must be a symmetric kernel, got a cross kernel of shape {eq.shape}: compare with "
            "eq.to_dense() directly"
        )
    if isinstance(eq, LinearOperator) and not isinstance(eq, Equivalent):
        eq = eq @ np.eye(eq.shape[1])
    other: Any = eq.to_dense() if isinstance(eq, Equivalent) else check_square(eq, "eq")
    if other.shape != matrix.shape:
        raise ValueError(f"`eq` must have the shape of `k`, {matrix.shape}, got {other.shape}")
    size = operator_norm(matrix)
    if size == 0.0:
        raise ValueError("`k` must not be zero: the relative error is undefined")
    return operator_norm(matrix - other) / size
