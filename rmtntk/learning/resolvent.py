r"""Deterministic equivalents of one and two resolvents of the noise, in one parametrisation for every shift.

With G = Z Zᵀ, rows z_i ~ N(0, C_a/p), and s = c − z,

.. math:: P = \Big(c_1 \sum_b \tfrac{n_b}{p} \frac{C_b}{1+\delta_b} + s I\Big)^{-1}, \qquad
          \delta_b = \tfrac{c_1}{p}\, \mathrm{tr}\, C_b P,

stands for Π = (c1 Zᵀ Z + s)^{-1}; c1 = 0 is no special case.
"""

from dataclasses import dataclass

import numpy as np

from rmtntk._memory import check_memory
from rmtntk._typing import AnyArray, FloatArray
from rmtntk.errors import ConvergenceError

__all__ = ["Noise", "Solution", "noise_of"]

_SWEEPS = 2000
_TOLERANCE = 1e-13
_ACCEPTED = 1e-10
_COMMUTE = 1e-12
_ADVICE = "give covariances with a common eigenbasis, or fewer features"


@dataclass(frozen=True, eq=False)
class Solution:
    """P at one shift.

    Attributes
    ----------
    shift : complex
        s.
    delta : ndarray, shape (K,)
        δ_b.
    resolvent : ndarray, shape (d,) or (p, p)
        P, as the diagonal in the common eigenbasis of the covariances or as a matrix.
    iterations : int
    residual : float
        Largest |δ − F(δ)| / (1 + |δ|).
    """

    shift: complex
    delta: AnyArray
    resolvent: AnyArray
    iterations: int
    residual: float


@dataclass(frozen=True, eq=False)
class Noise:
    """The covariances C_a, in a basis that makes them diagonal where there is one.

    Attributes
    ----------
    covariances : ndarray, shape (K, d) or (K, p, p)
        Eigenvalues of the C_a, d groups of directions that all covariances treat alike, or the matrices.
    share : ndarray, shape (d,)
        Share of the p directions in each group; empty if the covariances have no common basis.
    overlaps : ndarray, shape (d, K, K) or (p, K)
        Σ μ_a μ_bᵀ over the directions of each group, or the means themselves as columns.
    ratios : ndarray, shape (K,)
        n_b/p.
    slope : float
        c1.
    n_features : int
    """

    covariances: FloatArray
    share: FloatArray
    overlaps: FloatArray
    ratios: FloatArray
    slope: float
    n_features: int

    @property
    def diagonal(self) -> bool:
        """Whether the covariances have a common eigenbasis."""
        return self.covariances.ndim == 2

    def solve(self, shift: complex) -> Solution:
        """Solve for δ: Newton from above (monotone for s > 0), plain sweeps where a Newton step does not help.

        Raises
        ------
        ConvergenceError
            If 2000 iterations leave a residual above 1e-10.
        """
        is_complex = shift.imag != 0.0
        s = shift if is_complex else shift.real
        delta = self.slope * self.traces() / s
        p, image = self._image(delta, s)
        residual = _gap(image, delta)
        iteration = 0
        while residual > _TOLERANCE and iteration < _SWEEPS:
            iteration += 1
            spread = self.products(p, p) * self.slope**2 * self.ratios / (1.0 + delta) ** 2
            newton = delta + np.linalg.solve(np.eye(len(delta)) - spread, image - delta)
            admissible = bool((newton.imag * s.imag <= 0.0).all()) if is_complex else bool((newton >= 0.0).all())
            accepted = False
            if admissible:
                trial, trial_image = self._image(newton, s)
                gap = _gap(trial_image, newton)
                # at rounding level neither helps
                accepted = gap < residual or gap <= 4.0 * _TOLERANCE
            if accepted:
                if gap >= 0.5 * residual and gap <= 16.0 * _TOLERANCE:
                    delta, p, image, residual = newton, trial, trial_image, gap
                    break
                delta, p, image, residual = newton, trial, trial_image, gap
            else:
                delta = image
                p, image = self._image(delta, s)
                residual = _gap(image, delta)
        if not residual <= _ACCEPTED:
            raise ConvergenceError(
                f"the fixed point of the resolvent did not converge at shift {shift:.6g} (residual {residual:.2e} "
                f"after {iteration} iterations): take a larger ridge, or shorter times",
                residual,
            )
        return Solution(shift, delta, p, iteration, residual)

    def traces(self) -> FloatArray:
        """Tr C_a / p, shape (K,)."""
        if self.diagonal:
            return np.asarray(self.covariances @ self.share)
        return np.trace(self.covariances, axis1=1, axis2=2) / self.n_features

    def _image(self, delta: AnyArray, s: complex | float) -> tuple[AnyArray, AnyArray]:
        load = self.slope * self.ratios / (1.0 + delta)
        if self.diagonal:
            p = 1.0 / (load @ self.covariances + s)
            return p, self.slope * (self.covariances @ (self.share * p))
        matrix = np.einsum("b,bij->ij", load, self.covariances)
        matrix[np.diag_indices_from(matrix)] += s
        p = np.linalg.inv(matrix)
        return p, self.slope * np.einsum("bij,ij->b", self.covariances, p) / self.n_features

    def products(self, left: AnyArray, right: AnyArray) -> AnyArray:
        """Tr(C_a P C_b P')/p for two resolvents, shape (K, K)."""
        if self.diagonal:
            return np.asarray((self.covariances * (self.share * left * right)) @ self.covariances.T)
        first = (self.covariances @ left).reshape(len(self.covariances), -1)
        second = (self.covariances @ right).transpose(0, 2, 1).reshape(len(self.covariances), -1)
        return np.asarray(first @ second.T / self.n_features)

    def pair_products(self, left: list[AnyArray], right: list[AnyArray]) -> AnyArray:
        """Tr(C_a P_k C_b P_l)/p for all pairs, shape (len(left), len(right), K, K)."""
        k = len(self.covariances)
        if self.diagonal:
            first = (np.stack(left)[:, None, :] * self.covariances).reshape(len(left) * k, -1)
            second = (np.stack(right)[:, None, :] * self.covariances).reshape(len(right) * k, -1)
            table = (first * self.share) @ second.T
            return np.asarray(table.reshape(len(left), k, len(right), k).transpose(0, 2, 1, 3))
        size = self.n_features**2
        itemsize = left[0].itemsize
        check_memory(
            itemsize * (len(left) + 2) * k * size, f"{len(left)} resolvents of {self.n_features} features", _ADVICE
        )
        rows = np.stack([self.covariances @ p for p in left]).reshape(len(left) * k, size)
        out = np.empty((len(left), len(right), k, k), dtype=np.result_type(left[0], right[0]))
        for index, p in enumerate(right):
            columns = (self.covariances @ p).transpose(0, 2, 1).reshape(k, size)
            out[:, index] = (rows @ columns.T / self.n_features).reshape(len(left), k, k)
        return out

    def pair_between(self, left: list[AnyArray], right: list[AnyArray]) -> AnyArray:
        """Mᵀ P_k C_b P_l M for all pairs, shape (len(left), len(right), K, K, K), the class b third."""
        k = len(self.covariances)
        if self.diagonal:
            weighted = np.einsum("bd,dxy->dbxy", self.covariances, self.overlaps).reshape(-1, k**3)
            table = (np.stack(left)[:, None] * np.stack(right)).reshape(len(left) * len(right), -1) @ weighted
            return np.asarray(table.reshape(len(left), len(right), k, k, k))
        first = np.stack([p.T @ self.overlaps for p in left])
        second = np.stack([p @ self.overlaps for p in right])
        parts = [np.einsum("kix,liy->klxy", first, c @ second, optimize=True) for c in self.covariances]
        return np.stack(parts, axis=2)

    def trace_with(self, left: AnyArray, right: AnyArray) -> AnyArray:
        """Tr(C_a P P')/p, shape (K,)."""
        if self.diagonal:
            return np.asarray(self.covariances @ (self.share * left * right))
        return np.asarray(np.einsum("aij,ij->a", self.covariances, left @ right) / self.n_features)

    def between(self, left: AnyArray) -> AnyArray:
        """Mᵀ P M, shape (K, K)."""
        if self.diagonal:
            return np.asarray(np.tensordot(left, self.overlaps, 1))
        return np.asarray(self.overlaps.T @ left @ self.overlaps)

    def between_weighted(self, left: AnyArray, weights: AnyArray, right: AnyArray | None = None) -> AnyArray:
        """Mᵀ P (Σ_b weights_b C_b) P' M, with P' = I if not given; shape (K, K)."""
        if self.diagonal:
            inner = left * (weights @ self.covariances)
            return self.between(inner if right is None else inner * right)
        first = left.T @ self.overlaps
        second = self.overlaps if right is None else right @ self.overlaps
        return np.asarray(sum(w * (first.T @ (c @ second)) for w, c in zip(weights, self.covariances, strict=True)))


def _gap(image: AnyArray, delta: AnyArray) -> float:
    return float((np.abs(image - delta) / (1.0 + np.abs(delta))).max())


def noise_of(means: FloatArray, covariances: FloatArray, ratios: FloatArray, slope: float) -> Noise:
    """Bring means (K, p) and covariances (K,), (K, p) or (K, p, p) into the common basis, if there is one."""
    n_classes, p = means.shape
    if covariances.ndim == 3:
        rng = np.random.default_rng(0)  # a generic combination has the common eigenvectors, if there are any
        _, vectors = np.linalg.eigh(np.einsum("a,aij->ij", 0.5 + rng.random(n_classes), covariances))
        turned = vectors.T @ covariances @ vectors
        diagonals = np.diagonal(turned, axis1=1, axis2=2).copy()
        scale = np.abs(covariances).max()
        turned[:, np.arange(p), np.arange(p)] = 0.0
        if np.abs(turned).max(initial=0.0) > _COMMUTE * p * scale:
            return Noise(covariances, np.empty(0), means.T.copy(), ratios, slope, p)
        means, covariances = means @ vectors, diagonals
    if covariances.ndim == 1:
        return Noise(covariances[:, None], np.ones(1), (means @ means.T)[None], ratios, slope, p)
    values, group = np.unique(covariances, axis=1, return_inverse=True)
    group = group.reshape(-1)
    share = np.bincount(group, minlength=values.shape[1]) / p
    overlaps = np.zeros((values.shape[1], n_classes, n_classes))
    np.add.at(overlaps, group, means.T[:, :, None] * means.T[:, None, :])
    return Noise(values, share, overlaps, ratios, slope, p)
