r"""The part of an equivalent that a small linear system inverts: D + W J Wᵀ, J = diag(±1), by Woodbury's formula.

.. math:: (D + W J W^T)^{-1} = D^{-1} - D^{-1} W (J + W^T D^{-1} W)^{-1} W^T D^{-1}

Columns of W are those of diag(w_1) X, …, diag(w_r) X, and dense ones. In the order J = diag(I, −I) the q × q system
has a positive definite first block; with S = I − G₂₂ + G₂₁ (I + G₁₁)⁻¹ G₁₂, G = Wᵀ D⁻¹ W, the number of negative
eigenvalues of the whole is that of S (Haynsworth 1968, inertia of a Schur complement).
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh, solve_triangular
from scipy.linalg.lapack import dpocon

from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.operator import Equivalent, PowerTerm

__all__ = ["LowRank", "Woodbury", "linear_columns", "low_rank", "nystroem"]

_BLOCK = 4096
_ADVICE = "take method='cg', fewer landmarks, or fewer samples"


@dataclass(frozen=True, eq=False)
class LowRank:
    """W J Wᵀ, W = [diag(w_1) X, …, diag(w_r) X, F].

    Attributes
    ----------
    rows : ndarray, shape (n, p)
        X.
    weights, weight_signs : ndarray, shapes (n, r) and (r,)
        w_1 … w_r, and the entries of J for the p columns of each.
    columns, column_signs : ndarray, shapes (n, k) and (k,)
        F, of either float type, and the entries of J for it.
    """

    rows: FloatArray
    weights: FloatArray
    weight_signs: FloatArray
    columns: AnyArray
    column_signs: FloatArray

    @property
    def signs(self) -> FloatArray:
        """Diagonal of J, shape (q,)."""
        return np.concatenate([np.repeat(self.weight_signs, self.rows.shape[1]), self.column_signs])

    @property
    def rank(self) -> int:
        """Columns of W."""
        return self.weights.shape[1] * self.rows.shape[1] + self.columns.shape[1]

    def parts(self) -> list[slice]:
        """Return blocks of rows."""
        return [slice(start, start + _BLOCK) for start in range(0, len(self.rows), _BLOCK)]

    def block(self, part: slice) -> FloatArray:
        """Rows of W."""
        rows, weights = self.rows[part], self.weights[part]
        p, r = rows.shape[1], weights.shape[1]
        out = np.empty((len(rows), self.rank))
        for k in range(r):
            np.multiply(rows, weights[:, k, None], out=out[:, k * p : (k + 1) * p])
        out[:, r * p :] = self.columns[part]
        return out

    def gram(self, inverse: FloatArray) -> FloatArray:
        """Return Wᵀ diag(inverse) W in n q² operations."""
        check_memory(3 * 8 * self.rank**2, f"a system of {self.rank} unknowns", _ADVICE)
        out = np.zeros((self.rank, self.rank))
        root = np.sqrt(inverse)
        for part in self.parts():
            block = self.block(part)
            block *= root[part, None]
            out += block.T @ block
        return out

    def project(self, vectors: FloatArray) -> FloatArray:
        """Wᵀ B."""
        p, r = self.rows.shape[1], self.weights.shape[1]
        out = np.zeros((self.rank, vectors.shape[1]))
        for part in self.parts():
            for k in range(r):
                out[k * p : (k + 1) * p] += self.rows[part].T @ (self.weights[part, k, None] * vectors[part])
            out[r * p :] += self.columns[part].T @ vectors[part].astype(self.columns.dtype, copy=False)
        return out

    def expand(self, values: FloatArray) -> FloatArray:
        """W Y."""
        p, r = self.rows.shape[1], self.weights.shape[1]
        last = values[r * p :].astype(self.columns.dtype, copy=False)
        out = np.empty((len(self.rows), values.shape[1]))
        for part in self.parts():
            out[part] = self.columns[part] @ last
            for k in range(r):
                out[part] += self.weights[part, k, None] * (self.rows[part] @ values[k * p : (k + 1) * p])
        return out


def linear_columns(operator: Equivalent) -> tuple[FloatArray, FloatArray]:
    """Return w_1 … w_r, shape (n, r), and signs ±1 with Σ_r ± diag(w_r) X Xᵀ diag(w_r) the operator's linear terms."""
    weights = [term.left for term in operator.terms if term.power == 1]
    signs = [np.where((term.left * term.right).sum(0) < 0.0, -1.0, 1.0) for term in operator.terms if term.power == 1]
    if not weights:
        return np.zeros((operator.shape[0], 0)), np.zeros(0)
    joined, sign = np.concatenate(weights, axis=1), np.concatenate(signs)
    keep = joined.any(axis=0)
    return joined[:, keep], sign[keep]


def _dense_columns(operator: Equivalent) -> tuple[FloatArray, FloatArray]:
    """F̂ and signs with F̂ J F̂ᵀ = F A Hᵀ; that matrix is symmetric, so that its range is in the range of F."""
    q, r = np.linalg.qr(operator.factor)
    core = (r @ operator.core) @ (operator.factor_right.T @ q)
    values, vectors = np.linalg.eigh(0.5 * (core + core.T))
    size = np.abs(values)
    keep = size > np.finfo(np.float64).eps * len(size) * size.max(initial=0.0)
    return (q @ vectors[:, keep]) * np.sqrt(size[keep]), np.sign(values[keep])


def low_rank(operator: Equivalent) -> LowRank:
    """Return the linear terms and the low rank of an operator: all of it but the diagonal and higher powers."""
    weights, signs = linear_columns(operator)
    return LowRank(operator.rows, weights, signs, *_dense_columns(operator))


class Woodbury:
    """(D + W J Wᵀ)⁻¹, D > 0.

    Attributes
    ----------
    negative : int
        Number of negative eigenvalues of D + W J Wᵀ.
    rcond : float
        Reciprocal condition number of the system's positive definite block, in the 1-norm.
    """

    def __init__(self, low: LowRank, diagonal: FloatArray) -> None:
        self.low = low
        self.inverse = 1.0 / diagonal
        gram = low.gram(self.inverse)
        signs = low.signs
        self.first, self.last = np.flatnonzero(signs > 0.0), np.flatnonzero(signs < 0.0)
        across = gram[np.ix_(self.first, self.last)]
        corner = gram[np.ix_(self.last, self.last)]
        head = gram if not len(self.last) else gram[np.ix_(self.first, self.first)]
        head[np.diag_indices_from(head)] += 1.0
        norm = float(np.abs(head).sum(axis=0).max(initial=0.0))
        self.rcond, self.negative = 1.0, 0
        if len(self.first):
            self.factor = cho_factor(head, lower=True, overwrite_a=True, check_finite=False)
            self.rcond = float(dpocon(self.factor[0], norm, uplo="L")[0])
        self.across = across
        if len(self.last):
            schur = np.eye(len(self.last)) - corner + across.T @ self._head(across)
            self.values, self.vectors = eigh(0.5 * (schur + schur.T))
            self.negative = int((self.values < 0.0).sum())

    def _head(self, right: FloatArray) -> FloatArray:
        return np.asarray(cho_solve(self.factor, right, check_finite=False)) if len(self.first) else right

    def solve(self, right: FloatArray) -> FloatArray:
        """Return (D + W J Wᵀ)⁻¹ B, shape (n, k)."""
        scaled = self.inverse[:, None] * right
        target = self.low.project(scaled)
        found = np.empty_like(target)
        head = self._head(target[self.first])
        if len(self.last):
            beyond = self.vectors.T @ (self.across.T @ head - target[self.last])
            with np.errstate(divide="ignore", invalid="ignore"):  # an exactly singular matrix: the residual shows it
                beyond = self.vectors @ (beyond / self.values[:, None])
            found[self.last] = beyond
            head = head - self._head(self.across @ beyond)
        found[self.first] = head
        return scaled - self.inverse[:, None] * self.low.expand(found)


def nystroem(operator: Equivalent, landmarks: int, dtype: type = np.float32) -> AnyArray:
    """Return N, shape (n, m), with N Nᵀ = K_S K_SS⁻¹ K_Sᵀ for m columns S drawn with a fixed seed, diagonal left out.

    For preconditioning: K_SS is lifted by 1e-6 of its mean diagonal, or its negative part is left out if there is one.
    """
    n = operator.shape[0]
    check_memory(n * landmarks * np.dtype(dtype).itemsize, f"a preconditioner of {landmarks} landmarks", _ADVICE)
    chosen = np.sort(np.random.default_rng(0).choice(n, size=landmarks, replace=False))
    corner = _columns(operator, chosen, chosen)
    corner = 0.5 * (corner + corner.T)
    lifted = corner + 1e-6 * np.abs(np.diag(corner)).mean() * np.eye(landmarks)
    out = np.empty((n, landmarks), dtype=dtype)
    try:
        lower = np.linalg.cholesky(lifted)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(corner)
        keep = values > 1e-8 * values[-1]
        out = out[:, : int(keep.sum())]
        basis = vectors[:, keep] / np.sqrt(values[keep])
        for start in range(0, n, _BLOCK):
            out[start : start + _BLOCK] = _columns(operator, slice(start, start + _BLOCK), chosen) @ basis
        return out
    for start in range(0, n, _BLOCK):
        part = _columns(operator, slice(start, start + _BLOCK), chosen)
        out[start : start + _BLOCK] = solve_triangular(lower, part.T, lower=True, check_finite=False).T
    return out


def _columns(operator: Equivalent, part: slice | np.ndarray, chosen: np.ndarray) -> FloatArray:
    """Entries of an operator without its diagonal."""
    terms = tuple(PowerTerm(term.power, term.left[part], term.right[chosen]) for term in operator.terms)
    return Equivalent(
        operator.rows[part], terms, operator.factor[part], operator.core, None, operator.coefficients,
        columns=operator.rows[chosen], factor_right=operator.factor_right[chosen],
    ).to_dense()  # fmt: skip
