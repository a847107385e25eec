"""Covariances and class sizes of G = Z Zᵀ: checked, diagonalised where they commute, and parted where G falls apart."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import AnyArray, FloatArray
from rmtntk._validation import check_array, check_integer, check_square
from rmtntk.errors import ConvergenceError
from rmtntk.stieltjes.noise import DenseSpectrum, JointSpectrum, Spectrum, common_basis, linked_classes
from rmtntk.stieltjes.rank import generic_rank
from rmtntk.stieltjes.solver import Core
from rmtntk.stieltjes.table import Interval, support

__all__ = ["Ensemble", "Part"]

_DECADES = 4.0


@dataclass(frozen=True, eq=False)
class Part:
    """Classes linked to each other, and what G's block of their rows looks like near zero."""

    index: AnyArray
    core: Core
    scale: float
    rank: float
    hard: bool

    @property
    def atom(self) -> float:
        """Share of zero eigenvalues among the rows."""
        return max(0.0, 1.0 - self.rank / float(self.core.gamma.sum()))

    @cached_property
    def intervals(self) -> list[Interval]:
        """The support in units of `scale`, with tables."""
        try:
            return support(self.core, self.atom, self.hard)
        except ConvergenceError as error:
            raise self.advised(error) from error

    def advised(self, error: ConvergenceError) -> ConvergenceError:
        """Return the error with what to try, if covariances of nearly the same range are behind it."""
        spectrum = self.core.spectrum
        if not isinstance(spectrum, DenseSpectrum):
            return error
        values = np.linalg.eigvalsh(spectrum.matrices.sum(axis=0))
        positive = values[values > len(values) * np.finfo(np.float64).eps * values[-1]]
        decades = float(np.log10(positive[-1] / positive[0]))
        if decades < _DECADES:
            return error
        return ConvergenceError(
            f"{error}. The positive eigenvalues of the covariances' sum extend over {decades:.1f} decades, as if their "
            "ranges nearly coincided, which p × p inverses do not resolve: add 1e-6 of the mean variance to the "
            "diagonals of `covariances` (it moves the spectrum by as much), or take diagonal ones",
            error.residual,
        )


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What a :class:`Bulk` is the spectrum of; parameters and errors as there."""

    covariances: FloatArray
    counts: FloatArray
    n: float
    p: int

    def __init__(self, covariances: ArrayLike, counts: ArrayLike, n_features: int) -> None:
        p = check_integer(n_features, "n_features", low=1)
        cov = check_array(covariances, "covariances", max(1, min(3, np.ndim(covariances))))
        k = len(cov)
        if cov.shape not in ((k,), (k, p), (k, p, p)):
            raise ValueError(
                f"`covariances` must have shape (K,), (K, {p}) or (K, {p}, {p}) for {p} features, got {cov.shape}"
            )
        number = check_array(counts, "counts", 1)
        if number.shape != (k,) or (number <= 0.0).any():
            raise ValueError(f"`counts` must be {k} positive numbers, one per covariance, got {number.tolist()}")
        if cov.ndim < 3 and (cov < 0.0).any():
            raise ValueError(f"`covariances` must not be negative, got an entry {cov.min():g}")
        for a in range(k if cov.ndim == 3 else 0):
            check_square(cov[a], f"covariances[{a}]")
        values = {"covariances": cov, "counts": number, "n": float(number.sum()), "p": p}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if cov.ndim == 3 and self._basis is None:
            _check_semidefinite(cov)

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.counts)

    @cached_property
    def _basis(self) -> tuple[FloatArray, FloatArray] | None:
        """Common eigenvectors and eigenvalues of full covariances, None if there are none."""
        if self.covariances.ndim < 3:
            return None
        found = common_basis(np.asarray(0.5 * (self.covariances + np.swapaxes(self.covariances, 1, 2))))
        if found is not None and (found[1] < 0.0).any():
            _check_semidefinite(self.covariances)
        return found

    @cached_property
    def _spectrum(self) -> Spectrum:
        if self.covariances.ndim == 1:
            return JointSpectrum.of(self.covariances[:, None], 1.0)
        if self.covariances.ndim == 2:
            return JointSpectrum.of(self.covariances, self.p)
        if self._basis is not None:
            return JointSpectrum.of(self._basis[1], self.p)
        return DenseSpectrum(np.asarray(0.5 * (self.covariances + np.swapaxes(self.covariances, 1, 2))))

    @cached_property
    def _parts(self) -> list[Part]:
        parts = []
        for group in linked_classes(self._spectrum):
            index = np.array(group)
            spectrum = self._spectrum.classes(index)
            scale = float(spectrum.largest.max())
            spectrum = spectrum.scaled(1.0 / scale)
            gamma = self.counts[index] / self.p
            parts.append(Part(index, Core(spectrum, gamma), scale, *generic_rank(spectrum, gamma)))
        return parts

    @property
    def atom(self) -> float:
        """Mass of the eigenvalue 0: 1 − rank(Z)/n in the limit, 1 − p/n if p < n and no covariance is singular."""
        rank = sum(part.rank for part in self._parts)
        return float(max(0.0, 1.0 - rank * self.p / self.n))

    @property
    def _zero(self) -> AnyArray:
        """Classes of zero covariance."""
        return np.setdiff1d(np.arange(self.n_classes), np.concatenate([[], *(part.index for part in self._parts)]))

    def _combine(self, weights: AnyArray, shift: complex | float, block: AnyArray, *, invert: bool) -> AnyArray:
        """(Σ w_b C_b + shift I) M or its inverse times M."""
        if self.covariances.ndim == 3 and self._basis is None:
            matrix = np.tensordot(weights, self.covariances, axes=(0, 0))
            matrix[np.diag_indices_from(matrix)] += shift
            return np.asarray(np.linalg.solve(matrix, block) if invert else matrix @ block)
        if self.covariances.ndim == 3 and self._basis is not None:
            basis, values = self._basis
            diagonal = (weights @ values + shift)[:, None]
            inner = basis.T @ block
            return np.asarray(basis @ (inner / diagonal if invert else inner * diagonal))
        diagonal = weights @ self.covariances + shift
        diagonal = diagonal[:, None] if np.ndim(diagonal) else diagonal
        return np.asarray(block / diagonal if invert else block * diagonal)


def _check_semidefinite(cov: FloatArray) -> None:
    for a, matrix in enumerate(cov):
        values = np.linalg.eigvalsh(matrix)
        if values[0] < -1e-10 * max(values[-1], 0.0) or values[-1] < 0.0:
            raise ValueError(f"`covariances[{a}]` must be positive semi-definite, got an eigenvalue {values[0]:.3g}")
